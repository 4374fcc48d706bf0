"""The rows of the report and their totals, and the same as CSV and JSON lines.

`tasks.csv` and `tasks.jsonl` are replaced whole at the end. No cell can start a formula in a spreadsheet; memory is
flat at any number of rows. A row's own cells are columns `row.NAME`: their names are known only after the last row, so
the CSV is written from the JSON lines.
"""

import csv
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO

from pipeline.model import Mark, TaskState
from pipeline.text import usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An image that the task had before: superseded, never deleted."""

    path: str  # relative to the report's folder, or absolute
    sha256: str
    made_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One task. Paths are relative to the report's folder, absolute, or the addresses of objects; None: nothing."""

    id: str
    job: str
    row: str
    variant: int
    state: TaskState
    prompt: str
    model: str
    tags: tuple[str, ...] = ()
    matrix: Mapping[str, str] = field(default_factory=dict)  # axis -> the chosen value's name
    image: str | None = None
    input_image: str | None = None  # the first input: what stands before
    input_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    mime: str | None = None
    size_bytes: int | None = None
    price_microusd: int = 0  # what all attempts of the task cost
    seconds: float | None = None  # the attempt that brought the image
    attempts: int = 0
    reason: str = ""
    finished_at: datetime | None = None
    sha256: str | None = None  # of the image, hex
    fingerprint: str = ""
    is_signed: bool = False  # C2PA, inside the image
    fields: Mapping[str, str] = field(default_factory=dict)  # the row's own cells
    folder: str = ""  # of the output name
    mark: Mark | None = None  # None: there is none of the image that stands there
    versions: tuple[Version, ...] = ()  # newest first
    flags: tuple[str, ...] = ()  # what checks found in the image
    redo_microusd: int | None = None  # what a new image would cost; None: its price is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTotals:
    """Money and requests of the whole life of a manifest; tasks are counted from the rows."""

    spent_microusd: int
    unknown_microusd: int = 0
    attempts: int = 0


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # OWASP, CSV injection
_MOST_COLUMNS = 1000  # of the CSV, which spreadsheets open; the JSON lines have all
_EMPTY = ReportRow(id="", job="", row="", variant=1, state=TaskState.PENDING, prompt="", model="")


class Tables:
    """The open JSON lines; `add` writes one row."""

    def __init__(self, jsonl_file: IO[str]) -> None:
        self._jsonl = jsonl_file
        self._columns: dict[str, None] = {}  # in the order in which they were seen

    def add(self, row: ReportRow) -> None:
        """Write one task."""
        record = task_record(row)
        if len(self._columns) < _MOST_COLUMNS:
            self._columns |= dict.fromkeys(record)
        self._jsonl.write(json.dumps(record, ensure_ascii=False) + "\n")

    def write_csv(self, csv_file: IO[str]) -> None:
        """Write every task that was added as CSV; the JSON lines are read from their beginning."""
        writer = csv.writer(csv_file, lineterminator="\r\n")
        writer.writerow(_cell(name) for name in self._columns or task_record(_EMPTY))
        self._jsonl.flush()
        self._jsonl.seek(0)
        for line in self._jsonl:
            record = json.loads(line)
            writer.writerow([_cell(record.get(name)) for name in self._columns])


@contextmanager
def tables(folder: Path) -> Iterator[Tables]:
    """Open both tables in `folder`; they take their names only when the block ends well."""
    with replaced(folder / "tasks.csv", bom=True) as csv_file, replaced(folder / "tasks.jsonl") as jsonl_file:
        both = Tables(jsonl_file)
        yield both
        both.write_csv(csv_file)


@contextmanager
def replaced(path: Path, *, bom: bool = False) -> Iterator[IO[str]]:
    """Open a new text file that replaces `path` when the block ends well, and leaves it as it was otherwise.

    `bom`: start with the byte-order mark that spreadsheets want before they read UTF-8.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    encoding = "utf-8-sig" if bom else "utf-8"
    try:
        with part.open("x+", encoding=encoding, errors="replace", newline="") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def task_record(row: ReportRow) -> dict[str, object]:
    """Return one task for machines: dollars, RFC 3339 times, plain names."""
    mark = row.mark if row.mark is not None else Mark()
    return {
        "id": row.id,
        "job": row.job,
        "row": row.row,
        "variant": row.variant,
        "state": row.state.value,
        "prompt": row.prompt,
        "model": row.model,
        "tags": list(row.tags),
        "matrix": dict(row.matrix),
        "image": row.image,
        "input_image": row.input_image,
        "width": row.width,
        "height": row.height,
        "mime": row.mime,
        "size_bytes": row.size_bytes,
        "price_usd": usd(row.price_microusd),
        "seconds": row.seconds,
        "attempts": row.attempts,
        "reason": row.reason,
        "finished_at": None if row.finished_at is None else row.finished_at.isoformat(),
        "sha256": row.sha256,
        "fingerprint": row.fingerprint,
        "signed": row.is_signed,
        "mark": mark.kind,
        "stars": mark.stars,
        "note": mark.note,
        "flags": list(row.flags),
        **{f"row.{name}": value for name, value in row.fields.items()},
    }


def _cell(value: object) -> str:
    """Return what a spreadsheet shows as text: lists joined, mappings as `axis=value`, formulas disarmed."""
    match value:
        case None:
            return ""
        case list():
            text = ", ".join(map(str, value))
        case dict():
            text = ", ".join(f"{axis}={name}" for axis, name in value.items())
        case bool() | int() | float():
            return str(value)
        case _:
            text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text

"""Every task as CSV and as JSON lines.

In: report rows, one at a time. Out: `tasks.csv` and `tasks.jsonl`, replaced whole at the end. No cell can start a
formula in a spreadsheet; memory is flat at any number of rows.
"""

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO

from pipeline.report.figures import usd
from pipeline.report.row import ReportRow

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # OWASP, CSV injection
_COLUMNS = tuple(
    {"price_microusd": "price_usd", "is_signed": "signed"}.get(field.name, field.name) for field in fields(ReportRow)
)


class Tables:
    """The two open files; `add` writes one row to each."""

    def __init__(self, csv_file: IO[str], jsonl_file: IO[str]) -> None:
        self._csv = csv.writer(csv_file, lineterminator="\r\n")
        self._jsonl = jsonl_file
        self._csv.writerow(_COLUMNS)

    def add(self, row: ReportRow) -> None:
        """Write one task."""
        record = task_record(row)
        self._csv.writerow([_cell(value) for value in record.values()])
        self._jsonl.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def tables(folder: Path) -> Iterator[Tables]:
    """Open both tables in `folder`; they take their names only when the block ends well."""
    with replaced(folder / "tasks.csv", bom=True) as csv_file, replaced(folder / "tasks.jsonl") as jsonl_file:
        yield Tables(csv_file, jsonl_file)


@contextmanager
def replaced(path: Path, *, bom: bool = False) -> Iterator[IO[str]]:
    """Open a new text file that replaces `path` when the block ends well, and leaves it as it was otherwise.

    `bom`: start with the byte-order mark that spreadsheets want before they read UTF-8.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    encoding = "utf-8-sig" if bom else "utf-8"
    try:
        with part.open("w", encoding=encoding, errors="replace", newline="") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def task_record(row: ReportRow) -> dict[str, object]:
    """Return one task for machines: dollars, RFC 3339 times, plain names."""
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

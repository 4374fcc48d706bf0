"""The rows of the contact sheet, as tables (CSV, JSON lines) and as the data and the HTML of the page.

`tasks.csv` and `tasks.jsonl` are replaced whole at the end. No cell can start a formula in a spreadsheet; memory is
flat at any number of rows. A row's own cells are columns `row.NAME`: their names are known only after the last row, so
the CSV is written from the JSON lines.

There are two pages, of the same parts. The static page holds style, script and data itself and allows nothing else; the
served one (`judge`) loads style and script from its own origin. Text from outside is only ever data, never markup.
"""

import base64
import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import IO

from pipeline.model import BucketUrl, Mark, TaskState
from pipeline.store.files import replacing
from pipeline.text import as_json


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
    input_image: str | None = None  # the first input: shown as before
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
    mark: Mark | None = None  # None: the present image has none
    versions: tuple[Version, ...] = ()  # newest first
    flags: tuple[str, ...] = ()  # what checks found in the image
    redo_microusd: int | None = None  # what a new image would cost; None: its price is not known


# -- tables ------------------------------------------------------------------------------------------------------------

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # OWASP, CSV injection
_MOST_COLUMNS = 1000  # of the CSV, which spreadsheets open; the JSON lines have all
_EMPTY = ReportRow(id="", job="", row="", variant=1, state=TaskState.PENDING, prompt="", model="")


def write_tables(folder: Path, rows: Iterable[ReportRow]) -> None:
    """Write both tables into `folder`; they take their names only when every row is written."""
    columns: dict[str, None] = {}  # in the order in which they were seen
    with replaced(folder / "tasks.csv", bom=True) as csv_file, replacing(folder / "tasks.jsonl") as part:
        with _new_text(part) as jsonl_file:
            for record in map(task_record, rows):
                if len(columns) < _MOST_COLUMNS:
                    columns |= dict.fromkeys(record)
                jsonl_file.write(json.dumps(record, ensure_ascii=False) + "\n")
        writer = csv.writer(csv_file, lineterminator="\r\n")
        writer.writerow(_cell(name) for name in columns or task_record(_EMPTY))
        with part.open(encoding="utf-8", newline="") as jsonl_file:  # rclone mount reads nothing that is still open
            for record in map(json.loads, jsonl_file):
                writer.writerow([_cell(record.get(name)) for name in columns])


@contextmanager
def replaced(path: Path, *, bom: bool = False) -> Iterator[IO[str]]:
    """Open a new text file that replaces `path` when the block ends well, and leaves it as it was otherwise.

    `bom`: start with the byte-order mark that spreadsheets want before they read UTF-8.
    """
    with replacing(path) as part, _new_text(part, encoding="utf-8-sig" if bom else "utf-8") as file:
        yield file


def _new_text(path: Path, *, encoding: str = "utf-8") -> IO[str]:
    return path.open("x", encoding=encoding, errors="replace", newline="")


def task_record(row: ReportRow) -> dict[str, object]:
    """Return one task for machines: dollars, RFC 3339 times, plain names."""
    mark = row.mark if row.mark is not None else Mark()
    return {
        **as_json(row, "id", "job", "row", "variant", "state", "prompt", "model", "tags"),
        "matrix": dict(row.matrix),
        **as_json(row, "image", "input_image", "width", "height", "mime", "size_bytes"),
        **as_json(row, "price_microusd", "seconds", "attempts", "reason"),
        "finished_at": None if row.finished_at is None else row.finished_at.isoformat(),
        **as_json(row, "sha256", "fingerprint"),
        "signed": row.is_signed,
        "mark": mark.kind,
        **as_json(mark, "stars", "note"),
        "flags": row.flags,
        **{f"row.{name}": value for name, value in row.fields.items()},
    }


def _cell(value: object) -> str:
    """Return what a spreadsheet shows as text: lists joined, mappings as `axis=value`, formulas disarmed."""
    match value:
        case None:
            return ""
        case bool() | int() | float():
            return str(value)
        case list():
            text = ", ".join(map(str, value))
        case dict():
            text = ", ".join(f"{axis}={name}" for axis, name in value.items())
        case _:
            text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


# -- the page ----------------------------------------------------------------------------------------------------------

MOST_CELL = 300  # characters of a row's own cell: what is searched and grouped by, not read
STATES = ("done", "failed", "refused", "unknown", "conflict", "pending")
SERVED_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
_ASSETS = Path(__file__).parent / "page"
_COLUMNS = {  # column of the page: field of a row
    **{name: name for name in ("id", "job", "row", "variant", "folder", "prompt", "model", "width", "height", "mime")},
    **{name: name for name in ("attempts", "reason", "sha256", "state", "tags", "flags")},
    "bytes": "size_bytes",
    "price": "price_microusd",
    "redo": "redo_microusd",
    "signed": "is_signed",
}
_SCRIPTS = ("data", "marks", "backend", "groups", "layout", "sheet", "viewer", "judging", "controls")  # in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the page finds the pictures of one row: links, quoted. None: there is none."""

    image: str | None = None
    input: str | None = None  # the input's own file
    before: str | None = None  # what the slider shows of it: itself, or what browsers can draw in its place
    small: str | None = None  # its thumbnail
    thumb: str | None = None  # the image's thumbnail
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What the page shows of a manifest's whole life; tasks are counted from the rows."""

    title: str
    output_dir: Path | BucketUrl
    spent_microusd: int
    unknown_microusd: int = 0
    attempts: int = 0
    is_play_money: bool
    command: str = ""  # what is typed behind `imgpipe VERB` for this manifest
    written_at: datetime


def sheet_data(
    heading: Heading,
    states: Mapping[str, int],
    rows: Sequence[ReportRow],
    find: Callable[[ReportRow], Addresses],
) -> dict[str, object]:
    """Return what the page's script reads. `states`: of all tasks, also of those that are not on the page."""
    key = hashlib.sha256(f"{heading.title}\0{heading.output_dir}".encode(errors="replace")).hexdigest()[:16]
    return {
        "title": heading.title,
        "key": key,  # distinguishes reports in the storage of a browser
        "isPlayMoney": heading.is_play_money,
        "written": int(heading.written_at.timestamp()),
        "total": sum(states.values()),
        "states": {state: states[state] for state in STATES if states.get(state)},
        "spent": heading.spent_microusd,
        "unknown": heading.unknown_microusd,
        "attempts": heading.attempts,
        "command": heading.command,
        "columns": _columns(rows, [find(row) for row in rows]),
        "axes": _cells([row.matrix for row in rows]),
        "fields": _cells([row.fields for row in rows]),
        "marks": {row.id: mark_data(row.mark) for row in rows if row.mark is not None},
    }


def mark_data(mark: Mark) -> dict[str, object]:
    """Return a mark as the page's script reads it."""
    return {"kind": mark.kind, "stars": mark.stars, "note": mark.note, "sha256": mark.sha256, "at": mark.at_ms}


def _columns(rows: Sequence[ReportRow], found: Sequence[Addresses]) -> dict[str, object]:
    """Return the rows by column: the page reads 10,000 of them in a few milliseconds."""
    columns: dict[str, list[object]] = {
        **{name: [getattr(row, field) for row in rows] for name, field in _COLUMNS.items()},
        **{name: [getattr(at, name) for at in found] for name in ("image", "input", "before", "small", "thumb")},
        "versions": [
            [[link, version.made_at and int(version.made_at.timestamp())] for link, version in pairs]
            for pairs in (zip(at.versions, row.versions, strict=True) for at, row in zip(found, rows, strict=True))
        ],
        "seconds": [None if row.seconds is None else round(row.seconds, 2) for row in rows],
        "time": [None if row.finished_at is None else int(row.finished_at.timestamp()) for row in rows],
        "fingerprint": [row.fingerprint[:16] for row in rows],
    }
    return {name: packed(values) for name, values in columns.items()}


def _cells(mappings: Sequence[Mapping[str, str]]) -> dict[str, object]:
    """Return a column for each name that any row has; None where a row has no such cell."""
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    clipped = [{name: value[:MOST_CELL] for name, value in mapping.items()} for mapping in mappings]
    return {name: packed([mapping.get(name) for mapping in clipped]) for name in names}


def packed(values: Sequence[object]) -> object:
    """Return a column as it is, or as `{"d": distinct values, "i": their positions}` where that is shorter."""
    places: dict[str, int] = {}
    order = [places.setdefault(json.dumps(value), len(places)) for value in values]
    if len(places) * 2 > len(values):
        return values
    distinct = [json.loads(text) for text in places]
    return {"d": distinct, "i": order if len(distinct) > 1 else []}


def script_json(data: object) -> str:
    """Return JSON that can stand in a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


@cache
def asset(name: str) -> str:
    """Return a part of the page as text."""
    return (_ASSETS / name).read_text(encoding="utf-8")


@cache
def script() -> str:
    return '"use strict";(() => {\n' + "\n".join(asset(f"{name}.js") for name in _SCRIPTS) + "\n})();"


def static_page(title: str, data: object) -> str:
    """Return the page that is a file: it loads nothing from any network."""
    style = asset("page.css")
    policy = (
        "default-src 'none'; img-src 'self' file: data: blob:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script())}'; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f'<link rel="icon" href="data:,">\n<style>{style}</style>'
    )
    return _page(title, data, head=head, tail=f"<script>{script()}</script>")


def served_page(title: str, data: object) -> str:
    """Return the page that `judge` serves; its policy is in the answer's header."""
    head = '<link rel="icon" href="icon.svg">\n<link rel="stylesheet" href="page.css">'
    return _page(title, data, head=head, tail='<script src="page.js"></script>')


def _page(title: str, data: object, *, head: str, tail: str) -> str:
    parts = {"title": escape(title), "head": head, "tail": tail, "data": script_json(data)}
    return re.sub(r"<!--=(\w+)-->", lambda match: parts[match[1]], asset("page.html"))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

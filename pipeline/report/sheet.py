"""Builds the contact sheet's page: rows to the data that its script reads, and the HTML around them.

There are two pages, of the same parts. The static page holds style, script and data itself and allows nothing else; the
served one (`judge`) loads style and script from its own origin. Text from outside is only ever data, never markup.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from pipeline.model import Mark
from pipeline.report.tables import ReportRow, ReportTotals

MOST_CELL = 300  # characters of a row's own cell: what is searched and grouped by, not read
STATES = ("done", "failed", "refused", "unknown", "conflict", "pending")
SERVED_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
_ASSETS = Path(__file__).parent / "page"
_PLAIN_COLUMNS = {  # column of the page: field of a row
    **{name: name for name in ("id", "job", "row", "variant", "folder", "prompt", "model", "width", "height", "mime")},
    **{name: name for name in ("attempts", "reason", "sha256")},
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
    """What the page says of all tasks together."""

    title: str
    key: str  # tells reports apart where a browser keeps marks
    totals: ReportTotals
    states: Mapping[str, int]  # of all tasks, also of those that are not on the page
    is_play_money: bool
    written_s: int  # seconds since 1970 UTC
    command: str  # what is typed behind `imgpipe VERB` for this manifest


def sheet_data(
    heading: Heading, rows: Sequence[ReportRow], find: Callable[[ReportRow], Addresses]
) -> dict[str, object]:
    """Return what the page's script reads."""
    return {
        "title": heading.title,
        "key": heading.key,
        "isPlayMoney": heading.is_play_money,
        "written": heading.written_s,
        "total": sum(heading.states.values()),
        "states": {state: heading.states[state] for state in STATES if heading.states.get(state)},
        "spent": heading.totals.spent_microusd,
        "unknown": heading.totals.unknown_microusd,
        "attempts": heading.totals.attempts,
        "command": heading.command,
        "columns": _columns(rows, [find(row) for row in rows]),
        "axes": _cells([row.matrix for row in rows]),
        "fields": _cells([row.fields for row in rows]),
        "marks": {row.id: _mark(row.mark) for row in rows if row.mark is not None},
    }


def _mark(mark: Mark) -> dict[str, object]:
    return {"kind": mark.kind, "stars": mark.stars, "note": mark.note, "sha256": mark.sha256, "at": mark.at_ms}


def _columns(rows: Sequence[ReportRow], found: Sequence[Addresses]) -> dict[str, object]:
    """Return the rows by column: the page reads 10,000 of them in a few milliseconds."""
    plain = {name: [getattr(row, field) for row in rows] for name, field in _PLAIN_COLUMNS.items()}
    links = {name: [getattr(at, name) for at in found] for name in ("image", "input", "before", "small", "thumb")}
    columns: dict[str, list[object]] = {
        **plain,
        **links,
        "state": [row.state.value for row in rows],
        "tags": [list(row.tags) for row in rows],
        "flags": [list(row.flags) for row in rows],
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
    """Return the page's script."""
    return '"use strict";(() => {\n' + "\n".join(asset(f"{name}.js") for name in _SCRIPTS) + "\n})();"


def static_page(title: str, data: object, chart: str) -> str:
    """Return the page that is a file: it asks nothing of any network."""
    style = asset("page.css")
    policy = (
        "default-src 'none'; img-src 'self' file: data: blob:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script())}'; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f'<link rel="icon" href="data:,">\n<style>{style}</style>'
    )
    return _page(title, data, chart, head=head, tail=f"<script>{script()}</script>")


def served_page(title: str, data: object, chart: str) -> str:
    """Return the page that `judge` serves; its policy stands in the answer's header."""
    head = '<link rel="icon" href="icon.svg">\n<link rel="stylesheet" href="page.css">'
    return _page(title, data, chart, head=head, tail='<script src="page.js"></script>')


def _page(title: str, data: object, chart: str, *, head: str, tail: str) -> str:
    parts = {"title": escape(title), "head": head, "tail": tail, "data": script_json(data), "chart": chart}
    return re.sub(r"<!--=(\w+)-->", lambda match: parts[match[1]], asset("page.html"))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

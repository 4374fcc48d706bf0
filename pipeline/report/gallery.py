"""The contact sheet: one static page of every task.

In: report rows, totals and spend. Out: a folder with `index.html` (self-contained, no network, links to the originals),
`thumbs/`, `tasks.csv` and `tasks.jsonl`. It reads image files to make thumbnails and changes none.
"""

import base64
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from pipeline.report.chart import Spend, spend_chart
from pipeline.report.row import ReportRow, ReportTotals
from pipeline.report.tables import replaced, tables
from pipeline.report.thumbs import Thumb, is_drawn, make_thumbs, small_input, thumb_name

MOST_ROWS = 50_000  # on the page; the tables have every task. 10,000 rows are about 3 MB of page
_ASSETS = Path(__file__).parent / "page"
_SCRIPTS = ("data.js", "marks.js", "layout.js", "sheet.js", "viewer.js", "controls.js")
_STATES = ("done", "failed", "refused", "unknown", "conflict", "pending")


def write_report(
    out: Path,
    *,
    title: str,
    rows: Iterable[ReportRow],
    totals: ReportTotals,
    spend: Spend,
    is_play_money: bool,
    output_dir: Path,
    now: datetime | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the report into the folder `out` and return its page.

    `spend`: moment and micro-dollars of each expense, or of each day. `output_dir` tells reports apart where a browser
    keeps picks. `told` hears how many of how many new thumbnails are made.

    Raises OSError when the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    shown: list[ReportRow] = []
    states: Counter[str] = Counter()
    with tables(out) as both:
        for row in (_placed(row, out) for row in rows):
            both.add(row)
            states[row.state.value] += 1
            if len(shown) < MOST_ROWS:
                shown.append(row)
    thumbs = make_thumbs(out / "thumbs", _thumbs(shown, out), told=told)
    moment = now if now is not None else datetime.now(UTC)
    data = {
        "title": title,
        "key": hashlib.sha256(f"{title}\0{output_dir}".encode(errors="replace")).hexdigest()[:16],
        "isPlayMoney": is_play_money,
        "written": int(moment.timestamp()),
        "total": states.total(),
        "states": {state: states[state] for state in _STATES if states[state]},
        "spent": totals.spent_microusd,
        "unknown": totals.unknown_microusd,
        "attempts": totals.attempts,
        "columns": _columns(shown, out, thumbs),
    }
    page = out / "index.html"
    with replaced(page) as file:
        file.write(_page(title, data, spend_chart(_fine(spend, shown), is_play_money=is_play_money)))
    return page


def _fine(spend: Spend, rows: Sequence[ReportRow]) -> Spend:
    """Return moments to draw: a life of one day that is told by days is drawn from the images of that day."""
    if len({when for when, _ in spend}) > 1:
        return spend
    return [(row.finished_at, row.price_microusd) for row in rows if row.finished_at is not None]


def _thumbs(rows: Sequence[ReportRow], out: Path) -> dict[str, Thumb]:
    """Return what the page wants small: every image and every input, so that the report can be sent without them."""
    wanted: dict[str, Thumb] = {}
    for row in rows:
        if row.sha256 is not None and row.image is not None:
            wanted[thumb_name(row.sha256)] = Thumb(source=out / row.image)
        if row.input_image is not None and (small := small_input(out / row.input_image)) is not None:
            wanted[small[0]] = small[1]
    return wanted


def _columns(rows: Sequence[ReportRow], out: Path, thumbs: set[str]) -> dict[str, object]:
    """Return the rows by column: the page reads 10,000 of them in a few milliseconds."""
    columns: dict[str, list[object]] = {
        "id": [row.id for row in rows],
        "job": [row.job for row in rows],
        "row": [row.row for row in rows],
        "variant": [row.variant for row in rows],
        "state": [row.state.value for row in rows],
        "prompt": [row.prompt for row in rows],
        "model": [row.model for row in rows],
        "tags": [list(row.tags) for row in rows],
        "matrix": [", ".join(f"{axis}: {name}" for axis, name in row.matrix.items()) for row in rows],
        "image": [_link(row.image) for row in rows],
        "input": [_link(row.input_image) for row in rows],
        "before": [_before(row.input_image, out, thumbs) for row in rows],
        "small": [_small(row.input_image, out, thumbs) for row in rows],
        "thumb": [_thumb(row.sha256, thumbs) for row in rows],
        "width": [row.width for row in rows],
        "height": [row.height for row in rows],
        "mime": [row.mime for row in rows],
        "bytes": [row.size_bytes for row in rows],
        "price": [row.price_microusd for row in rows],
        "seconds": [None if row.seconds is None else round(row.seconds, 2) for row in rows],
        "attempts": [row.attempts for row in rows],
        "reason": [row.reason for row in rows],
        "signed": [row.is_signed for row in rows],
        "time": [None if row.finished_at is None else int(row.finished_at.timestamp()) for row in rows],
        "sha256": [row.sha256 for row in rows],
        "fingerprint": [row.fingerprint[:16] for row in rows],
    }
    return {name: _packed(values) for name, values in columns.items()}


def _packed(values: list[object]) -> object:
    """Return a column as it is, or as `{"d": distinct values, "i": their positions}` where that is shorter."""
    places: dict[str, int] = {}
    order = [places.setdefault(json.dumps(value), len(places)) for value in values]
    if len(places) * 2 > len(values):
        return values
    distinct = [json.loads(text) for text in places]
    return {"d": distinct, "i": order if len(distinct) > 1 else []}


def _thumb(sha256: str | None, thumbs: set[str]) -> str | None:
    return f"thumbs/{name}" if sha256 is not None and (name := thumb_name(sha256)) in thumbs else None


def _before(path: str | None, out: Path, thumbs: set[str]) -> str | None:
    """Return what the slider shows of an input: itself, or what browsers can draw in its place."""
    small = None if path is None or is_drawn(Path(path)) else _small(path, out, thumbs)
    return _link(path) if small is None else small


def _small(path: str | None, out: Path, thumbs: set[str]) -> str | None:
    small = None if path is None else small_input(out / path)
    return f"thumbs/{small[0]}" if small is not None and small[0] in thumbs else None


def _link(path: str | None) -> str | None:
    """Return a relative link; bytes of a name that are not UTF-8 survive."""
    return None if path is None else quote(os.fsencode(path), safe="/")


def _placed(row: ReportRow, out: Path) -> ReportRow:
    """Return the row with its paths relative to the report, so that the folders can be moved together."""
    return replace(row, image=_relative(row.image, out), input_image=_relative(row.input_image, out))


def _relative(path: str | None, out: Path) -> str | None:
    if path is None or not Path(path).is_absolute():
        return path
    return os.path.relpath(path, out.absolute()).replace(os.sep, "/")


def script_json(data: object) -> str:
    """Return JSON that can stand in a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _page(title: str, data: object, chart: str) -> str:
    style = _asset("page.css")
    script = '"use strict";(() => {\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "\n})();"
    policy = (
        "default-src 'none'; img-src 'self' file: data: blob:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": escape(policy),
        "title": escape(title),
        "style": style,
        "script": script,
        "data": script_json(data),
        "chart": chart,
    }
    return re.sub(r"<!--=(\w+)-->", lambda match: parts[match[1]], _asset("page.html"))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

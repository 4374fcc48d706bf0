"""Writes the contact sheet as a folder: `index.html`, `thumbs/`, `tasks.csv` and `tasks.jsonl`.

The page is self-contained: no network, links to the originals; of objects in a bucket it shows the thumbnails. Images
are read to make thumbnails and never changed. Spend over time is one `<svg>` in it.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from itertools import accumulate
from pathlib import Path
from urllib.parse import quote

from pipeline.imaging.thumbnails import Thumb, is_drawn, is_raster, make_thumbs, thumb_of
from pipeline.model import BucketUrl, is_object
from pipeline.report.folder import THUMBS, claim_folder
from pipeline.report.sheet import Addresses, Heading, sheet_data, static_page
from pipeline.report.tables import ReportRow, ReportTotals, replaced, tables
from pipeline.text import money

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 400, 118, 56, 22, 8
_MOST_POINTS = 200  # about two units each

Spend = Sequence[tuple[datetime, int]]


def spend_chart(spend: Spend, *, is_play_money: bool) -> str:
    """Draw the running total of `spend` (moment, micro-dollars of that moment).

    Empty text where nothing was spent, or all of it at one moment.
    """
    points = _running(spend)
    if not points or points[-1][1] <= 0 or points[0][0] == points[-1][0]:
        return ""
    start, end, top = points[0][0], points[-1][0], points[-1][1]
    line = _path(points)
    floor = _HEIGHT - _BOTTOM
    right = _WIDTH - 6
    total = money(top, is_play_money)
    label = f"Money spent over time: {total} from {_moment(start)} to {_moment(end)}"
    ticks = "".join(_tick(amount, top) for amount in (0, top // 2, top))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{ticks}'
        f'<path class="area" d="{line}V{floor}H{_LEFT}Z"/><path class="line" d="{line}"/>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{_moment(start)}</text>'
        f'<text x="{right}" y="{_HEIGHT - 6}" text-anchor="end">{_moment(end)}</text></svg>'
    )


def _tick(amount: int, top: int) -> str:
    y = _y(amount, top)
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 6}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(money(amount))}</text>'
    )


def _running(spend: Spend) -> list[tuple[datetime, int]]:
    """Return moments with running totals, thinned evenly; the last one always stays."""
    ordered = sorted(spend)
    totals = list(zip((when for when, _ in ordered), accumulate(amount for _, amount in ordered), strict=True))
    step = -(-len(totals) // _MOST_POINTS) or 1
    return totals[::-step][::-1]


def _path(points: Sequence[tuple[datetime, int]]) -> str:
    """Return a step line: money jumps when it is spent."""
    start, top = points[0][0], points[-1][1]
    span = (points[-1][0] - start).total_seconds()
    room = _WIDTH - 6 - _LEFT
    steps = [f"M{_LEFT},{_y(0, top):.1f}"]
    for when, total in points:
        x = _LEFT + room * (when - start).total_seconds() / span
        steps.append(f"H{x:.1f}V{_y(total, top):.1f}")
    steps.append(f"H{_WIDTH - 6}")
    return "".join(steps)


def _y(amount: int, top: int) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - amount / top)


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M")


MOST_ROWS = 50_000  # on the page; the tables have every task. 10,000 rows are about 3 MB of page


def write_report(
    out: Path,
    *,
    title: str,
    rows: Iterable[ReportRow],
    totals: ReportTotals,
    spend: Spend,
    is_play_money: bool,
    output_dir: Path | BucketUrl,
    command: str = "",
    now: datetime | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the report into the folder `out` and return its page.

    `spend`: moment and micro-dollars of each expense, or of each day. `output_dir` tells reports apart where a browser
    keeps marks. `command`: what is typed behind `imgpipe VERB`. `on_progress` is called with how many of how many
    new thumbnails are made.

    Raises StorageError: the folder is not ours (`claim_folder`). OSError: it cannot be written.
    """
    claim_folder(out, title)
    shown: list[ReportRow] = []
    states: Counter[str] = Counter()
    with tables(out) as both:
        for row in (_placed(row, out) for row in rows):
            both.add(row)
            states[row.state.value] += 1
            if len(shown) < MOST_ROWS:
                shown.append(row)
    thumbs = make_thumbs(out / THUMBS, wanted_thumbs(shown, out), on_progress=on_progress)
    heading = Heading(
        title=title,
        key=sheet_key(title, output_dir),
        totals=totals,
        states=states,
        is_play_money=is_play_money,
        written_s=int((now if now is not None else datetime.now(UTC)).timestamp()),
        command=command,
    )
    data = sheet_data(heading, shown, lambda row: _addresses(row, out, thumbs))
    page = out / "index.html"
    with replaced(page) as file:
        file.write(static_page(title, data, spend_chart(fine(spend, shown), is_play_money=is_play_money)))
    return page


def sheet_key(title: str, output_dir: Path | BucketUrl) -> str:
    """Return what tells reports apart where a browser keeps marks."""
    return hashlib.sha256(f"{title}\0{output_dir}".encode(errors="replace")).hexdigest()[:16]


def fine(spend: Spend, rows: Sequence[ReportRow]) -> Spend:
    """Return moments to draw: a life of one day that is known by days is drawn from the images of that day.

    Only where they are all of the money: a chart must not climb to another sum than the one above it.
    """
    moments = [(row.finished_at, row.price_microusd) for row in rows if row.finished_at is not None]
    is_all = sum(price for _, price in moments) == sum(amount for _, amount in spend)
    return moments if is_all and len({when for when, _ in spend}) == 1 else spend


def wanted_thumbs(rows: Sequence[ReportRow], out: Path) -> dict[str, Thumb]:
    """Return what the page wants small: every image and every input, so that the report can be sent without them."""
    pairs = (pair for row in rows for pair in ((row.image, row.sha256), (row.input_image, row.input_sha256)))
    return dict(
        found
        for path, sha256 in pairs
        if path is not None and (found := thumb_of(_source(path, out), sha256)) is not None
    )


def _source(path: str, out: Path) -> Path | str:
    return path if is_object(path) else out / path


def thumb_link(path: str | None, sha256: str | None, out: Path, thumbs: Collection[str]) -> str | None:
    """Return the link to the thumbnail of the picture that stands at `path` now; None: there is none."""
    found = None if path is None else thumb_of(_source(path, out), sha256)
    return f"{THUMBS}/{found[0]}" if found is not None and found[0] in thumbs else None


def before_link(path: str | None, link: str | None, small: str | None) -> str | None:
    """Return what the slider shows of an input: itself, or what browsers can draw in its place."""
    return small if path is not None and small is not None and not is_drawn(path) else link


def _addresses(row: ReportRow, out: Path, thumbs: set[str]) -> Addresses:
    small = thumb_link(row.input_image, row.input_sha256, out, thumbs)
    thumb = thumb_link(row.image, row.sha256, out, thumbs)
    link = _link(row.input_image, small)
    if row.input_image is not None and not is_object(row.input_image) and not is_raster(out / row.input_image):
        link = None
    return Addresses(
        image=_link(row.image, thumb),
        input=link,
        before=before_link(row.input_image, link, small),
        small=small,
        thumb=thumb,
        versions=tuple(quote(os.fsencode(version.path), safe="/") for version in row.versions),
    )


def _link(path: str | None, thumb: str | None) -> str | None:
    """Return a relative link, of an object that to its thumbnail; bytes of a name that are not UTF-8 survive."""
    if path is None or is_object(path):
        return thumb
    return quote(os.fsencode(path), safe="/")


def _placed(row: ReportRow, out: Path) -> ReportRow:
    """Return the row with its paths relative to the report, so that the folders can be moved together."""
    files = (version for version in row.versions if not is_object(version.path))  # a page cannot open objects
    versions = tuple(replace(version, path=_relative(version.path, out)) for version in files)
    return replace(
        row,
        image=row.image and _relative(row.image, out),
        input_image=row.input_image and _relative(row.input_image, out),
        versions=versions,
    )


def _relative(path: str, out: Path) -> str:
    return os.path.relpath(path, out.absolute()).replace(os.sep, "/") if Path(path).is_absolute() else path

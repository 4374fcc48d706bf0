"""The contact sheet as a folder: one static page of every task.

In: report rows, totals and spend. Out: a folder with `index.html` (self-contained, no network, links to the originals),
`thumbs/`, `tasks.csv` and `tasks.jsonl`. It reads image files to make thumbnails and changes none.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from pipeline.report.chart import Spend, spend_chart
from pipeline.report.row import ReportRow, ReportTotals
from pipeline.report.sheet import Addresses, Heading, sheet_data, static_page
from pipeline.report.tables import replaced, tables
from pipeline.report.thumbs import Thumb, is_drawn, make_thumbs, thumb_of

MOST_ROWS = 50_000  # on the page; the tables have every task. 10,000 rows are about 3 MB of page


def write_report(
    out: Path,
    *,
    title: str,
    rows: Iterable[ReportRow],
    totals: ReportTotals,
    spend: Spend,
    is_play_money: bool,
    output_dir: Path,
    command: str = "",
    now: datetime | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the report into the folder `out` and return its page.

    `spend`: moment and micro-dollars of each expense, or of each day. `output_dir` tells reports apart where a browser
    keeps marks. `command`: what is typed behind `imgpipe VERB`. `told` hears how many of how many new thumbnails are
    made.

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
    thumbs = make_thumbs(out / "thumbs", wanted_thumbs(shown, out), told=told)
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


def sheet_key(title: str, output_dir: Path) -> str:
    """Return what tells reports apart where a browser keeps marks."""
    return hashlib.sha256(f"{title}\0{output_dir}".encode(errors="replace")).hexdigest()[:16]


def fine(spend: Spend, rows: Sequence[ReportRow]) -> Spend:
    """Return moments to draw: a life of one day that is told by days is drawn from the images of that day.

    Only where they are all of the money: a chart must not climb to another sum than the one above it.
    """
    moments = [(row.finished_at, row.price_microusd) for row in rows if row.finished_at is not None]
    is_all = sum(price for _, price in moments) == sum(amount for _, amount in spend)
    return moments if is_all and len({when for when, _ in spend}) == 1 else spend


def wanted_thumbs(rows: Sequence[ReportRow], out: Path) -> dict[str, Thumb]:
    """Return what the page wants small: every image and every input, so that the report can be sent without them."""
    paths = (path for row in rows for path in (row.image, row.input_image) if path is not None)
    return dict(found for path in paths if (found := thumb_of(out / path)) is not None)


def thumb_link(path: str | None, out: Path, thumbs: set[str]) -> str | None:
    """Return the link to the thumbnail of the picture that stands at `path` now; None: there is none."""
    found = None if path is None else thumb_of(out / path)
    return f"thumbs/{found[0]}" if found is not None and found[0] in thumbs else None


def before_link(path: str | None, link: str | None, small: str | None) -> str | None:
    """Return what the slider shows of an input: itself, or what browsers can draw in its place."""
    return small if path is not None and small is not None and not is_drawn(Path(path)) else link


def _addresses(row: ReportRow, out: Path, thumbs: set[str]) -> Addresses:
    small, link = thumb_link(row.input_image, out, thumbs), _link(row.input_image)
    return Addresses(
        image=_link(row.image),
        input=link,
        before=before_link(row.input_image, link, small),
        small=small,
        thumb=thumb_link(row.image, out, thumbs),
        versions=tuple(quote(os.fsencode(version.path), safe="/") for version in row.versions),
    )


def _link(path: str | None) -> str | None:
    """Return a relative link; bytes of a name that are not UTF-8 survive."""
    return None if path is None else quote(os.fsencode(path), safe="/")


def _placed(row: ReportRow, out: Path) -> ReportRow:
    """Return the row with its paths relative to the report, so that the folders can be moved together."""
    versions = tuple(replace(version, path=_relative(version.path, out)) for version in row.versions)
    return replace(
        row,
        image=row.image and _relative(row.image, out),
        input_image=row.input_image and _relative(row.input_image, out),
        versions=versions,
    )


def _relative(path: str, out: Path) -> str:
    return os.path.relpath(path, out.absolute()).replace(os.sep, "/") if Path(path).is_absolute() else path

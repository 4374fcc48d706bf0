"""Writes the contact sheet as a folder of its own: `index.html`, `thumbs/`, `tasks.csv`, `tasks.jsonl`, saved picks.

The page is self-contained: no network, links to the originals; of objects in a bucket it shows the thumbnails. Images
are read to make thumbnails and never changed.

A report's folder has a mark, a file that names its manifest. Files that imgpipe did not write are never replaced: a
folder that holds anything and has no mark is refused, and so are links, which may lead anywhere.

Picks are what the static page's button saves: `{"picked": [ids], "rejected": [ids], "images": {id: sha256},
"stars": {id: n}, "notes": {id: text}, "at": {id: ms}}`; everything may be missing. `at` says when an id was marked; an
id with a time that is in no list lost its mark then.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from pipeline.errors import InputError, StorageError
from pipeline.imaging.thumbnails import Thumb, is_drawn, is_raster, make_thumbs, thumb_of
from pipeline.model import Mark, is_object
from pipeline.report import sheet
from pipeline.text import visible

MARK: Final = ".imgpipe-report"
PICKS: Final = "picks.json"  # what a person saves from the page
THUMBS: Final = "thumbs"
_NAME = "report"
_UNPORTABLE = re.compile(r"[^\w.-]")
_TITLE = b"imgpipe</title>"  # of pages that were written before there was a mark
_TITLE_BYTES = 4096


def report_folder(output_dir: Path, manifest: str) -> Path:
    """Return where the report of a manifest is: `report`, or `report-NAME` where that is not its own.

    It may be another manifest's report, or hold other files, such as the images of a job named `report`.
    """
    shared, own = output_dir / _NAME, output_dir / f"{_NAME}-{_UNPORTABLE.sub('_', manifest)}"
    if _owner(own) == manifest:  # one that it has stays, with its picks
        return own
    owner = _owner(shared)
    is_taken = owner is None and shared.is_dir() and not shared.is_symlink() and not _is_free(shared)
    return own if is_taken or owner not in (None, manifest) else shared


def is_thumbnail(path: str) -> bool:
    """Say whether a path below the output directory is that of a report's thumbnail."""
    return re.match(rf"{_NAME}(?:-[\w.-]+)?/{THUMBS}/", path) is not None


def claim_folder(out: Path, manifest: str) -> Path:
    """Make the folder with its mark; return it. Nothing changes where it has the mark of this manifest already.

    Raises StorageError: it is a link, not this manifest's, or cannot be written.
    """
    for path in (out, out / THUMBS):
        if path.is_symlink():
            raise StorageError(f"{path} is a link, which is not followed; remove it, then run the same command")
    try:
        out.mkdir(parents=True, exist_ok=True)
        owner = _owner(out)
        if owner is None and not _is_free(out):
            what = f"{out} holds files that imgpipe did not write; they stay as they are"
            raise StorageError(f"{what}. Move them away, then run the same command")
        if owner not in (None, manifest):
            raise StorageError(f"{out} is the report of another manifest, {owner!r}; give this one another output_dir")
        if owner is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(out / MARK, flags, 0o644), "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                file.write(f"{manifest}\n")
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror}; fix it, then run the same command") from error
    return out


def _owner(out: Path) -> str | None:
    """Return whose report a folder is; None: it has no mark."""
    mark = out / MARK
    if out.is_symlink() or mark.is_symlink() or not mark.is_file():
        return None
    with mark.open(encoding="utf-8", errors="replace") as file:
        return file.read(_TITLE_BYTES).rstrip("\n")


def _is_free(out: Path) -> bool:
    """Say whether a folder without a mark has nothing but saved picks, or is a report from before there were marks."""
    page = out / "index.html"
    if page.is_file() and not page.is_symlink():
        with page.open("rb") as file:
            return _TITLE in file.read(_TITLE_BYTES)
    return not {path.name for path in out.iterdir()} - {PICKS}


# -- picks ------------------------------------------------------------------------------------------------------------


class PicksFile(msgspec.Struct, frozen=True):
    """The file as it is written."""

    picked: list[str] = []
    rejected: list[str] = []
    images: dict[str, str] = {}  # SHA-256 of the image that the person saw
    stars: dict[str, int] = {}
    notes: dict[str, str] = {}
    at: dict[str, int] = {}  # milliseconds since 1970 UTC


def read_picks(path: Path) -> dict[str, Mark]:
    """Read the marks of a picks file by task id, in its order. One without a time has that of the file.

    Raises InputError when the file cannot be read, is not that, or has an id in both lists.
    """

    def bad(what: str, instead: str = "save it again from the report with the button Save picks") -> InputError:
        return InputError(what, instead=instead, file=visible(str(path)))

    try:
        picks = msgspec.convert(json.loads(path.read_text(encoding="utf-8-sig")), PicksFile)
        saved_at_ms = path.stat().st_mtime_ns // 1_000_000
    except OSError as error:
        raise bad(f"cannot be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise bad(f"is not a picks file: {error}") from error
    except (ValueError, RecursionError) as error:
        raise bad("is not JSON") from error
    if both := set(picks.picked) & set(picks.rejected):
        raise bad(f"{visible(min(both))} is both picked and rejected", "remove it from one of the lists")
    return _marks(picks, saved_at_ms)


def _marks(picks: PicksFile, saved_at_ms: int) -> dict[str, Mark]:
    kinds = {**dict.fromkeys(picks.picked, "picked"), **dict.fromkeys(picks.rejected, "rejected")}
    return {
        task_id: Mark(
            kind=kinds.get(task_id, ""),
            stars=min(max(picks.stars.get(task_id, 0), 0), 5),
            note=picks.notes.get(task_id, ""),
            sha256=picks.images.get(task_id, ""),
            at_ms=picks.at.get(task_id, saved_at_ms),
        )
        for task_id in {**kinds, **picks.stars, **picks.notes, **picks.at}
    }


def merge_marks(*sources: Mapping[str, Mark]) -> dict[str, Mark]:
    """Merge marks: of two marks of one task the later one counts."""
    marks: dict[str, Mark] = {}
    for source in sources:
        for task_id, mark in source.items():
            if task_id not in marks or mark.at_ms >= marks[task_id].at_ms:
                marks[task_id] = mark
    return marks


# -- the page ---------------------------------------------------------------------------------------------------------

MOST_ROWS = 50_000  # on the page; the tables have every task. 10,000 rows are about 3 MB of page


def write_report(
    out: Path,
    heading: sheet.Heading,
    rows: Iterable[sheet.ReportRow],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the report into the folder `out` and return its page.

    `on_progress` is called with how many of how many new thumbnails are made. Raises StorageError: the folder is not
    ours (`claim_folder`). OSError: it cannot be written.
    """
    claim_folder(out, heading.title)
    shown: list[sheet.ReportRow] = []
    states: Counter[str] = Counter()

    def counted() -> Iterator[sheet.ReportRow]:
        for row in rows:
            placed = _placed(row, out)
            states[placed.state.value] += 1
            if len(shown) < MOST_ROWS:
                shown.append(placed)
            yield placed

    sheet.write_tables(out, counted())
    thumbs = make_thumbs(out / THUMBS, wanted_thumbs(shown, out), on_progress=on_progress)
    data = sheet.sheet_data(heading, states, shown, lambda row: _addresses(row, out, thumbs))
    page = out / "index.html"
    with sheet.replaced(page) as file:
        file.write(sheet.static_page(heading.title, data))
    return page


def wanted_thumbs(rows: Sequence[sheet.ReportRow], out: Path) -> dict[str, Thumb]:
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
    """Return the link to the thumbnail of the image at `path`; None: there is none."""
    found = None if path is None else thumb_of(_source(path, out), sha256)
    return f"{THUMBS}/{found[0]}" if found is not None and found[0] in thumbs else None


def before_link(path: str | None, link: str | None, small: str | None) -> str | None:
    """Return what the slider shows of an input: itself, or what browsers can draw in its place."""
    return small if path is not None and small is not None and not is_drawn(path) else link


def _addresses(row: sheet.ReportRow, out: Path, thumbs: set[str]) -> sheet.Addresses:
    small = thumb_link(row.input_image, row.input_sha256, out, thumbs)
    thumb = thumb_link(row.image, row.sha256, out, thumbs)
    link = _link(row.input_image, small)
    if row.input_image is not None and not is_object(row.input_image) and not is_raster(out / row.input_image):
        link = None
    return sheet.Addresses(
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


def _placed(row: sheet.ReportRow, out: Path) -> sheet.ReportRow:
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

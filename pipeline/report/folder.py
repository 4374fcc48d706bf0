"""The folder of a report: which one it is, whether it is ours to write in, and the picks a person saved in it.

A folder is ours when it has our mark, a file that names the manifest. What somebody else put there is never replaced:
a folder with anything in it and without the mark is refused, and so are links, which may lead anywhere.

Picks are what the static page's button saves: `{"picked": [ids], "rejected": [ids], "images": {id: sha256},
"stars": {id: n}, "notes": {id: text}, "at": {id: ms}}`; everything may be missing. `at` says when an id was marked; an
id with a time that is in no list lost its mark then.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from pipeline.errors import InputError, Problem, StorageError
from pipeline.model import Mark
from pipeline.text import visible

MARK: Final = ".imgpipe-report"
PICKS: Final = "picks.json"  # what a person saves from the page
THUMBS: Final = "thumbs"
_NAME = "report"
_UNPORTABLE = re.compile(r"[^\w.-]")
_TITLE = b"imgpipe</title>"  # of pages that were written before there was a mark
_TITLE_BYTES = 4096


def report_folder(output_dir: Path, manifest: str) -> Path:
    """Return where the report of a manifest is: `report`, or `report-NAME` where that is somebody else's.

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
    """Make the folder and put our mark in it; return it. Nothing of it changes where it is ours already.

    Raises StorageError: it is a link, somebody else's, or cannot be written.
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
        raise StorageError(f"{out}: {error.strerror}; mend it, then run the same command") from error
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


_INSTEAD = "save it again from the report with the button Save picks"


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
    name = visible(str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        saved_at_ms = path.stat().st_mtime_ns // 1_000_000
    except OSError as error:
        raise InputError(Problem(file=name, what=f"cannot be read: {error.strerror}", instead=_INSTEAD)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(file=name, what="is not JSON", instead=_INSTEAD)) from error
    if not isinstance(found, dict):
        raise InputError(Problem(file=name, what="is not a picks file", instead=_INSTEAD))
    try:
        picks = msgspec.convert(found, PicksFile)
    except msgspec.ValidationError as error:
        raise InputError(Problem(file=name, what=f"is not a picks file: {error}", instead=_INSTEAD)) from error
    both = sorted(set(picks.picked) & set(picks.rejected))
    if both:
        what = f"{visible(both[0])} is both picked and rejected"
        raise InputError(Problem(file=name, what=what, instead="remove it from one of the lists"))
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
    """Merge marks: of two of one task the later one counts; what stands in one source only stays."""
    marks: dict[str, Mark] = {}
    for source in sources:
        for task_id, mark in source.items():
            if task_id not in marks or mark.at_ms >= marks[task_id].at_ms:
                marks[task_id] = mark
    return marks

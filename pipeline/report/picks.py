"""Picks files: what the static page's button saves, merged with the marks of `judge`.

`{"picked": [ids], "rejected": [ids], "images": {id: sha256}, "stars": {id: n}, "notes": {id: text}, "at": {id: ms}}`;
everything may be missing. `at` says when an id was marked; an id with a time that is in no list lost its mark then.
Not part of `sheet`, because `export` and `redo` read these files without the page.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pipeline.errors import InputError, Problem
from pipeline.model import Mark
from pipeline.text import visible

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

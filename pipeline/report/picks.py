"""What a person picked and rejected on the contact sheet: the file that its button saves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError, Problem
from pipeline.report.foreign import visible

_INSTEAD = "save it again from the report with the button Save picks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Task ids in the order of the file. `images`: id -> SHA-256 of the image that the person saw."""

    picked: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)


def read_picks(path: Path) -> Picks:
    """Read `{"picked": [ids], "rejected": [ids], "images": {id: sha256}}`; the last may be missing, wholly or in part.

    Raises InputError when the file cannot be read, is not that, or has an id in both lists.
    """
    name = visible(str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(Problem(file=name, what=f"cannot be read: {error.strerror}", instead=_INSTEAD)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(file=name, what="is not JSON", instead=_INSTEAD)) from error
    if not isinstance(found, dict):
        raise InputError(Problem(file=name, what="is not a picks file", instead=_INSTEAD))
    picked, rejected = _ids(found, "picked", name), _ids(found, "rejected", name)
    picks = Picks(picked=picked, rejected=rejected, images=_images(found, name))
    both = sorted(set(picks.picked) & set(picks.rejected))
    if both:
        what = f"{visible(both[0])} is both picked and rejected"
        raise InputError(Problem(file=name, what=what, instead="take it out of one of the lists"))
    return picks


def _ids(found: dict[str, object], key: str, name: str) -> tuple[str, ...]:
    ids = found.get(key, [])
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise InputError(Problem(file=name, what=f'"{key}" is not a list of task ids', instead=_INSTEAD))
    return tuple(dict.fromkeys(ids))


def _images(found: dict[str, object], name: str) -> dict[str, str]:
    images = found.get("images", {})
    if not isinstance(images, dict) or not all(isinstance(sha256, str) for sha256 in images.values()):
        raise InputError(Problem(file=name, what='"images" does not map task ids to hashes', instead=_INSTEAD))
    return images

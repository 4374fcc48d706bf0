"""What a person marked of a manifest's images: the marks of `judge` and a picks file, merged.

In: a manifest, perhaps the picks file that was named. Out: marks by task id. Nothing is written: only `judge` writes,
and a picks file stays as it is.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import InputError, Problem
from pipeline.manifest import Manifest
from pipeline.model import Mark
from pipeline.report.picks import merge_marks, read_picks
from pipeline.store import read_marks


def picks_path(manifest: Manifest) -> Path:
    """Return where a picks file is looked for: beside the static page."""
    return manifest.output_dir / "report" / "picks.json"


def marks_of(manifest: Manifest, named: Path | None = None) -> dict[str, Mark]:
    """Return what is marked: what was saved in `named` (None: beside the static page) and the marks of `judge`.

    Of two marks of one task the later one counts. Raises InputError for a bad picks file, LedgerError.
    """
    path = named if named is not None else picks_path(manifest)
    saved = read_picks(path) if named is not None or path.exists() else {}
    return merge_marks(saved, read_marks(manifest.state_dir, manifest=manifest.name))


def marked(manifest: Manifest, kind: str, named: Path | None) -> Mapping[str, Mark]:
    """Return the marks of one kind. Raises InputError when there is none, with the way to make some."""
    found = {task_id: mark for task_id, mark in marks_of(manifest, named).items() if mark.kind == kind}
    if not found:
        key = "p" if kind == "picked" else "r"
        instead = f"mark some with the key {key}: imgpipe judge {manifest.path}; or in its report, then Save picks"
        raise InputError(Problem(file=str(named or manifest.path), what=f"no image is {kind}", instead=instead))
    return found

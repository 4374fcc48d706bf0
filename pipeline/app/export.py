"""Copies the images that a person picked into a folder.

A different file is never replaced. Images keep the folders and names they have below the output directory. What was
not copied is reported with its reason.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.app.context import Setup
from pipeline.app.planning import reading
from pipeline.app.redo import marked
from pipeline.buckets import Locations
from pipeline.errors import Exit, StorageError
from pipeline.model import SIDECAR, Artifact, Mark, is_object
from pipeline.store.files import Disk, link_or_rename
from pipeline.store.reader import LedgerReader


@dataclass(slots=True, kw_only=True)
class Exported:
    """What became of each pick. `left`: task id and reason."""

    copied: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)  # the same bytes were there
    left: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit(self) -> Exit:
        return Exit.SOME_FAILED if self.left else Exit.OK


def export(setup: Setup, folder: Path, picks_path: Path | None) -> Exported:
    """Copy every picked image into `folder`. Raises InputError when nothing is picked, StorageError."""
    exported, locations = Exported(), Locations()
    with reading(setup) as reader:
        for task_id, mark in marked(setup, "picked", picks_path).items():
            artifact = _picked(reader, task_id, mark)
            if isinstance(artifact, str):
                exported.left.append((task_id, artifact))
                continue
            source, target = setup.manifest.location_of(artifact), folder / artifact.path
            try:
                _place(task_id, source, target, exported, locations)
            except OSError as error:
                where = error.filename or target
                raise StorageError(f"{where}: {error.strerror}; fix it, then run the same command") from error
    return exported


def _picked(reader: LedgerReader, task_id: str, mark: Mark) -> Artifact | str:
    """Return the picked image, or why there is none."""
    known = reader.known(task_id)
    if known is None:
        return "no such task was ever run here"
    if known.artifact is None:
        return f"it has no image ({known.state})"
    if not mark.is_of(known.artifact):
        return "its image was made anew since it was picked; look at it again"
    return known.artifact


def _place(task_id: str, source: str, target: Path, exported: Exported, locations: Locations) -> None:
    """Copy an image, and the file beside it where there is one and its place is free."""
    data = _read(locations, source)
    if data is None:
        exported.left.append((task_id, f"{source} is missing"))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(target) and _copy(source, data, target):
        exported.copied.append(target)
    elif target.is_file() and target.read_bytes() == data:
        exported.present.append(target)
    else:
        exported.left.append((task_id, f"{target} is another file; move it away or export to another folder"))
        return
    beside, copied = source + SIDECAR, target.with_name(target.name + SIDECAR)
    if not os.path.lexists(copied) and (sidecar := _read(locations, beside)) is not None:
        _copy(beside, sidecar, copied)


def _read(locations: Locations, source: str) -> bytes | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return locations.read(source)
    return None


def _copy(source: str, data: bytes, target: Path) -> bool:
    """Write under another name first, so that no half image ever has the right one; False: the name was taken."""
    part, disk = target.with_name(f".{target.name}.{os.getpid()}.part"), Disk()
    folder = disk.open_dir(target.parent)
    try:
        part.write_bytes(data)
        if not is_object(source):
            shutil.copystat(source, part)
        link_or_rename(disk, part.name, target.name, dir_fd=folder, new_dir_fd=folder)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
        disk.close(folder)
    return True

"""Copies the images that a person picked into a folder.

A different file is never replaced. Images keep the folders and names they have below the output directory. What was
not copied is reported with its reason.
"""

import filecmp
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.app.context import Setup
from pipeline.app.planning import reading
from pipeline.app.redo import marked
from pipeline.errors import Exit, StorageError
from pipeline.model import SIDECAR, Mark
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
    exported = Exported()
    with reading(setup) as reader:
        for task_id, mark in marked(setup, "picked", picks_path).items():
            source = _source(setup, reader, task_id, mark)
            if isinstance(source, str):
                exported.left.append((task_id, source))
                continue
            target = folder / source.relative_to(setup.manifest.output_folder)
            try:
                _place(task_id, source, target, exported)
                if target in (*exported.copied, *exported.present):
                    _take_along(source, target)
            except OSError as error:
                where = error.filename or target
                raise StorageError(f"{where}: {error.strerror}; fix it, then run the same command") from error
    return exported


def _source(setup: Setup, reader: LedgerReader, task_id: str, mark: Mark) -> Path | str:
    """Return the picked image, or why there is none."""
    known = reader.known(task_id)
    if known is None:
        return "no such task was ever run here"
    if known.artifact is None:
        return f"it has no image ({known.state})"
    if not mark.is_of(known.artifact):
        return "its image was made anew since it was picked; look at it again"
    path = setup.manifest.output_folder / known.artifact.path
    return path if path.is_file() else f"{path} is missing"


def _place(task_id: str, source: Path, target: Path, exported: Exported) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(target) and _copy(source, target):
        exported.copied.append(target)
    elif target.is_file() and filecmp.cmp(source, target, shallow=False):
        exported.present.append(target)
    else:
        exported.left.append((task_id, f"{target} is another file; move it away or export to another folder"))


def _take_along(image: Path, copied: Path) -> None:
    """Copy the file beside an image, where there is one and its place is free."""
    source, target = (path.with_name(path.name + SIDECAR) for path in (image, copied))
    if source.is_file() and not os.path.lexists(target):
        _copy(source, target)


def _copy(source: Path, target: Path) -> bool:
    """Copy under another name first, so that no half image ever has the right one; False: the name was taken."""
    part, disk = target.with_name(f".{target.name}.{os.getpid()}.part"), Disk()
    folder = disk.open_dir(target.parent)
    try:
        shutil.copyfile(source, part)
        shutil.copystat(source, part)
        link_or_rename(disk, part.name, target.name, dir_fd=folder, new_dir_fd=folder)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
        disk.close(folder)
    return True

"""Images that make way: moved to `superseded/` in the state directory, never deleted (P6), across file systems too."""

import errno
import itertools
import os
import re
import stat
from pathlib import Path
from typing import Final

from pipeline.model import Artifact
from pipeline.store.disk import NO_LINKS, read_all, sha256_of, status_of
from pipeline.store.rejected import write_new
from pipeline.store.tree import Tree, split

FOLDER: Final = "superseded"
_NAME: Final = re.compile(r"(\d+)(?:\.\d+)?-.+")  # see `_names`


def superseded_files(state_dir: Path) -> dict[int, Path]:
    """Return the superseded images of a state directory by the attempt that made them; plain files only."""
    try:
        with os.scandir(state_dir / FOLDER) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = ((match, name) for name in names if (match := _NAME.fullmatch(name)) is not None)
    return {int(match[1]): state_dir / FOLDER / name for match, name in found}


def is_plain_file(outputs: Tree, path: str) -> bool:
    """Say whether a regular file stands there: no link, no directory, no fifo."""
    folder, name = split(path)
    try:
        with outputs.directory(folder) as fd:
            return stat.S_ISREG(outputs.disk.stat(name, dir_fd=fd).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def has_hash(outputs: Tree, artifact: Artifact) -> bool:
    """Say whether a plain file is byte for byte what was recorded. Raises OSError where it cannot be read."""
    folder, name = split(artifact.path)
    with outputs.directory(folder) as fd:
        return sha256_of(outputs.disk, name, dir_fd=fd) == artifact.sha256


def supersede(outputs: Tree, state: Tree, path: str, *, maker: int | None, name: str | None = None) -> str:
    """Move an image out of the way; return `superseded/<attempt>-<name>` (None: the name it has).

    Durable there before it leaves here, so that no power loss takes both. Raises OSError.
    """
    folder, old_name = split(path)
    with outputs.directory(folder) as source, state.directory(FOLDER, create=True) as target:
        for new_name in _names(name or old_name, maker):
            try:
                _keep(outputs, old_name, new_name, source=source, target=target)
            except FileExistsError:
                if not _is_same(outputs, old_name, new_name, source=source, target=target):
                    continue
            break
        state.sync(target)
        outputs.disk.unlink(old_name, dir_fd=source)
    return f"{FOLDER}/{new_name}"


def _names(name: str, maker: int | None) -> "itertools.chain[str]":
    stem = f"{maker or 0}-{name}"
    return itertools.chain([stem], (f"{maker or 0}.{count}-{name}" for count in itertools.count(2)))


def _keep(outputs: Tree, name: str, new_name: str, *, source: int, target: int) -> None:
    disk = outputs.disk
    try:
        disk.link(name, new_name, dir_fd=source, new_dir_fd=target)
    except OSError as error:
        if error.errno not in NO_LINKS | {errno.EXDEV}:
            raise
        write_new(disk, new_name, read_all(disk, name, dir_fd=source), dir_fd=target, mode=0o666)


def _is_same(outputs: Tree, name: str, new_name: str, *, source: int, target: int) -> bool:
    """Say whether an earlier move of this very file was cut short after it arrived."""
    old, new = (
        status_of(outputs.disk, name, dir_fd=source),
        status_of(outputs.disk, new_name, dir_fd=target),
    )
    if old is None or new is None or old.st_size != new.st_size:
        return False
    is_linked = (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino)
    return is_linked or sha256_of(outputs.disk, name, dir_fd=source) == sha256_of(outputs.disk, new_name, dir_fd=target)

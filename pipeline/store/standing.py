"""What became of recorded files: looked at by size and time first, hashed only where those differ. Read-only."""

import contextlib
import errno
import itertools
import stat
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final, TypeVar

from pipeline.model import Artifact
from pipeline.store.disk import Disk, sha256_of, status_of
from pipeline.store.tree import Tree, split

GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Standing(StrEnum):
    """A file against its record."""

    SAME = "same"
    TOUCHED = "touched"  # another time, the same bytes
    MISSING = "missing"
    CHANGED = "changed"


def standing(disk: Disk, name: str, artifact: Artifact, *, dir_fd: int) -> Standing:
    """Compare one file of an open directory with its record. Raises OSError where it is there and cannot be read."""
    status = status_of(disk, name, dir_fd=dir_fd)
    if status is None:
        return Standing.MISSING
    if not stat.S_ISREG(status.st_mode) or status.st_size != artifact.size_bytes:
        return Standing.CHANGED
    if status.st_mtime_ns == artifact.mtime_ns:
        return Standing.SAME
    return Standing.TOUCHED if sha256_of(disk, name, dir_fd=dir_fd) == artifact.sha256 else Standing.CHANGED


T = TypeVar("T")


def standings(outputs: Tree, made: Iterable[tuple[T, Artifact]]) -> Iterator[tuple[T, Artifact, Standing]]:
    """Compare many; neighbours in one folder share one open directory. A file that cannot be read counts as changed."""
    for folder, group in itertools.groupby(made, key=lambda pair: split(pair[1].path)[0]):
        with contextlib.ExitStack() as stack:
            fd = _open_folder(outputs, folder, stack)
            for key, artifact in group:
                yield key, artifact, fd if isinstance(fd, Standing) else _guarded(outputs, artifact, fd)


def _open_folder(outputs: Tree, folder: str, stack: contextlib.ExitStack) -> int | Standing:
    """Open a folder, or say what that makes of its files."""
    try:
        return stack.enter_context(outputs.directory(folder))
    except PermissionError:
        return Standing.CHANGED
    except OSError as error:
        if error.errno in GONE:
            return Standing.MISSING
        raise


def _guarded(outputs: Tree, artifact: Artifact, dir_fd: int) -> Standing:
    try:
        return standing(outputs.disk, split(artifact.path)[1], artifact, dir_fd=dir_fd)
    except PermissionError:
        return Standing.CHANGED

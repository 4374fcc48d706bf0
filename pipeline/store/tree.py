"""A directory below which everything stays: relative POSIX names -> open directories.

No component may be a symbolic link, none may be `..`. Directories are made on request and their entries are synced,
so that a file that is durable in a directory is durable altogether. It knows nothing of what is put into them.
"""

import contextlib
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.store.disk import Disk

CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
IN_THE_WAY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})  # a file or a symbolic link where a directory belongs

Warn = Callable[[str], None]


class Tree:
    """One root, held open: it may be renamed while a run goes on, and is never made again when it is removed."""

    def __init__(self, root: Path, disk: Disk, *, warn: Warn, dir_mode: int = 0o777) -> None:
        self.root = root
        self.disk = disk
        self._warn = warn
        self._dir_mode = dir_mode
        self._fd = disk.open_dir(root)
        self._durable: set[str] = set()  # directories whose entry was synced by this process
        self._is_sync_noted = False

    def __repr__(self) -> str:
        return f"<Tree {self.root}, {len(self._durable)} directories known durable>"

    @property
    def fd(self) -> int:
        return self._fd

    @contextmanager
    def directory(self, relative: str, *, create: bool = False) -> Iterator[int]:
        """Open the directory `relative` ("" is the root itself) for the time of the block.

        Raises OSError: ENOTDIR or ELOOP where a component is a symbolic link or a file.
        """
        fd = self._fd
        try:
            path = ""
            for part in components(relative):
                path = f"{path}/{part}"
                child, is_new = self._enter(fd, part, create=create)
                try:
                    if create and (is_new or path not in self._durable):
                        self.sync(fd)
                        self._durable.add(path)
                finally:
                    fd, parent = child, fd
                    self._leave(parent)
            yield fd
        finally:
            self._leave(fd)

    def _leave(self, fd: int) -> None:
        if fd != self._fd:
            self.disk.close(fd)

    def _enter(self, fd: int, part: str, *, create: bool) -> tuple[int, bool]:
        try:
            return self.disk.open_dir(part, dir_fd=fd), False
        except FileNotFoundError:
            if not create:
                raise
        with contextlib.suppress(FileExistsError):  # another thread was faster
            self.disk.mkdir(part, dir_fd=fd, mode=self._dir_mode)
        return self.disk.open_dir(part, dir_fd=fd), True

    def sync(self, fd: int) -> None:
        """Make a directory's entries durable. A file system that cannot is noted once (borg does the same)."""
        try:
            self.disk.fsync_dir(fd)
        except OSError as error:
            if error.errno not in CANNOT_SYNC:
                raise
            if not self._is_sync_noted:
                self._is_sync_noted = True
                self._warn(f"{self.root}: this file system cannot sync directories; a power loss may undo new names")

    def free_bytes(self) -> int:
        """Return what this user may still write here."""
        status = self.disk.statvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        self.disk.close(self._fd)


def components(relative: str) -> tuple[str, ...]:
    """Split a relative POSIX path; ValueError for one that could lead outside (P15) or is not Unicode."""
    parts = tuple(relative.encode().decode().split("/")) if relative else ()
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"not a plain relative path: {relative!r}")
    return parts


def split(path: str) -> tuple[str, str]:
    """Return folder and file name of a relative POSIX path."""
    folder, _, name = path.rpartition("/")
    return folder, name

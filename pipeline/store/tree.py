"""Folder trees that names cannot leave, what is free in them, and the disk reserve.

`Tree` opens relative POSIX names: no component may be a symbolic link, none may be `..`. Directories are made on
request and their entries are synced, so that a file that is durable in a directory is durable altogether.
"""

import contextlib
import errno
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.errors import StorageError
from pipeline.store.files import Disk, closing

CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
FILE_BYTES: Final = 2 << 20  # an image needs two files at most (itself and facts in rejected/) and is 4 MB or larger
FEW_FILES: Final = 1000

Warn = Callable[[str], None]


class Tree:
    """One root, held open: it may be renamed while a run goes on, and is never made again when it is removed."""

    def __init__(self, root: Path, disk: Disk, *, warn: Warn, dir_mode: int = 0o777) -> None:
        self.root = root
        self.disk = disk
        self._warn = warn
        self._dir_mode = dir_mode
        self.fd = disk.open_dir(root)
        self._durable: set[str] = set()  # directories whose entry was synced by this process
        self._is_sync_noted = self._is_few_noted = False

    def __repr__(self) -> str:
        return f"<Tree {self.root}, {len(self._durable)} directories known durable>"

    @contextmanager
    def directory(self, relative: str, *, create: bool = False) -> Iterator[int]:
        """Open the directory `relative` ("" is the root itself) for the time of the block.

        Raises OSError: ENOTDIR or ELOOP where a component is a symbolic link or a file.
        """
        fd = self.fd
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

    @contextmanager
    def at(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Open the directory of a file; yield it with the file's name."""
        folder, name = split(path)
        with self.directory(folder, create=create) as fd:
            yield fd, name

    def _leave(self, fd: int) -> None:
        if fd != self.fd:
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
        """Return what this user may still write here, with FILE_BYTES for each file (inode) where those are scarcer."""
        status = self.disk.statvfs(self.fd)
        free = status.f_bavail * status.f_frsize
        if not status.f_files:  # they are not counted (btrfs, FAT, SMB)
            return free
        files = status.f_favail
        if files * FILE_BYTES >= free or (files == 0 and self._takes_a_file()):
            return free
        if files < FEW_FILES and not self._is_few_noted:
            self._is_few_noted = True
            self._warn(f"{self.root}: only {files} more files (inodes) fit, see df -i; remove some")
        return files * FILE_BYTES

    def _takes_a_file(self) -> bool:
        """Whether one can be made although none is free: on CephFS none ever is (ceph/ceph#23323)."""
        name = f".{secrets.token_hex(8)}.part"
        try:
            self.disk.close(self.disk.create(name, dir_fd=self.fd))
            self.disk.unlink(name, dir_fd=self.fd)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.disk.close(self.fd)


def join(folder: str, name: str) -> str:
    """Return the relative path of a file; the folder may be the root, ""."""
    return f"{folder}/{name}" if folder else name


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


RESERVE: Final = "ballast"  # the file's name since version 0.1.0
RESERVE_BYTES: Final = 32 << 20  # about a dozen images of 2.7 MB
SPARE_DESCRIPTORS: Final = 8  # saving one image takes up to six
SHARE: Final = 8  # at most one eighth of what is free
LEAST_RESERVE_BYTES: Final = 64 << 10


class DiskReserve:
    """A file in the state directory and open descriptors, given up so that images in flight can still be saved.

    The file's blocks are released on a full disk, the descriptors when there are too many. Thread-safe.
    """

    def __init__(self, state: Tree, *, size_bytes: int = RESERVE_BYTES) -> None:
        self._state = state
        self._size_bytes = size_bytes
        self._mutex = threading.Lock()
        self._is_held = False
        self._spare: list[int] = []
        self.spent_bytes = 0  # given up: for the images in flight, not for new ones

    def __repr__(self) -> str:
        return f"<DiskReserve {'held' if self._is_held else 'given up'}>"

    def load(self, warn: Warn) -> None:
        """Take the blocks; where that is not possible, say so and go on. Raises StorageError: files have a limit."""
        disk = self._state.disk
        with self._mutex:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(RESERVE, dir_fd=self._state.fd)
            with contextlib.suppress(OSError):
                while len(self._spare) < SPARE_DESCRIPTORS:
                    self._spare.append(disk.open_dir(".", dir_fd=self._state.fd))
        if self._size_bytes == 0:
            return
        size_bytes = min(self._size_bytes, self._state.free_bytes() // SHARE)
        if size_bytes < LEAST_RESERVE_BYTES:
            warn(f"{self._state.root} is nearly full: no room for the disk reserve")
            return
        try:
            with closing(disk, disk.create(RESERVE, dir_fd=self._state.fd, mode=0o600)) as fd:
                disk.allocate(fd, size_bytes)
        except OSError as error:
            self._remove()
            if error.errno == errno.EFBIG:  # an image that was paid for could not be written anywhere
                what = f"this process may not write files of {size_bytes >> 20} MiB"
                raise StorageError(f"{what}; raise its limit (ulimit -f). Nothing was sent") from error
            warn(f"no disk reserve in {self._state.root} ({error.strerror}); free space is watched without it")
        else:
            self._is_held, self._size_bytes = True, size_bytes

    def share(self) -> None:
        """Give up, when it comes to that, the blocks that another process holds in this directory."""
        self._is_held, self._size_bytes = True, 0

    def give_up(self) -> bool:
        """Free blocks and descriptors; True when there were blocks."""
        with self._mutex:
            while self._spare:
                self._state.disk.close(self._spare.pop())
            was_held, self._is_held = self._is_held, False
            if was_held:
                self._remove()
                self.spent_bytes = self._size_bytes
            return was_held

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._state.disk.unlink(RESERVE, dir_fd=self._state.fd)

"""Every file operation of the store, through a `Disk`; folder trees that names cannot leave; the disk reserve.

Names are relative to an open directory; the operating system's errors (`OSError`) pass unchanged. Tests replace the
`Disk` to record, reorder and fail each call.

`Tree` opens relative POSIX names: no component may be a symbolic link, none may be `..`. Directories are made on
request and their entries are synced, so that a file that is durable in a directory is durable altogether.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

from pipeline.model import PART, Artifact

RENAME_NOREPLACE: Final = 1  # linux/fs.h
CHUNK: Final = 1 << 20
NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EIO}
)  # what file systems without (more) hard links answer: exFAT, some SMB and FUSE; EIO: rclone mount
NO_EXCLUSIVE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


class Disk:
    """The operating system's file calls. `dir_fd` is an open directory; names are single components."""

    write = staticmethod(os.write)  # some of the bytes; the count may be short
    read = staticmethod(os.read)
    fsync = staticmethod(os.fsync)
    fsync_dir = staticmethod(os.fsync)
    close = staticmethod(os.close)
    statvfs = staticmethod(os.statvfs)

    def open_dir(self, name: str | Path, *, dir_fd: int | None = None) -> int:
        """Open a directory; below another one a symbolic link is refused (ENOTDIR or ELOOP)."""
        no_follow = os.O_NOFOLLOW if dir_fd is not None else 0
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | no_follow, dir_fd=dir_fd)

    def mkdir(self, name: str, *, dir_fd: int, mode: int = 0o777) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)

    def create(self, name: str, *, dir_fd: int, mode: int = 0o666) -> int:
        """Open a new file for writing; anything that is there already, a link too, is EEXIST."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, mode, dir_fd=dir_fd)

    def open(self, name: str, *, dir_fd: int) -> int:
        """Open a file for reading. O_NONBLOCK: a fifo in its place must not hang a start."""
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)

    def link(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        """Give a file a second name; EEXIST where that name is taken."""
        os.link(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd, follow_symlinks=False)

    def rename(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        os.rename(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd)

    def rename_exclusive(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        """Rename without replacing; EEXIST where the new name is taken, EINVAL or ENOSYS where this cannot be done."""
        renameat2 = _renameat2()
        if renameat2 is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), new_name)
        if renameat2(dir_fd, os.fsencode(name), new_dir_fd, os.fsencode(new_name), RENAME_NOREPLACE) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), new_name)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def stat(self, name: str, *, dir_fd: int) -> os.stat_result:
        """Look at a name itself, not at what a link points to."""
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def touch(self, name: str, *, dir_fd: int) -> None:
        """Set the time of a file to now."""
        os.utime(name, dir_fd=dir_fd, follow_symlinks=False)

    def allocate(self, fd: int, size_bytes: int) -> None:
        """Give an open file real blocks."""
        os.posix_fallocate(fd, 0, size_bytes)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """Find renameat2(2) in the C library (glibc 2.28, musl 1.2.4; Linux 3.15). Elsewhere None."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    return functools.partial(function)


def rename_without_clobbering(disk: Disk, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
    """Rename; EEXIST where the new name is taken. Without renameat2: look, then rename, which the lock makes safe."""
    try:
        disk.rename_exclusive(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)
    except OSError as error:
        if error.errno not in NO_EXCLUSIVE:
            raise
        if status_of(disk, new_name, dir_fd=new_dir_fd) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name) from None
        disk.rename(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)


def link_or_rename(
    disk: Disk,
    name: str,
    new_name: str,
    *,
    dir_fd: int,
    new_dir_fd: int,
    before_rename: Callable[[], None] = lambda: None,
) -> bool:
    """Give a file a second name, or rename it where the file system has no links; True: it was renamed.

    Raises FileExistsError where the new name is taken.
    """
    try:
        disk.link(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        before_rename()
        rename_without_clobbering(disk, name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)
        return True
    return False


@contextmanager
def closing(disk: Disk, fd: int) -> Iterator[int]:
    """Close an open file at the end of the block."""
    try:
        yield fd
    finally:
        disk.close(fd)


def status_of(disk: Disk, name: str, *, dir_fd: int) -> os.stat_result | None:
    """Return what stands under `name`, None for nothing."""
    try:
        return disk.stat(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return None


def write_all(disk: Disk, fd: int, data: bytes | memoryview) -> None:
    """Write every byte; a short write is followed by the rest."""
    rest = memoryview(data)
    while rest:
        written = disk.write(fd, rest)
        if written == 0:
            raise OSError(errno.EIO, "the file system took no bytes and named no error")
        rest = rest[written:]


def read_all(disk: Disk, name: str, *, dir_fd: int) -> bytes:
    """Read a whole file."""
    with closing(disk, disk.open(name, dir_fd=dir_fd)) as fd:
        return b"".join(iter(functools.partial(disk.read, fd, CHUNK), b""))


def write_new(disk: Disk, name: str, data: bytes, *, dir_fd: int, mode: int) -> None:
    """Create a file and make its bytes durable; on an error nothing is left where that can be helped."""
    fd = disk.create(name, dir_fd=dir_fd, mode=mode)
    try:
        with closing(disk, fd):
            write_all(disk, fd, data)
            disk.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            disk.unlink(name, dir_fd=dir_fd)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new name beside `path` to write to: it replaces `path` when the block ends well, else it is removed."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")  # short: the name of `path` may have the longest length
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def make_durable(disk: Disk, name: str, *, dir_fd: int) -> None:
    """Sync a file whose bytes are right in memory; they may not be on the disk yet."""
    with closing(disk, disk.open(name, dir_fd=dir_fd)) as fd:
        disk.fsync(fd)


def is_same_file(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    """Say whether two names are of one file; a name that is not there (None) is of none."""
    return one is not None and other is not None and os.path.samestat(one, other)


def sha256_of(disk: Disk, name: str, *, dir_fd: int) -> str:
    """Return the hex digest of a file's bytes; memory stays at one chunk."""
    digest = hashlib.sha256()
    with closing(disk, disk.open(name, dir_fd=dir_fd)) as fd:
        while chunk := disk.read(fd, CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# The ledger that wrote a part (the older form lacks it), its attempt, the hash of what must be in it.
PART_NAME: Final = re.compile(re.escape(PART) + r"(?:([0-9a-f]{8})-)?(\d{1,18})-([0-9a-f]{64})")
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class FileComparison(StrEnum):
    """A file against its record in the ledger."""

    SAME = "same"
    TOUCHED = "touched"  # another time, the same bytes
    MISSING = "missing"
    CHANGED = "changed"  # other bytes, or a file that cannot be read


def compare(status: os.stat_result | None, artifact: Artifact, sha256: Callable[[], str]) -> FileComparison:
    """Compare a file (None: there is none) with its record: size and time first, and its hash only where they differ.

    The one rule of plans, starts and recovery: what one of them takes for whole, no other may replace.
    """
    if status is None:
        return FileComparison.MISSING
    if not stat.S_ISREG(status.st_mode) or status.st_size != artifact.size_bytes:
        return FileComparison.CHANGED
    if status.st_mtime_ns == artifact.mtime_ns:
        return FileComparison.SAME
    return FileComparison.TOUCHED if sha256() == artifact.sha256 else FileComparison.CHANGED


def comparison_of(error: OSError) -> FileComparison:
    """Return what an error makes of a file: missing where nothing is there, changed where it may not be read.

    Raises any other error again: it tells nothing of the file.
    """
    if error.errno in GONE:
        return FileComparison.MISSING
    if isinstance(error, PermissionError):
        return FileComparison.CHANGED
    raise error


CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
FILE_BYTES: Final = 2 << 20  # an image needs two files at most (itself and facts in rejected/) and is 4 MB or larger
FEW_FILES: Final = 1000
IN_THE_WAY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})  # a file or a symbolic link where a directory belongs

Warn = Callable[[str], None]


def closed_folder(root: Path, folder: str) -> str | None:
    """Return the directory below `root` that keeps new files out of `folder`, made or not; None: it takes them."""
    there = root / folder
    while there != root and not os.path.lexists(there):
        there = there.parent
    if not os.path.lexists(there) or os.access(there, os.W_OK | os.X_OK):
        return None
    return there.relative_to(root).as_posix()


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
        """Take the blocks; where that is not possible, say so and go on."""
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

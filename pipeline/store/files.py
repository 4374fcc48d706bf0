"""Every file operation of the store, through a `Disk`, and what a file is against its record.

Names are relative to an open directory; the operating system's errors (`OSError`) pass unchanged. Tests replace the
`Disk` to record, reorder and fail each call.
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
IN_THE_WAY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})  # a file or a symbolic link where a directory belongs


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


def closed_folder(root: Path, folder: str) -> str | None:
    """Return the directory below `root` that keeps new files out of `folder`, made or not; None: it takes them."""
    there = root / folder
    while there != root and not os.path.lexists(there):
        there = there.parent
    if not os.path.lexists(there) or os.access(there, os.W_OK | os.X_OK):
        return None
    return there.relative_to(root).as_posix()

"""The one seam to the file system: every file operation of the store goes through a `Disk`.

In: names relative to an open directory. Out: what the operating system said, errors untouched (`OSError`). It knows no
images and decides nothing, so tests can record, reorder and fail each call.
"""

import ctypes
import errno
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

RENAME_NOREPLACE: Final = 1  # linux/fs.h
CHUNK: Final = 1 << 20
NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)  # what file systems without (more) hard links answer: exFAT, some SMB and FUSE
NO_EXCLUSIVE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


class Disk:
    """The operating system's file calls. `dir_fd` is an open directory; names are single components."""

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

    def write(self, fd: int, data: memoryview) -> int:
        """Write some of `data`; the count may be short."""
        return os.write(fd, data)

    def read(self, fd: int, size_bytes: int) -> bytes:
        return os.read(fd, size_bytes)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fsync_dir(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

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

    def stat_open(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def statvfs(self, fd: int) -> os.statvfs_result:
        return os.statvfs(fd)

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
    fd = disk.open(name, dir_fd=dir_fd)
    try:
        return b"".join(iter(functools.partial(disk.read, fd, CHUNK), b""))
    finally:
        disk.close(fd)


def sha256_of(disk: Disk, name: str, *, dir_fd: int) -> str:
    """Return the hex digest of a file's bytes; memory stays at one chunk."""
    digest = hashlib.sha256()
    fd = disk.open(name, dir_fd=dir_fd)
    try:
        while chunk := disk.read(fd, CHUNK):
            digest.update(chunk)
    finally:
        disk.close(fd)
    return digest.hexdigest()

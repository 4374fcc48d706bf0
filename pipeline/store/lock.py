"""One spender per state directory: a lock that is released when its process dies (P7).

Two flocks: on the file `lock`, and on the directory itself, so that removing the file does not release it. Imports
little: of many runs that start at once all but one end here. Network file systems, where locks and write-ahead logs are
not safe, are detected by the mount table (Linux only).
"""

import errno
import fcntl
import os
import re
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from pipeline.errors import ImgpipeError, InputError, StorageError, TryLater

NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "fuse.ceph"}
    | {"fuse.gcsfuse", "fuse.s3fs", "fuse.rclone"}  # buckets: another machine sees no lock, and a ledger half
)
MOUNTINFO: Final = Path("/proc/self/mountinfo")


def read_mountinfo() -> str:
    """Return the kernel's table, empty where there is none."""
    try:
        return MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def file_system_of(path: Path, mountinfo: str) -> str:
    """Return the type of the innermost mount that holds `path`, "" when the table does not say (proc(5), mountinfo)."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(_unescaped(fields[4]))
        depth = len(point.parts)
        if depth >= best and path.is_relative_to(point):
            best, kind = depth, after.split()[0]
    return kind


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def refuse_network(state_dir: Path, *, mountinfo: Callable[[], str] = read_mountinfo) -> None:
    """Raise InputError where a ledger would not be safe."""
    kind = file_system_of(Path(os.path.realpath(state_dir)), mountinfo())
    if kind in NETWORK:
        raise unsuited(state_dir, f"a network file system ({kind}), where a ledger can be damaged")


def unsuited(state_dir: Path, where: str) -> InputError:
    """Return the error for a file system that cannot hold a ledger."""
    return InputError(
        f"state_dir {state_dir} lies on {where}; name a local `state_dir` (images may stay where they are)"
    )


LOCKS: Final = Path("/proc/locks")


def is_held(state_dir: Path, *, locks: Path = LOCKS) -> bool | None:
    """Say whether some process has the lock, without touching it; None: it cannot be seen on this system.

    To try it would keep a run from beginning in that moment. Lines of the table: proc(5), `1: FLOCK ADVISORY WRITE 708
    08:02:1310765 0 EOF`.
    """
    try:
        inode = (state_dir / NAME).stat().st_ino
        table = locks.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None if state_dir.exists() and not locks.exists() else False
    except OSError:
        return None
    held = (line.split() for line in table.splitlines() if " FLOCK " in line)
    return any(fields[5].rpartition(":")[2] == str(inode) for fields in held if len(fields) > 5)


NAME: Final = "lock"
POLL_S: Final = 0.1
TRIES: Final = 3  # while the directory vanishes under us: another run ends, and removes what it made for nothing
AS_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
AS_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
CLOSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})  # another user's: one run under sudo is enough
NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
NOT_THERE: Final = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


class _Held(Exception):  # noqa: N818 - not an error: somebody else has it
    pass


class StateLock:
    """The lock of one state directory, as a context manager. Not inherited: a forked child lets go of its copy."""

    def __init__(self, state_dir: Path, *, wait_s: float = 0.0, mountinfo: Callable[[], str] = read_mountinfo) -> None:
        """`wait_s`: how long to wait for another run to end."""
        self.state_dir = state_dir
        self._wait_s = wait_s
        self._mountinfo = mountinfo
        self._fds: list[int] = []  # of the file and of the directory
        self._made: list[Path] = []  # directories that were not there before

    def __repr__(self) -> str:
        return f"<StateLock {self.state_dir}, {'held' if self.is_held else 'free'}>"

    @property
    def is_held(self) -> bool:
        return bool(self._fds)

    def acquire(self) -> None:
        """Take the lock; the state directory is made where it is missing.

        Raises TryLater: another run has it. InputError: network file system, or a place where no
        directory can be made. StorageError.
        """
        refuse_network(self.state_dir, mountinfo=self._mountinfo)
        deadline = time.monotonic() + self._wait_s
        try:
            tries = 1
            while not self._take(deadline):
                if tries >= TRIES and time.monotonic() >= deadline:
                    raise _Held if self.state_dir.exists() else unusable(self.state_dir, NOT_THERE)
                tries += 1
        except _Held:
            raise TryLater(
                f"another run is using {self.state_dir}; wait for it, or use --wait-lock SECONDS. Nothing was sent"
            ) from None
        except OSError as error:
            if error.errno in CLOSED:
                raise unusable(self.state_dir / NAME, error) from error
            if error.errno in NO_LOCKS:
                raise unsuited(self.state_dir, "a file system without locks") from error
            raise StorageError(f"{self.state_dir / NAME} cannot be locked: {error.strerror}") from error

    def _take(self, deadline: float) -> bool:
        """Lock file and directory; False: they were removed or exchanged while we waited for them."""
        held: list[int] = []
        try:
            self._made += make_private(self.state_dir)
            for path, flags in ((self.state_dir / NAME, AS_FILE), (self.state_dir, AS_DIRECTORY)):
                held.append(os.open(path, flags, 0o600))
                _flock(held[-1], deadline)
            if self._are_at_their_place(held):
                self._fds, held = held, []
                _holders.add(self)
        except FileNotFoundError:
            return False
        finally:
            _close(held)
        return self.is_held

    @property
    def is_standing(self) -> bool:
        """True while what is locked is what everybody else finds: directory and file were not removed or exchanged."""
        return self.is_held and self._are_at_their_place(self._fds)

    def _are_at_their_place(self, fds: list[int]) -> bool:
        return all(map(_is_at, fds, (self.state_dir / NAME, self.state_dir)))

    def release(self) -> None:
        """Let go; safe to call twice. Directories that it made and nobody has put anything into go too."""
        with suppress(OSError):  # it is gone already, somebody else's file came in between, or the disk is dead
            if self._made and self.is_standing:
                _remove_empty(self.state_dir, self._made)
        self._made.clear()
        _close(self._fds)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()


_holders: "weakref.WeakSet[StateLock]" = weakref.WeakSet()


def _close_copies() -> None:
    """Close the descriptors in a forked child: it would keep the lock alive after its owner's death."""
    for lock in list(_holders):
        _close(lock._fds)


os.register_at_fork(after_in_child=_close_copies)


def _close(fds: list[int]) -> None:
    while fds:
        with suppress(OSError):  # of a dead disk; the descriptor is closed all the same (close(2))
            os.close(fds.pop())


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _flock(fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise _Held from None
            time.sleep(POLL_S)
        else:
            return


def _remove_empty(state_dir: Path, made: list[Path]) -> None:
    """Remove a state directory that holds nothing but the lock, and what else was `made` for it (outermost first)."""
    if [entry.name for entry in state_dir.iterdir()] == [NAME]:
        (state_dir / NAME).unlink()
        for directory in reversed(made):
            directory.rmdir()


def make_private(state_dir: Path) -> list[Path]:
    """Make the state directory, readable by its owner only, its parents like any directory; return what was missing.

    Raises FileNotFoundError: a parent was removed meanwhile. InputError, StorageError.
    """
    try:
        missing = list(_missing(state_dir))
        state_dir.parent.mkdir(parents=True, exist_ok=True)
        state_dir.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unusable(state_dir, error) from error
    return missing[::-1]


def unusable(directory: Path, error: OSError) -> ImgpipeError:
    """Return the error for a directory that cannot be used at start."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return StorageError(f"{directory}: {error.strerror}; nothing was sent")
    return InputError(
        f"{directory} cannot be written: {error.strerror}{_owner(directory)}; name another directory or change its"
        " permissions"
    )


def _owner(path: Path) -> str:
    """Return whose it is, or whose the folder that keeps it from being looked at, where that is another user."""
    for place in (path, *path.parents):
        try:
            uid = place.stat().st_uid
        except PermissionError:
            continue
        except OSError:
            break
        return "" if uid == os.geteuid() else f" ({place} belongs to user {uid}, this is user {os.geteuid()})"
    return ""


def _missing(directory: Path) -> Iterator[Path]:
    while not directory.exists():
        yield directory
        directory = directory.parent

"""One spender per state directory: a lock that dies with its process (P7).

Two flocks: on the file `lock`, and on the directory itself, so that removing the file lets nobody in (R24). It knows
neither ledger nor run.
"""

import fcntl
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import filelock

from pipeline.errors import StorageError, TryLater
from pipeline.store.faults import unusable
from pipeline.store.mounts import read_mountinfo, refuse_network

NAME: Final = "lock"
POLL_S: Final = 0.1


class StateLock:
    """The lock of one state directory, as a context manager. Not inherited: a forked child lets go of its copy."""

    def __init__(self, state_dir: Path, *, wait_s: float = 0.0, mountinfo: Callable[[], str] = read_mountinfo) -> None:
        """`wait_s`: how long to wait for another run to end."""
        self.state_dir = state_dir
        self._wait_s = wait_s
        self._mountinfo = mountinfo
        self._file: filelock.BaseFileLock | None = None
        self._fd = -1

    def __repr__(self) -> str:
        return f"<StateLock {self.state_dir}, {'held' if self.is_held else 'free'}>"

    @property
    def is_held(self) -> bool:
        return self._fd >= 0

    def acquire(self) -> None:
        """Take the lock; the state directory is made where it is missing.

        Raises TryLater: another run has it. InputError: network file system, or no permission. StorageError.
        """
        refuse_network(self.state_dir, mountinfo=self._mountinfo)
        deadline = time.monotonic() + self._wait_s
        make_private(self.state_dir)
        try:
            self._take(deadline)
        except filelock.Timeout:
            self.release()
            raise TryLater(
                f"another run is using {self.state_dir}; wait for it, or use --wait-lock SECONDS. Nothing was sent"
            ) from None
        except OSError as error:
            self.release()
            raise StorageError(f"{self.state_dir / NAME} cannot be locked: {error.strerror}") from error

    def _take(self, deadline: float) -> None:
        self._file = filelock.FileLock(self.state_dir / NAME, mode=0o600, thread_local=False)
        self._file.acquire(timeout=max(0.0, deadline - time.monotonic()), poll_interval=POLL_S)
        fd = os.open(self.state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _flock(fd, deadline)
        except BaseException:  # passed on; only the descriptor is let go
            os.close(fd)
            raise
        self._fd = fd
        if not os.path.samestat(os.fstat(fd), self.state_dir.stat()):
            raise filelock.Timeout(NAME)  # the directory was exchanged while we waited for its lock
        _held.add(self)

    def close_copy(self) -> None:
        """Close the directory; a forked child does too, else it would keep the lock alive after its owner's death."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def release(self) -> None:
        """Let go; safe to call twice."""
        self.close_copy()
        if self._file is not None:
            self._file.release()
            self._file = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


_held: "weakref.WeakSet[StateLock]" = weakref.WeakSet()


def _close_copies() -> None:
    for lock in list(_held):
        lock.close_copy()


os.register_at_fork(after_in_child=_close_copies)


def _flock(fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise filelock.Timeout(NAME) from None
            time.sleep(POLL_S)
        else:
            return


def make_private(state_dir: Path) -> None:
    """Make the state directory, readable by its owner only; its parents are made like any directory."""
    try:
        state_dir.parent.mkdir(parents=True, exist_ok=True)
        state_dir.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise unusable(state_dir, error) from error

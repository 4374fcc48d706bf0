"""Reserves that are given up so that the images in flight can still be saved.

A file, whose blocks are released on a full disk; and open descriptors, released when there are too many. Many threads
may write at once; one whose first try failed waits to be alone and gets everything the others gave back.
"""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pipeline.store.files import Disk, Tree, Warn


class ReadWriteLock:
    """Who waits to be alone goes before those who would join the many."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._many = 0
        self._waiting = 0
        self._is_alone = False

    def __repr__(self) -> str:
        holders = "one alone" if self._is_alone else f"{self._many} at once"
        return f"<ReadWriteLock {holders}, {self._waiting} waiting to be alone>"

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and self._waiting == 0)
            self._many += 1
        try:
            yield
        finally:
            with self._changed:
                self._many -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work when nobody else does; never from inside `together`."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._is_alone and self._many == 0)
            self._waiting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


NAME: Final = "ballast"  # the file's name since version 0.1.0
SIZE_BYTES: Final = 32 << 20  # about a dozen images of 2.7 MB
SPARE: Final = 8  # descriptors; saving one image takes up to six
SHARE: Final = 8  # at most one eighth of what is free
LEAST_BYTES: Final = 64 << 10


class DiskReserve:
    """Blocks held in the state directory while a run goes on. Thread-safe."""

    def __init__(self, state: Tree, *, size_bytes: int = SIZE_BYTES) -> None:
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
                disk.unlink(NAME, dir_fd=self._state.fd)
            with contextlib.suppress(OSError):
                while len(self._spare) < SPARE:
                    self._spare.append(disk.open_dir(".", dir_fd=self._state.fd))
        if self._size_bytes == 0:
            return
        size_bytes = min(self._size_bytes, self._state.free_bytes() // SHARE)
        try:
            if size_bytes >= LEAST_BYTES:
                self._allocate(disk, size_bytes)
                self._is_held, self._size_bytes = True, size_bytes
        except OSError as error:
            self._remove()
            warn(f"no disk reserve in {self._state.root} ({error.strerror}); free space is watched without it")
        else:
            if not self._is_held:
                warn(f"{self._state.root} is nearly full: no room for the disk reserve")

    def share(self) -> None:
        """Give up, when it comes to that, the blocks that another process holds in this directory."""
        self._is_held, self._size_bytes = True, 0

    def _allocate(self, disk: Disk, size_bytes: int) -> None:
        fd = disk.create(NAME, dir_fd=self._state.fd, mode=0o600)
        try:
            disk.allocate(fd, size_bytes)
        finally:
            disk.close(fd)

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
            self._state.disk.unlink(NAME, dir_fd=self._state.fd)

"""Many at once, or one alone: a thread whose first try failed gets everything the others gave back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Who waits to be alone goes before those who would join the many."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._many = 0
        self._waiting = 0
        self._is_alone = False

    def __repr__(self) -> str:
        return (
            f"<Turns {'one alone' if self._is_alone else f'{self._many} at once'}, {self._waiting} waiting to be alone>"
        )

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

"""Turns INT, TERM and HUP into the two stop orders of a run: halt, then abandon.

The first signal: nothing new is sent, what is in flight is awaited and saved (TERM and HUP: for `drain_s` at most).
The second: what has arrived is saved, what is in flight becomes unknown. Before sending begins, the first signal stops
the run in order and the second at once: nothing was sent, and that work may be killed at any moment. While a question
is open on the terminal, the first one ends the question. A signal that the parent had ignored (`nohup`, a shell's
background job) stays ignored.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final, Self

from pipeline.errors import Exit

if TYPE_CHECKING:
    from pipeline.engine.run import Engine

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Holds the handlers while its `with` block lasts. `exit` is the code of the first signal that came."""

    def __init__(self, *, drain_s: float, is_listening: bool = True) -> None:
        """`is_listening` False: the caller's own loop keeps its signals (a notebook, a service)."""
        self._drain_s = drain_s
        former = {number: signal.getsignal(number) or signal.SIG_DFL for number in NUMBERS if is_listening}
        self._former = {number: handler for number, handler in former.items() if handler != signal.SIG_IGN}
        self._loop = asyncio.get_running_loop()
        self._planner = asyncio.current_task()
        self.engine: Engine | None = None  # what signals stop from here on
        self.exit: Exit | None = None

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let a signal end what waits for a person, as a CancelledError: the loop does not turn meanwhile."""
        for number in self._former:
            self._loop.remove_signal_handler(number)
            signal.signal(number, self._end_question)
        try:
            yield
        finally:
            self.listen()

    def listen(self) -> None:
        """Take the signals, also from a library that took them for itself."""
        for number in self._former:
            self._loop.add_signal_handler(number, self._on, number)

    def _end_question(self, number: int, _frame: FrameType | None) -> None:
        self.exit = self.exit or _exit_of(number)
        raise asyncio.CancelledError

    def _on(self, number: signal.Signals) -> None:
        is_first = self.exit is None
        self.exit = self.exit or _exit_of(number)
        if self.engine is None:
            if not is_first:
                os._exit(self.exit)
            if self._planner is not None:
                self._planner.cancel()
        elif not is_first:
            self.engine.abandon()
        else:
            self.engine.halt(self.exit, "SIGINT (Ctrl-C)" if number == signal.SIGINT else signal.Signals(number).name)
            if number != signal.SIGINT:
                self._loop.call_later(self._drain_s, self.engine.abandon)


def _exit_of(number: int) -> Exit:
    return Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED

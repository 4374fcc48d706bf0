"""Signals -> the two orders a run understands: halt, then stop waiting.

INT, TERM and HUP: nothing new is sent, what is in flight is awaited and saved (TERM and HUP: for `drain_s` at most).
A second one: what has arrived is saved, what is in flight becomes unknown. Before a run has begun, the first ends it in
order and the second at once: nothing was sent, and what goes on there may be killed at any moment. A signal that the
parent had ignored (`nohup`, a shell's background job) stays ignored.
"""

import asyncio
import os
import signal
from types import TracebackType
from typing import Final, Protocol, Self

from pipeline.errors import Exit

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stoppable(Protocol):
    """What a signal is told to."""

    def halt(self, exit_code: Exit, reason: str) -> None: ...
    def abandon(self) -> None: ...


class Signals:
    """Holds the handlers while its `with` block lasts. `exit` is the code of the first signal that came."""

    def __init__(self, *, drain_s: float, is_listening: bool = True) -> None:
        """`is_listening` False: the caller's own loop keeps its signals (a notebook, a service)."""
        self._drain_s = drain_s
        self._numbers = [number for number in NUMBERS if is_listening and signal.getsignal(number) != signal.SIG_IGN]
        self._loop = asyncio.get_running_loop()
        self._planner = asyncio.current_task()
        self._engine: Stoppable | None = None
        self.exit: Exit | None = None

    def __enter__(self) -> Self:
        for number in self._numbers:
            self._loop.add_signal_handler(number, self._on, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._numbers:
            self._loop.remove_signal_handler(number)

    def attend(self, engine: Stoppable) -> None:
        """From here on signals go to `engine`."""
        self._engine = engine

    def _on(self, number: signal.Signals) -> None:
        is_first = self.exit is None
        self.exit = self.exit or (Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED)
        if self._engine is None:
            if not is_first:
                os._exit(self.exit)
            if self._planner is not None:
                self._planner.cancel()
        elif not is_first:
            self._engine.abandon()
        else:
            self._engine.halt(self.exit, "SIGINT (Ctrl-C)" if number == signal.SIGINT else signal.Signals(number).name)
            if number != signal.SIGINT:
                self._loop.call_later(self._drain_s, self._engine.abandon)

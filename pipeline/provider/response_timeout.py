"""Two time limits of one exchange: for all of it, and for a body that brings almost nothing for a while.

A slow but steady body is left alone. Time in which this process did not read (a blocked loop, no memory) is not
counted.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

LATE_S: Final = 1.0  # a timer this late means that the loop was blocked, and bytes may lie unread
AGAIN_S: Final = 0.5
EARLY_S: Final = 0.001  # timers may ring this much too soon


class ResponseTimeout:
    """An async context around one exchange. What it interrupts raises `TimeoutError`; `why` says which limit it was."""

    def __init__(self, whole_s: float, *, quiet_s: float, quiet_bytes: int) -> None:
        self.why = ""
        self._whole_s = whole_s
        self._quiet_s = quiet_s
        self._quiet_bytes = quiet_bytes
        self._fence = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._arrived: Callable[[], int] | None = None
        self._window: tuple[float, int] = (0.0, 0)  # since when, and how much had arrived then
        self._paused_at: float | None = None

    async def __aenter__(self) -> "ResponseTimeout":
        await self._fence.__aenter__()
        self._deadline = self._loop.time() + self._whole_s
        self._arm(self._deadline)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._arrived = None
        await self._fence.__aexit__(kind, error, trace)

    def body(self, arrived: Callable[[], int]) -> None:
        """Watch a body from now on; `arrived` tells how many of its bytes have come."""
        self._arrived = arrived
        self._open_window()

    def pause(self) -> None:
        """Stop the clock: what follows is this process's own wait."""
        self._paused_at = self._loop.time()

    def resume(self) -> None:
        """Let the clock run on from where it was paused."""
        assert self._paused_at is not None
        self._deadline += self._loop.time() - self._paused_at
        self._paused_at = None
        self._open_window()

    def _open_window(self) -> None:
        now = self._loop.time()
        self._window = (now, 0 if self._arrived is None else self._arrived())
        self._arm(min(self._deadline, now + self._quiet_s) if self._arrived is not None else self._deadline)

    def _arm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(when, self._ring, when)

    def _ring(self, due: float) -> None:
        now = self._loop.time()
        if self._paused_at is not None:
            return
        if now - due > LATE_S:
            self._arm(now + AGAIN_S)
            return
        self.why = self._complaint(now)
        if self.why:
            self._fence.reschedule(now)
        else:
            self._open_window()

    def _complaint(self, now: float) -> str:
        """Say which limit has been passed; nothing while all is well."""
        now += EARLY_S
        if now >= self._deadline:
            return f"no whole answer within {self._whole_s:g} s"
        since, before = self._window
        is_over = self._arrived is not None and now - since >= self._quiet_s
        if is_over and self._arrived is not None and self._arrived() - before < self._quiet_bytes:
            return f"less than {self._quiet_bytes} bytes within {self._quiet_s:g} s"
        return ""

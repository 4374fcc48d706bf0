"""How late is the event loop? A timer of 5 ms, asked for again and again; what it is late is what anything else waits.

In: a running loop. Out: milliseconds, as p50, p99 and the longest; and of the loop's own CPU between two timers, which
does not depend on what else the machine does.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

_EVERY_S = 0.005


class Probe:
    """Measures while its `async with` block lasts."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.busy_ms: list[float] = []
        self._cpu_s = time.thread_time()
        self._handle: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._arm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._handle = loop.call_at(loop.time() + _EVERY_S, self._ring, loop, loop.time() + _EVERY_S)

    def _ring(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.late_ms.append(max(0.0, loop.time() - due) * 1000)
        before, self._cpu_s = self._cpu_s, time.thread_time()
        self.busy_ms.append((self._cpu_s - before) * 1000)
        self._arm()

    def figures(self) -> dict[str, float]:
        """Return `p50`, `p99` and `max` in milliseconds, and `busy_p99`."""
        late, busy = sorted(self.late_ms) or [0.0], sorted(self.busy_ms) or [0.0]
        figures = {"p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)], "max": late[-1]}
        return figures | {"busy_p99": busy[int(len(busy) * 0.99)]}

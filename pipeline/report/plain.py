"""Progress where there is no terminal: one line every so often.

In: events. Out: lines on a text stream, at most one in `every_s` seconds, written when something happens, so that an
idle process stays silent. A closed stream ends the lines, never the run.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from pipeline.engine.events import Event, Gauge, RunEnded, RunStarted
from pipeline.model import TaskState
from pipeline.report.figures import count, duration, money
from pipeline.report.foreign import clipped
from pipeline.report.tally import Tally


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class Plain:
    """A listener that writes `progress: 120/1,000 ...` lines."""

    def __init__(
        self,
        *,
        total: int,
        gauge: Callable[[], Gauge],
        stream: Stream,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = 10.0,
    ) -> None:
        self._tally = Tally(total, clock)
        self._gauge = gauge
        self._stream: Stream | None = stream
        self._clock = clock
        self._every_s = every_s
        self._last = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, event: Event) -> None:
        self._tally.take(event)
        now = self._clock()
        if isinstance(event, RunStarted):
            self._last = now
        elif isinstance(event, RunEnded) or now - self._last >= self._every_s:
            self._last = now
            self._write(progress_line(self._tally, self._gauge()))

    def _write(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # the reader has gone, or the stream is closed: images matter more than lines
            self._stream = None


def progress_line(tally: Tally, gauge: Gauge) -> str:
    """Return `progress: 120/1,000, 4.1/s, 12 of 24 in flight, $4.68, 2 failed, 3 min 34 s to go`."""
    parts = [f"progress: {tally.settled:,}/{tally.total:,}"]
    if tally.per_second is not None:
        parts.append(f"{tally.per_second:.1f}/s")
    parts.append(f"{gauge.in_flight} of {gauge.limit} in flight")
    parts.append(spend(tally, gauge))
    parts += troubles(tally)
    if tally.retries:
        parts.append(retries(tally))
    if gauge.pause_reason is not None:
        parts.append(f"paused {duration(gauge.pause_left_s)}: {clipped(gauge.pause_reason, 80)}")
    if tally.halt_reason is not None:
        parts.append(f"stopping: {clipped(tally.halt_reason, 80)}")
    elif tally.left_s is not None and tally.settled < tally.total:
        parts.append(f"{duration(tally.left_s)} to go")
    return ", ".join(parts)


def spend(tally: Tally, gauge: Gauge) -> str:
    """Return what is spent, what may have been, and the ceiling: `$4.68 + $0.04 unknown of $20.00`."""
    text = money(gauge.spent_microusd, tally.is_play_money)
    if gauge.unknown_microusd:
        text += f" + {money(gauge.unknown_microusd)} unknown"
    if tally.budget_microusd is not None:
        text += f" of {money(tally.budget_microusd)}"
    return text


def troubles(tally: Tally) -> list[str]:
    """Return the counts that are not zero of tasks that ended without an image."""
    states = (TaskState.FAILED, TaskState.REFUSED, TaskState.UNKNOWN, TaskState.CONFLICT)
    return [f"{tally.states[state]:,} {state.value}" for state in states if tally.states[state]]


def retries(tally: Tally) -> str:
    """Return `3 retries (last: HTTP 503)`."""
    return f"{count(tally.retries, 'retry', 'retries')} (last: {clipped(tally.retry_reason, 40)})"

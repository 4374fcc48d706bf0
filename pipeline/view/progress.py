"""The counts of a run (done, pace, time left, last failures), and progress as lines where there is no terminal.

One line at most in `every_s` seconds, written when something happens, so that an idle process stays silent. A closed
stream ends the lines, never the run. Spend is shown from the gauge.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from pipeline.engine.events import (
    Event,
    Gauge,
    Halted,
    Paused,
    RetryScheduled,
    RunEnded,
    RunStarted,
    RunSummary,
    StagePlanned,
    TaskEnded,
)
from pipeline.errors import Exit
from pipeline.model import TaskState
from pipeline.text import clipped, count, duration, money

_WINDOW_S = 60.0  # pace is that of the last minute, so that a slow start is soon forgotten
_FEWEST = 3  # images before a pace is shown at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One task that ended without an image, as the last failures show it."""

    task_id: str
    state: TaskState
    reason: str


def halt_text(event: Halted) -> str:
    """Say why a run stops, and what a second signal does."""
    is_signal = event.exit in (Exit.INTERRUPTED, Exit.TERMINATED)
    return f"{event.reason}; once more to stop waiting" if is_signal else event.reason


class ProgressCounts:
    """Counts of one run. `total` is replaced by what RunStarted says."""

    def __init__(self, total: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._moments: deque[float] = deque()  # of settled tasks within the window
        self.total = total
        self.skipped = 0
        self.states: Counter[TaskState] = Counter()
        self.retries = 0
        self.retry_reason = ""  # of the last one
        self.pauses = 0
        self.budget_microusd: int | None = None
        self.is_play_money = False
        self.halt_reason: str | None = None
        self.summary: RunSummary | None = None
        self.troubles: deque[Trouble] = deque(maxlen=3)

    def __repr__(self) -> str:
        return f"<ProgressCounts {self.settled}/{self.total}, {self.retries} retries>"

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case RunStarted():
                self.total, self.skipped = event.total, event.total - event.due
                self.is_play_money, self.budget_microusd = event.is_play_money, event.budget_microusd
            case StagePlanned():
                self.total = max(self.total, event.total)
                self.skipped = self.total - event.due
            case RetryScheduled():
                self.retries, self.retry_reason = self.retries + 1, event.reason
            case TaskEnded():
                self._settle(event)
            case Paused():
                self.pauses += 1
            case Halted():
                self.halt_reason = self.halt_reason or halt_text(event)
            case RunEnded():
                self.summary = event.summary
            case _:
                pass

    def _settle(self, event: TaskEnded) -> None:
        self.states[event.state] += 1
        if event.state is TaskState.DONE:
            self._moments.append(self._clock())
        elif event.state is not TaskState.PENDING:
            self.troubles.append(Trouble(task_id=event.task_id, state=event.state, reason=event.reason))

    @property
    def settled(self) -> int:
        """Tasks that need nothing more from this run, those done before it included."""
        return self.skipped + sum(n for state, n in self.states.items() if state is not TaskState.PENDING)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the view was made."""
        return self._clock() - self._began

    @property
    def per_second(self) -> float | None:
        """Images a second over the last minute; None while there are too few to tell."""
        now = self._clock()
        while self._moments and self._moments[0] < now - _WINDOW_S:
            self._moments.popleft()
        span = min(now - self._began, _WINDOW_S)
        return len(self._moments) / span if len(self._moments) >= _FEWEST and span > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds to go at the present pace; None while nobody can tell."""
        pace = self.per_second
        return None if pace is None else max(self.total - self.settled, 0) / pace


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class PlainProgress:
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
        self._tally = ProgressCounts(total, clock)
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


def progress_line(tally: ProgressCounts, gauge: Gauge) -> str:
    """Return `progress: 120/1,000, 4.1/s, 12 of 24 in flight, $4.68, 2 failed, 3 min 34 s to go`."""
    parts = [f"progress: {tally.settled:,}/{tally.total:,}"]
    if tally.per_second is not None:
        parts.append(f"{tally.per_second:.1f}/s")
    parts.append(f"{gauge.in_flight} of {gauge.limit} in flight")
    parts += worker_counts(gauge)
    parts.append(spend(tally, gauge))
    parts += trouble_lines(tally)
    if tally.retries:
        parts.append(retries(tally))
    if gauge.pause_reason is not None:
        parts.append(f"paused {duration(gauge.pause_left_s)}: {clipped(gauge.pause_reason, 80)}")
    if tally.halt_reason is not None:
        parts.append(f"stopping: {clipped(tally.halt_reason, 80)}")
    elif tally.left_s is not None and tally.settled < tally.total:
        parts.append(f"{duration(tally.left_s)} to go")
    return ", ".join(parts)


def worker_counts(gauge: Gauge) -> list[str]:
    """Return `3 of 4 workers, 2 lost` where workers send."""
    workers = gauge.workers
    if workers is None:
        return []
    lost = f", {workers.lost} lost" if workers.lost else ""
    return [f"{workers.ready} of {count(workers.started, 'worker')}{lost}"]


def spend(tally: ProgressCounts, gauge: Gauge) -> str:
    """Return what is spent, what may have been, and the ceiling: `$4.68 + $0.04 unknown of $20.00`."""
    text = money(gauge.spent_microusd, tally.is_play_money)
    if gauge.unknown_microusd:
        text += f" + {money(gauge.unknown_microusd)} unknown"
    if tally.budget_microusd is not None:
        text += f" of {money(tally.budget_microusd)}"
    return text


def trouble_lines(tally: ProgressCounts) -> list[str]:
    """Return the counts that are not zero of tasks that ended without an image."""
    states = (TaskState.FAILED, TaskState.REFUSED, TaskState.UNKNOWN, TaskState.CONFLICT)
    return [f"{tally.states[state]:,} {state.value}" for state in states if tally.states[state]]


def retries(tally: ProgressCounts) -> str:
    """Return `3 retries (last: HTTP 503)`."""
    return f"{count(tally.retries, 'retry', 'retries')} (last: {clipped(tally.retry_reason, 40)})"

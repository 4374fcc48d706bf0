"""Where a run stands, counted from its events.

In: events and a clock. Out: numbers for a progress line: settled tasks, pace, time to go, the last failures. No
terminal; what was spent is the gauge's to say.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.engine.events import (
    Event,
    Halted,
    Paused,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StagePlanned,
    TaskEnded,
)
from pipeline.engine.summary import RunSummary
from pipeline.errors import Exit
from pipeline.model import TaskState

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


class Tally:
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
        return f"<Tally {self.settled}/{self.total}, {self.retries} retries>"

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

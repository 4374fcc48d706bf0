"""When a run must start nothing more, and which exit code says so.

In: every judged result of the run and the end of every task, in order. Out: a `Halt`, or None. It refuses to know who
stops, how, and what is still in flight: a halt finishes what is paid and starts nothing.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.errors import SEVERITY, Exit, most_severe
from pipeline.model import Answer, Failure, Fault, TaskState
from pipeline.settings import StopOn

FIRST = 5  # results all of one mistake: it is the manifest's, not a task's
IN_A_ROW = 5  # 403
TRIES = 3  # of a model that the provider does not find
PUSH_BACKS = 10  # in a row, with nothing served in between, and all of them over `patience_s`: the quota is used up
SPACED_SHARE = 0.5  # of `retry.wait.initial`, which lies between two tries at least; what comes nearer is one try
LONG_S = 300.0  # a shorter delay beside a quota is that of its minute, not of its day
LONGEST = timedelta(days=31)

MISTAKES = frozenset({Fault.NOT_FOUND, Fault.BAD_REQUEST})
SAYS_NOTHING = frozenset(  # about key, address, model and request
    {Fault.UNREACHABLE, Fault.SILENCE, Fault.THROTTLED, Fault.OUTAGE, Fault.INPUT, Fault.MODEL_MISSING}
)


@dataclass(frozen=True, slots=True)
class Halt:
    """The order to start nothing more. `not_before` is when a later run may send again; None: at once."""

    exit: Exit
    reason: str
    not_before: datetime | None = None


@dataclass(slots=True)
class Halts:
    """Every halt ordered in one run. The most severe is told first; of equals, the first ordered."""

    _halts: list[Halt] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._halts)

    def add(self, halt: Halt) -> bool:
        """Keep one more; return whether it says something new."""
        if any(h.exit is halt.exit and h.reason == halt.reason for h in self._halts):
            return False
        self._halts.append(halt)
        return True

    @property
    def exit(self) -> Exit:
        """Return the one exit code that is told; `Exit.OK` for none."""
        return most_severe([halt.exit for halt in self._halts])

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(halt.reason for halt in sorted(self._halts, key=lambda h: SEVERITY.index(h.exit)))

    @property
    def not_before(self) -> datetime | None:
        """Return the latest of the moments before which nothing may be sent."""
        return max((h.not_before for h in self._halts if h.not_before is not None), default=None)


class Watch:
    """Sees the results of one run and says when it must stop.

    `models` names the models that exist now, in words: `gemini-2.5-flash-image, gemini-3-pro-image-preview`.
    `spaced_s`: answers that do not find the model and come nearer to each other than this are one try.
    `patience_s`: how long a server may do nothing but push back; longer than a window of five minutes lasts.
    """

    def __init__(
        self,
        stop_on: StopOn = StopOn(),  # noqa: B008 - frozen
        *,
        models: str = "",
        spaced_s: float = SPACED_SHARE,
        patience_s: float = 600.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop_on = stop_on
        self._models = models
        self._spaced_s = spaced_s
        self._patience_s = patience_s
        self._now = now
        self._clock = clock
        self._push_backs = 0
        self._pushed_back_since = -math.inf
        self._first: list[Fault | None] = []
        self._forbidden = 0
        self._missing: dict[str, tuple[int, datetime]] = {}  # model -> spaced tries, when the last one was
        self._failed = 0
        self._ended = 0
        self._failures_in_a_row = 0

    def judged(self, result: Answer | Failure, *, model: str = "", tries: int = 0) -> Halt | None:
        """See one judged result.

        `model`: what was asked for, where a manifest names several. `tries`: how often this task met this fault by now.
        """
        failure = result if isinstance(result, Failure) else None
        fault = failure.fault if failure is not None else None
        self._count(fault, model)
        if failure is None:
            return None
        halt = self._halt_for(failure, model, tries)
        if halt is None and failure.hint_s is not None and failure.hint_s > LONG_S:  # whatever it was about
            return Halt(Exit.TRY_LATER, failure.reason, self._not_before(failure.hint_s))
        return halt

    def _halt_for(self, failure: Failure, model: str, tries: int) -> Halt | None:
        """Return the halt that the fault itself orders."""
        match failure.fault:
            case Fault.ACCOUNT | Fault.ADDRESS:
                return Halt(Exit.ACCOUNT, failure.reason)
            case Fault.QUOTA:
                return Halt(Exit.TRY_LATER, failure.reason, self._not_before(failure.hint_s))
            case Fault.FORBIDDEN if self._forbidden >= IN_A_ROW:
                return Halt(Exit.ACCOUNT, f"{IN_A_ROW} requests in a row were forbidden: {failure.reason}")
            case Fault.NOT_FOUND | Fault.BAD_REQUEST:
                return self._mistaken(failure.reason)
            case Fault.THROTTLED:
                return self._pushed_back(failure.reason)
            case Fault.MODEL_MISSING:
                return self._model_missing(failure.reason, model, tries)
            case _:
                return None

    def task_ended(self, state: TaskState) -> Halt | None:
        """See one task end. Only done and failed count: a refusal says nothing about the run."""
        if state not in (TaskState.DONE, TaskState.FAILED):
            return None
        is_failed = state is TaskState.FAILED
        self._ended += 1
        self._failed += is_failed
        self._failures_in_a_row = self._failures_in_a_row + 1 if is_failed else 0
        most, rate = self._stop_on.consecutive_failures, self._stop_on.failure_rate
        if is_failed and most is not None and self._failures_in_a_row >= most:
            return Halt(Exit.SOME_FAILED, f"{self._failures_in_a_row} tasks failed in a row (stop_on)")
        if is_failed and rate is not None and self._ended >= self._stop_on.after and self._failed >= rate * self._ended:
            return Halt(Exit.SOME_FAILED, f"{self._failed} of {self._ended} tasks failed (stop_on)")
        return None

    def _count(self, fault: Fault | None, model: str) -> None:
        if fault in SAYS_NOTHING:
            return
        self._push_backs = 0
        if len(self._first) < FIRST:
            self._first.append(fault)
        self._forbidden = self._forbidden + 1 if fault is Fault.FORBIDDEN else 0
        if fault is None:
            self._missing.pop(model, None)

    def _mistaken(self, reason: str) -> Halt | None:
        """Stop when the first results were all the same kind of mistake, and only then."""
        if len(self._first) < FIRST or not MISTAKES.issuperset(self._first):
            return None
        is_address = all(fault is Fault.NOT_FOUND for fault in self._first)
        return Halt(
            Exit.ACCOUNT if is_address else Exit.SOME_FAILED, f"the first {FIRST} requests all failed: {reason}"
        )

    def _pushed_back(self, reason: str) -> Halt | None:
        """Stop when the server has done nothing else for long."""
        now = self._clock()
        if self._push_backs == 0:
            self._pushed_back_since = now
        self._push_backs += 1
        if self._push_backs < PUSH_BACKS or now - self._pushed_back_since < self._patience_s:
            return None
        return Halt(
            Exit.TRY_LATER,
            f"the server pushed back {self._push_backs} requests in a row and served none: {reason}; "
            "run the same command later",
        )

    def _model_missing(self, reason: str, model: str, tries: int) -> Halt | None:
        now = self._now()
        spaced, last = self._missing.get(model, (0, datetime.min.replace(tzinfo=UTC)))
        if now - last >= timedelta(seconds=self._spaced_s):
            spaced += 1
            self._missing[model] = (spaced, now)
        if max(spaced, tries) < TRIES:
            return None
        return Halt(Exit.ACCOUNT, f"{reason}; models that exist now: {self._models}" if self._models else reason)

    def _not_before(self, hint_s: float | None) -> datetime:
        """Return when the quota is free again: the delay named, else the provider's next midnight."""
        now = self._now()
        if hint_s is None or hint_s <= LONG_S:
            return next_midnight(now, pacific())
        return now + timedelta(seconds=min(hint_s, LONGEST.total_seconds()))


def pacific() -> tzinfo:
    """Return the zone in which quotas per day begin. https://ai.google.dev/gemini-api/docs/rate-limits"""
    try:
        return ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:
        return timezone(timedelta(hours=-8))  # no time zone data here: in summer an hour late, which is the safe side


def next_midnight(now: datetime, zone: tzinfo) -> datetime:
    """Return the first moment of tomorrow in `zone`, in UTC."""
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).astimezone(UTC)

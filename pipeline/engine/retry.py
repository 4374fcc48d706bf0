"""Whether a task is asked again, and when: the retry rules as data and three pure functions.

From the failure of one attempt and the history of its task follows a repeat, a wait, or the state the task ends in. No
clock, no I/O; tenacity calls it.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pipeline.model import Fault, TaskState
from pipeline.settings import Retry

HINT_SPREAD: Final = 0.1  # workers that wait for one named moment come back over a tenth of it
PATIENCE, LEAST = 4, 20  # uncounted repeats in one turn: so many times `retry.attempts`, and so many at least


class Wait(StrEnum):
    """The classes of waits. Base and cap are multiples of `retry.wait.initial` and `max`: see `_FACTORS`."""

    NONE = "none"  # the throttle's closure is the wait
    BRIEF = "brief"  # 1 to 5 s by default: a run that reached nobody is to end after 60 s, not in the midst of a wait
    TRANSIENT = "transient"
    UNKNOWN = "unknown"


_FACTORS: Final = {
    Wait.NONE: (0.0, 0.0),
    Wait.BRIEF: (1.0, 1 / 12),
    Wait.TRANSIENT: (1.0, 1.0),
    Wait.UNKNOWN: (10.0, 2.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What follows a fault. `repeats` None: bounded by `retry.attempts`, or by `PATIENCE` where it is not counted."""

    repeats: int | None
    ends_as: TaskState
    is_counted: bool = True  # towards `retry.attempts`
    wait: Wait = Wait.TRANSIENT
    is_unknown: bool = False  # repeats are bounded by `retry.unknown` instead


_FAILS: Final = Rule(repeats=0, ends_as=TaskState.FAILED)
_STOPS: Final = Rule(repeats=0, ends_as=TaskState.PENDING, is_counted=False)  # the run halts; the task is not at fault

RULES: Final[dict[Fault, Rule]] = {
    Fault.UNREACHABLE: Rule(repeats=None, ends_as=TaskState.PENDING, is_counted=False, wait=Wait.BRIEF),
    Fault.ADDRESS: _STOPS,
    Fault.SILENCE: Rule(repeats=None, ends_as=TaskState.UNKNOWN, wait=Wait.UNKNOWN, is_unknown=True),
    Fault.BAD_REQUEST: _FAILS,
    Fault.NOT_FOUND: _FAILS,
    Fault.ACCOUNT: _STOPS,
    Fault.UPSTREAM_ACCOUNT: Rule(repeats=None, ends_as=TaskState.PENDING, is_counted=False),
    Fault.FORBIDDEN: _FAILS,
    Fault.THROTTLED: Rule(repeats=None, ends_as=TaskState.PENDING, is_counted=False, wait=Wait.NONE),
    Fault.QUOTA: _STOPS,
    Fault.MODEL_MISSING: Rule(repeats=2, ends_as=TaskState.PENDING, is_counted=False),
    Fault.OUTAGE: Rule(repeats=None, ends_as=TaskState.PENDING),
    Fault.REFUSED: Rule(repeats=0, ends_as=TaskState.REFUSED),
    Fault.NO_IMAGE: Rule(repeats=2, ends_as=TaskState.FAILED),
    Fault.BROKEN: Rule(repeats=1, ends_as=TaskState.FAILED),
    Fault.LINK: _FAILS,
    Fault.INPUT: _FAILS,
    Fault.CONFLICT: Rule(repeats=0, ends_as=TaskState.CONFLICT),
    Fault.STORAGE: _STOPS,
    Fault.LOCAL: Rule(repeats=0, ends_as=TaskState.PENDING, is_counted=False),
    Fault.OTHER: Rule(repeats=1, ends_as=TaskState.FAILED, wait=Wait.UNKNOWN),
}

DEFERRABLE: Final = frozenset(  # may have a second turn, at the end
    {Fault.OUTAGE, Fault.THROTTLED, Fault.UNREACHABLE, Fault.UPSTREAM_ACCOUNT}
)


@dataclass(slots=True, kw_only=True)
class AttemptHistory:
    """What one task has met. `unknowns` and `faults` start with what earlier runs left for the same fingerprint."""

    unknowns: int = 0
    counted: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)

    def add(self, fault: Fault) -> None:
        self.faults[fault] += 1
        self.counted += RULES[fault].is_counted
        self.unknowns += RULES[fault].is_unknown

    def fresh_turn(self) -> None:
        """Start again at the end of the queue: transient attempts are forgotten, what may be billed is not."""
        for fault in DEFERRABLE:
            self.faults.pop(fault, None)
        self.counted = sum(count for fault, count in self.faults.items() if RULES[fault].is_counted)


def may_repeat(fault: Fault, tally: AttemptHistory, retry: Retry, *, tried_s: float = math.inf) -> bool:
    """Return whether the task may be asked once more after `fault`, which `tally` has counted already.

    tried_s: since its turn began.
    """
    rule = RULES[fault]
    if tried_s < _patience_s(fault, retry):
        return True
    if rule.is_counted and tally.counted >= retry.attempts:
        return False
    if rule.is_unknown:
        return tally.unknowns <= retry.unknown
    repeats = max(LEAST, PATIENCE * retry.attempts) if rule.repeats is None else rule.repeats
    if fault is Fault.OTHER:
        repeats = min(repeats, retry.unknown)  # it may have been billed as well
    return tally.faults[fault] <= repeats


def _patience_s(fault: Fault, retry: Retry) -> float:
    """Return for how long repeats are not limited: the throttle lets one probe at a time through."""
    match fault:
        case Fault.THROTTLED:
            return 30.0
        case Fault.UNREACHABLE:  # by default until the throttle gives up
            return max(90.0, 11 * retry.wait_max_s)
        case _:
            return 0.0


def exhausted(tally: AttemptHistory, retry: Retry) -> Fault | None:
    """Return the fault of earlier runs after which the task may not be asked again; None: it may be."""
    return next((fault for fault in tally.faults if not may_repeat(fault, tally, retry)), None)


def state_after(fault: Fault, tally: AttemptHistory, retry: Retry) -> TaskState:
    """Return the state to write down after `fault`: what holds if this process dies before the next attempt."""
    if may_repeat(fault, tally, retry) and fault is not Fault.SILENCE:
        return TaskState.PENDING
    return RULES[fault].ends_as


def wait_s(
    fault: Fault, tally: AttemptHistory, retry: Retry, *, hint_s: float | None, random: Callable[[], float]
) -> float:
    """Return the wait before the next attempt: max(full jitter over base x 2^(n-1) up to the cap, hint + 0..10 %).

    Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    base_factor, cap_factor = _FACTORS[RULES[fault].wait]
    doublings = min(tally.faults[fault] - 1, 30)
    ceiling = min(retry.wait_initial_s * base_factor * 2.0**doublings, retry.wait_max_s * cap_factor)
    named = 0.0 if hint_s is None else hint_s * (1 + HINT_SPREAD * random())
    return max(ceiling * random(), named)

"""When a run must start nothing more, and its exit code.

Reads every classified result and the end of every task, in order, and returns a `Halt` or None. A halt finishes what is
paid and starts nothing; carrying it out is the engine's work.
"""

import math
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta

from pipeline.errors import SEVERITY, Exit, most_severe
from pipeline.model import UNSENT, Artifact, Billed, Failure, Fault, TaskState
from pipeline.settings import StopOn, next_midnight, quota_zone

FIRST = 5  # results all of one mistake: it is the manifest's, not a task's
IN_A_ROW = 5  # 403, 404
BARREN = 5  # tasks in a row that were paid for and brought no image, where `stop_on` names no other number
CLOSED = 2  # answers in a row about a key or an account that is not served, before the first image of a run
CLOSED_LATER = 6  # the same after one: the cause appeared in mid-run, or in one of the accounts behind a relay
CLOSED_OF_SEVERAL = 12  # the same once something was served after such an answer: a relay has other accounts
TRIES = 3  # of a model that the provider does not find
PUSH_BACKS = 10  # in a row, with nothing served in between, and all of them over `patience_s`: the quota is used up
SPACED_SHARE = 0.5  # of `retry.wait.initial`, which lies between two tries at least; what comes nearer is one try
LONG_S = 300.0  # a shorter delay beside a quota is that of its minute, not of its day
LONGEST = timedelta(days=31)

MISTAKES = frozenset({Fault.NOT_FOUND, Fault.BAD_REQUEST})
SAYS_NOTHING = frozenset(  # about key, address, model and request
    {
        Fault.UNREACHABLE,
        Fault.SILENCE,
        Fault.THROTTLED,
        Fault.OUTAGE,
        Fault.MODEL_MISSING,
        Fault.UPSTREAM_ACCOUNT,
        *UNSENT,
    }
)
WITHOUT_IMAGE = frozenset({Fault.NO_IMAGE, Fault.BROKEN, Fault.LINK})
RELEASED = frozenset({Fault.FORBIDDEN, Fault.NOT_FOUND})  # fail a task, unless a halt finds that it was not its fault


@dataclass(frozen=True, slots=True)
class Halt:
    """The order to start nothing more. `not_before` is when a later run may send again; None: at once."""

    exit: Exit
    reason: str
    not_before: datetime | None = None
    fault: Fault | None = field(default=None, compare=False)  # not the fault of the tasks that met it: they are pending


@dataclass(slots=True)
class Halts:
    """Every halt ordered in one run. The most severe comes first; of equals, the first ordered."""

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
        """Return the exit code of the run; `Exit.OK` for none."""
        return most_severe([halt.exit for halt in self._halts])

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(halt.reason for halt in sorted(self._halts, key=lambda h: SEVERITY.index(h.exit)))

    @property
    def not_before(self) -> datetime | None:
        """Return the latest of the moments before which nothing may be sent."""
        return max((h.not_before for h in self._halts if h.not_before is not None), default=None)


def failure_of(result: Artifact | Failure) -> Failure | None:
    """Return why the provider brought no image; None: it did, whatever became of it on the disk."""
    return result if isinstance(result, Failure) and result.image_sha256 is None else None


@dataclass(eq=False, repr=False)
class HaltPolicy:
    """Sees the results of one run and says when it must stop."""

    stop_on: StopOn = field(default_factory=StopOn)
    _: KW_ONLY
    models: str = ""  # that exist now, in words: `gemini-nano-banana-2.1, gemini-3-pro-image`
    spaced_s: float = SPACED_SHARE  # answers that do not find the model and come nearer to each other are one try
    patience_s: float = 600.0  # how long a server may do nothing but push back; longer than a window of five minutes
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._push_backs = 0
        self._pushed_back_since = -math.inf
        self._first: list[Fault | None] = []
        self._last: Fault | None = None  # None: an image
        self._in_a_row = 0
        self._barren: dict[str, int] = {}  # task -> what its answers without an image cost, since the last image
        self._has_stopped = False  # for them
        self._has_image = False
        self._closed = 0  # in a row
        self._closed_at = math.inf  # when the first one came, on `clock`
        self._has_other_accounts = False
        self._missing: dict[str, tuple[int, datetime]] = {}  # model -> spaced tries, when the last one was
        self._failed = 0
        self._ended = 0
        self._failures_in_a_row = 0

    def judged(
        self,
        result: Artifact | Failure,
        *,
        model: str = "",
        tries: int = 0,
        task_id: str = "",
        seconds: float = 0.0,
        cost_microusd: int = 0,
    ) -> Halt | None:
        """See one judged result.

        `model`: what was asked for, where a manifest names several. `tries`: how often this task met this fault by now.
        `seconds`: how long ago its request was sent.
        """
        failure = failure_of(result)
        fault = failure.fault if failure is not None else None
        self._count(fault, model)
        if failure is None or failure.billed is Billed.YES:
            self._was_served(seconds, is_image=failure is None)
        if failure is None:
            return None
        if failure.fault in WITHOUT_IMAGE:
            self._barren[task_id] = self._barren.get(task_id, 0) + cost_microusd
        halt = self._halt_for(failure, model, tries)
        if halt is None and failure.hint_s is not None and failure.hint_s > LONG_S:  # whatever it was about
            return Halt(Exit.TRY_LATER, failure.reason, self._not_before(failure.hint_s))
        return halt

    def _halt_for(self, failure: Failure, model: str, tries: int) -> Halt | None:
        """Return the halt that the fault itself orders."""
        match failure.fault:
            case Fault.ACCOUNT | Fault.ADDRESS:
                return Halt(Exit.ACCOUNT, failure.reason)
            case Fault.UPSTREAM_ACCOUNT:
                return self._is_closed(failure.reason)
            case Fault.QUOTA:
                return Halt(Exit.TRY_LATER, failure.reason, self._not_before(failure.hint_s))
            case Fault.FORBIDDEN if self._in_a_row >= IN_A_ROW:
                reason = f"{IN_A_ROW} requests in a row were forbidden: {failure.reason}"
                return Halt(Exit.ACCOUNT, reason, fault=failure.fault)
            case Fault.NOT_FOUND | Fault.BAD_REQUEST:
                return self._mistaken(failure)
            case Fault.THROTTLED:
                return self._pushed_back(failure.reason)
            case Fault.MODEL_MISSING:
                return self._model_missing(failure.reason, model, tries)
            case Fault.NO_IMAGE | Fault.BROKEN | Fault.LINK:
                return self._without_image(failure.reason)
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
        most, rate = self.stop_on.consecutive_failures, self.stop_on.failure_rate
        if is_failed and most is not None and self._failures_in_a_row >= most:
            return Halt(Exit.SOME_FAILED, f"{self._failures_in_a_row} tasks failed in a row (stop_on)")
        if is_failed and rate is not None and self._ended >= self.stop_on.after and self._failed >= rate * self._ended:
            return Halt(Exit.SOME_FAILED, f"{self._failed} of {self._ended} tasks failed (stop_on)")
        return None

    def _count(self, fault: Fault | None, model: str) -> None:
        if fault in SAYS_NOTHING:
            return
        self._push_backs = 0
        if len(self._first) < FIRST:
            self._first.append(fault)
        self._in_a_row = self._in_a_row + 1 if fault is self._last else 1
        self._last = fault
        if fault is None:
            self._missing.pop(model, None)

    def _was_served(self, seconds: float, *, is_image: bool) -> None:
        self._has_other_accounts |= self.clock() - seconds > self._closed_at
        self._closed = 0
        if is_image:
            self._has_image = True
            self._barren.clear()

    def _is_closed(self, reason: str) -> Halt | None:
        """Stop when nothing but such answers come. One closed account of several behind a relay stops nothing.

        Refusals are quick: those of one closed account follow on each other before an image shows that there are other
        accounts. They cost nothing; a run that is stopped by mistake costs a night.
        """
        self._closed += 1
        self._closed_at = min(self._closed_at, self.clock())
        most = CLOSED_OF_SEVERAL if self._has_other_accounts else CLOSED_LATER if self._has_image else CLOSED
        return Halt(Exit.ACCOUNT, reason) if self._closed >= most else None

    def _without_image(self, reason: str) -> Halt | None:
        """Stop when tasks in a row are paid for and none of them has an image."""
        named = self.stop_on.consecutive_failures
        if self._has_stopped or len(self._barren) < (BARREN if named is None else named):
            return None
        self._has_stopped = True  # what was in flight says the same again
        paid = sum(self._barren.values()) / 1_000_000
        return Halt(
            Exit.SOME_FAILED,
            f"{len(self._barren)} tasks in a row were paid for (${paid:.2f}) and brought no image: {reason}; "
            "their answers are kept in rejected/ (`imgpipe rejected` lists them)",
        )

    def _mistaken(self, failure: Failure) -> Halt | None:
        """Stop when the first results were all the same kind of mistake; an address may go wrong later as well."""
        if len(self._first) >= FIRST and all(fault is Fault.NOT_FOUND for fault in self._first):
            reason = f"the first {FIRST} requests all failed: {failure.reason}"
            return Halt(Exit.ACCOUNT, reason, fault=Fault.NOT_FOUND)
        is_named = failure.fault is Fault.NOT_FOUND and failure.code is not None  # it names what is not there
        if is_named and self._in_a_row >= IN_A_ROW:
            reason = f"{IN_A_ROW} requests in a row were not found: {failure.reason}"
            return Halt(Exit.ACCOUNT, reason, fault=Fault.NOT_FOUND)
        if len(self._first) >= FIRST and MISTAKES.issuperset(self._first):
            return Halt(Exit.SOME_FAILED, f"the first {FIRST} requests all failed: {failure.reason}")
        return None

    def _pushed_back(self, reason: str) -> Halt | None:
        """Stop when the server has done nothing else for long."""
        now = self.clock()
        if self._push_backs == 0:
            self._pushed_back_since = now
        self._push_backs += 1
        if self._push_backs < PUSH_BACKS or now - self._pushed_back_since < self.patience_s:
            return None
        return Halt(
            Exit.TRY_LATER,
            f"the server pushed back {self._push_backs} requests in a row and served none: {reason}; "
            "run the same command later",
        )

    def _model_missing(self, reason: str, model: str, tries: int) -> Halt | None:
        now = self.now()
        spaced, last = self._missing.get(model, (0, datetime.min.replace(tzinfo=UTC)))
        if now - last >= timedelta(seconds=self.spaced_s):
            spaced += 1
            self._missing[model] = (spaced, now)
        if max(spaced, tries) < TRIES:
            return None
        return Halt(Exit.ACCOUNT, f"{reason}; models that exist now: {self.models}" if self.models else reason)

    def _not_before(self, hint_s: float | None) -> datetime:
        """Return when the quota is free again: the delay named, else the provider's next midnight."""
        now = self.now()
        if hint_s is None or hint_s <= LONG_S:
            return next_midnight(now, quota_zone())
        return now + timedelta(seconds=min(hint_s, LONGEST.total_seconds()))

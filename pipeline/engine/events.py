"""Events of a run as values, the numbers counted from them, and what is worth a warning in accepted images.

The engine emits, reports and logs listen, and no listener can change the run. Imports little, so that a run with
nothing to do starts fast.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pipeline.errors import Exit
from pipeline.model import Artifact, Fault, TaskState
from pipeline.text import InUsd, InUsdOrNone

if TYPE_CHECKING:
    from pipeline.engine.wallet import Excess


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The sender processes of a run on many machines."""

    started: int
    lost: int = 0
    ready: int = 0  # at this moment


@dataclass(slots=True, kw_only=True)
class Counts:
    """Tasks by the state they ended in, and what was sent and saved."""

    states: dict[TaskState, int] = field(default_factory=lambda: dict.fromkeys(TaskState, 0))
    attempts: int = 0
    images: int = 0
    bytes: int = 0
    flags: Counter[str] = field(default_factory=Counter)  # images in which a check found something, by its name
    closed: Counter[str] = field(default_factory=Counter)  # tasks that waited, by the folder that takes no images
    trouble: str = ""  # what the last task met that is pending although it was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What one run did, which is nothing if nothing else is said; its JSON form is written by `view.run`."""

    run: int | None  # None: nothing was due and no run was opened
    exit: Exit
    total: int = 0
    done: int = 0  # made by this run
    skipped: int = 0  # done before it, and tasks not selected for sending
    failed: int = 0
    refused: int = 0
    unknown: int = 0
    pending: int = 0  # what the same command asks for next, also where an earlier outcome is unknown
    conflict: int = 0
    missing: int = 0  # of those skipped: their file is gone or was changed since
    attempts: int = 0
    images: int = 0
    bytes: int = 0
    flags: Mapping[str, int] = field(default_factory=dict)  # of images that this run made: check -> how many
    seconds: float = 0.0
    spent_microusd: int = 0
    unknown_microusd: int = 0
    overrun_microusd: int = 0  # what answers cost more than was reserved for them
    exceeded: "tuple[Excess, ...]" = ()  # budgets of which more than all is spent
    budget_left_microusd: int | None = None
    not_before: str | None = None  # RFC 3339, UTC
    is_play_money: bool = False
    is_pilot: bool = False  # it ended with the pilot, as it was asked to
    reasons: tuple[str, ...] = ()  # why it stopped early, most severe first
    workers: Workers | None = None  # None: this process sent everything itself
    cautions: tuple[str, ...] = ()  # what a person must hear although all is well, and also with -q

    spent_usd = InUsd()
    unknown_usd = InUsd()
    overrun_usd = InUsd()
    budget_left_usd = InUsdOrNone()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    run: int
    total: int  # tasks of the manifest that were selected
    due: int
    skipped: int  # done already
    recovered: int
    unknown: int
    unknown_microusd: int
    at_most_microusd: int | None  # None: the price is not known
    budget_microusd: int | None  # what this run may spend at most; None: no ceiling
    is_play_money: bool
    unknown_usd = InUsd()
    at_most_usd = InUsdOrNone()
    budget_usd = InUsdOrNone()


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlanned:
    """The next jobs of a chain are planned, now that the images they take are there."""

    total: int  # tasks of the run as far as they are known; those of the stages before are in it
    due: int  # of them


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    task_id: str
    attempt: int  # the ledger's number
    number: int  # of this task, counted from 1
    price_microusd: int | None
    price_usd = InUsdOrNone()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    task_id: str
    attempt: int
    number: int
    seconds: float
    fault: Fault | None  # None: it brought an image
    reason: str
    status: int | None
    request_id: str | None
    cost_microusd: int
    unknown_microusd: int  # reserved for good: it may have been billed
    worker: str = ""  # `number@node`, where workers send
    cost_usd = InUsd()
    unknown_usd = InUsd()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerChanged:
    """A worker can send from here on, or its process was lost."""

    worker: str  # `number@node`
    is_lost: bool
    in_flight: int  # attempts that it had been given


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled:
    task_id: str
    number: int  # of the attempt that failed
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnded:
    task_id: str
    job: str
    state: TaskState
    reason: str
    artifact: Artifact | None
    attempts: int
    cost_microusd: int
    cost_usd = InUsd()


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """Nothing new is sent for `seconds`: a server's hint, an open breaker, a full disk."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something a person may want to know; the run goes on. Reported once per distinct text."""

    text: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Halted:
    """Nothing new is sent from here on; what is in flight is awaited and saved."""

    exit: Exit
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    summary: RunSummary


Event = (
    RunStarted
    | StagePlanned
    | AttemptStarted
    | AttemptEnded
    | RetryScheduled
    | TaskEnded
    | Paused
    | Warned
    | Halted
    | WorkerChanged
    | RunEnded
)
Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """The state of a run at one moment, for a live view."""

    in_flight: int = 0
    limit: int = 0
    concurrency: int
    spent_microusd: int = 0
    unknown_microusd: int = 0
    reserved_microusd: int = 0
    budget_left_microusd: int | None
    pause_reason: str | None = None
    pause_left_s: float = 0.0
    workers: Workers | None = None


REMEMBERED: Final = 20_000  # images and answer ids: about 2 MB
MOST_WARNINGS: Final = 20  # texts of one run; more of them make nothing clearer


class ImageWarnings:
    """Warnings about the accepted images of one run, each text once: they were paid for, so they are accepted.

    Another size than asked for, the same bytes for two tasks, two answers with one id.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._owners: dict[bytes, str] = {}  # 8 bytes of a hash -> the task it came for first; oldest first
        self._seen: set[str] = set()

    def of(self, task_id: str, image: Artifact) -> Iterator[str]:
        """Yield what is new about one image."""
        for text in (*image.doubts, *self._repetitions(task_id, image)):
            if text in self._seen or len(self._seen) > MOST_WARNINGS:
                continue
            self._seen.add(text)
            yield text if len(self._seen) <= MOST_WARNINGS else "more warnings of this kind; the rest is not shown"

    def _repetitions(self, task_id: str, image: Artifact) -> Iterator[str]:
        if other := self._owner(bytes.fromhex(image.sha256[:16]), task_id):
            yield f"its image has the same bytes as that of {other}; it was accepted"
        if image.response_id is None:
            return
        digest = hashlib.blake2b(image.response_id.encode(), digest_size=8).digest()
        if other := self._owner(digest, task_id):
            yield f"its answer has the id of the answer to {other}; it was accepted"

    def _owner(self, digest: bytes, task_id: str) -> str | None:
        """Return the other task that had it before; remember it as this one's where there is none."""
        other = self._owners.setdefault(digest, task_id)
        if len(self._owners) > self._remembered:
            del self._owners[next(iter(self._owners))]
        return None if other == task_id else other

"""Plans the stages of a run, applies what a plan finds that costs no request, and chooses the tasks of `--pilot`.

A stage is the jobs whose images can be asked for at the same time: a job that takes another one's images is in a later
one, planned when those are made. Memory is flat: what is due and what is free stand in spools, which are read in
batches.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from pipeline.app.context import Setup
from pipeline.app.planning import Cancelled, DigestMemory, Planned, make_plan
from pipeline.engine.events import AttemptEnded, Event, Listener, TaskEnded
from pipeline.errors import Conflict, ImgpipeError
from pipeline.model import Due, Edit, Task, TaskState
from pipeline.plan.plan import ACCEPT, MOVE, TAKE_OVER, Plan, Spool
from pipeline.plan.selection import pilot_ids
from pipeline.store.maintenance import Maintenance
from pipeline.store.reader import LedgerReader
from pipeline.store.store import Store
from pipeline.text import count, duration, money

T = TypeVar("T")
BATCH: Final = 500
LISTED: Final = 20
PASSES: Final = 6  # of a plan whose images move out of each other's way


# -- plan -------------------------------------------------------------------------------------------------------------


async def plan_stage(
    setup: Setup, store: Store, reader: LedgerReader, *, jobs: Collection[str] | None, spool: Spool | None = None
) -> Planned:
    """Plan `jobs` (None: all), and do what costs no request; where images moved out of the way of others, plan again.

    Images may move in a row (a to b, b to c): a few times are enough for what people rename, and what is then still
    in the way is a conflict.
    """
    notes, passes = list[str](), 0
    while True:
        with closing(Spool(setup.manifest.state_dir)) as free:
            digests = DigestMemory(reader)
            try:
                planned = await _plan_in_thread(setup, reader, jobs=jobs, digests=digests, spool=spool, free=free)
            finally:  # also of a plan that was stopped or found a mistake: 20,000 photographs take long to hash
                await store.remember_digests(digests.learned)
            applied = await apply_free_changes(store, free)
        notes += applied.notes
        passes += 1
        if passes == PASSES or not (applied.moved and planned.plan.states[TaskState.CONFLICT]):
            break
        if spool is not None:
            spool.clear()
    planned.plan.states[TaskState.DONE] -= applied.conflicts
    planned.plan.states[TaskState.CONFLICT] += applied.conflicts
    planned.plan.notes += notes
    return planned


async def _plan_in_thread(setup: Setup, reader: LedgerReader, **options: Any) -> Planned:
    """Plan in a thread, so that signals are handled. It reads the ledger and writes to the spools."""
    return await in_thread(lambda is_cancelled: make_plan(setup, reader, is_cancelled=is_cancelled, **options))


async def in_thread(plan: Callable[[threading.Event], T]) -> T:
    """Plan in a thread; a cancelled plan stops at its next task, and is awaited: what it uses may be closed then."""
    is_cancelled = threading.Event()
    # No TaskGroup: one would cancel the task, and the thread would go on over closed spools. It is awaited here.
    task = asyncio.create_task(asyncio.to_thread(plan, is_cancelled), name="plan")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        is_cancelled.set()
        with suppress(Cancelled, ImgpipeError):  # what the plan found does not matter any more
            await task
        raise


# -- free changes -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class FreeChanges:
    """What was done. `conflicts` are tasks whose image stays where it is."""

    moved: int = 0
    renamed: int = 0
    accepted: int = 0
    conflicts: int = 0
    notes: list[str] = field(default_factory=list)


async def apply_free_changes(store: Store, free: Iterable[Due]) -> FreeChanges:
    """Move images and accept changes; a name that is taken costs that task its move and nothing else.

    Raises StorageError.
    """
    applied = FreeChanges()
    stream = iter(free)
    while batch := list(islice(stream, BATCH)):
        renamed = [(due.former, due.task) for due in batch if due.reason == TAKE_OVER]
        if renamed:
            applied.renamed += await store.maintain(partial(Maintenance.take_over, renamed=renamed))
        edits = [(due.task, Edit(due.reason)) for due in batch if due.reason in set(Edit)]
        if edits:
            applied.accepted += await store.maintain(partial(Maintenance.accept_edits, edits=edits))
        accepted = [due.task for due in batch if due.reason == ACCEPT]
        if accepted:
            applied.accepted += await store.maintain(partial(Maintenance.accept, tasks=accepted))
        for due in batch:
            if due.reason == MOVE:
                await _move(store, due.task, applied)
    for number, what in (
        (applied.renamed, "kept for the new id of its task"),
        (applied.moved, "moved to a new name"),
        (applied.accepted, "accepted as it is"),
    ):
        applied.notes += [f"{count(number, 'image')}: {what}, no request"] if number else []
    return applied


async def _move(store: Store, task: Task, applied: FreeChanges) -> None:
    try:
        await store.maintain(partial(Maintenance.move, task_id=task.id, name=task.name))
    except Conflict as conflict:
        applied.conflicts += 1
        if len(applied.notes) < LISTED:
            applied.notes.append(str(conflict))
    else:
        applied.moved += 1


# -- pilot ------------------------------------------------------------------------------------------------------------


class Pilot:
    """A few due tasks over jobs and axes that are asked for first; cost and time of the rest follow from them."""

    def __init__(self, spool: Iterable[Due], number: int, setup: Setup) -> None:
        self.ids = pilot_ids(spool, number)
        self._limits = setup.limits
        self._is_play_money = setup.is_play_money
        self._spool = spool
        self._tasks: Counter[str] = Counter()  # by job
        self._costs: Counter[str] = Counter()  # micro-dollars by job
        self._images = 0
        self._seconds = 0.0  # of all requests
        self.is_over = False
        self.has_ended_run = False  # nobody agreed to the rest

    @property
    def tasks(self) -> Iterator[Due]:
        """The tasks that are asked for first."""
        return (due for due in self._spool if due.task.id in self.ids)

    @property
    def rest(self) -> Iterator[Due]:
        """All others."""
        return (due for due in self._spool if due.task.id not in self.ids)

    def listen(self, event: Event) -> None:
        """Note what a task of the pilot did."""
        match event:
            case AttemptEnded() if not self.is_over:
                self._seconds += event.seconds
            case TaskEnded() if not self.is_over:
                self._tasks[event.job] += 1
                self._costs[event.job] += event.cost_microusd
                self._images += event.state is TaskState.DONE
            case _:
                pass

    def cost_of_rest(self, plan: Plan) -> int:
        """Return what the other tasks will cost, in micro-dollars: each what those of its job did cost on average."""
        asked, spent = self._tasks.total(), self._costs.total()
        total = 0.0
        for job, number in self._rest_by_job(plan).items():
            tasks, cost = (self._tasks[job], self._costs[job]) if self._tasks[job] else (asked, spent)
            total += number * cost / tasks if tasks else 0
        return round(total)

    def seconds_of_rest(self, plan: Plan) -> float:
        """Return how long the other tasks will take: as many requests at a time as the limits allow."""
        left = self._rest_by_job(plan).total()
        each = self._seconds / max(1, self._tasks.total())
        slots = max(1, min(self._limits.concurrency, left))
        pace = self._limits.requests_per_minute
        return max(each, left * each / slots, left * 60 / pace if pace else 0.0) if left else 0.0

    def _rest_by_job(self, plan: Plan) -> Counter[str]:
        due: Counter[str] = Counter()
        for key, group in plan.groups.items():
            if key.is_due:
                due[key.job] += group.tasks
        for task_id in self.ids:
            due[task_id.partition("/")[0]] -= 1
        return +due

    def verdict(self, plan: Plan) -> str:
        """Return `6 of 6 images came for $0.23; the other 194 tasks will cost about $7.60 and take about 3 min`."""
        rest, spent = self._rest_by_job(plan).total(), self._costs.total()
        cost, seconds = self.cost_of_rest(plan), self.seconds_of_rest(plan)
        came = f"{self._images} of {count(len(self.ids), 'image')} came for {money(spent, self._is_play_money)}"
        expected = f"about {money(cost, self._is_play_money)} and take about {duration(seconds)}"
        return f"pilot: {came}; by what those did, the other {count(rest, 'task')} will cost {expected}"


def both(one: Listener, other: Listener) -> Listener:
    """Return a listener that passes every event to both."""

    def listen(event: Event) -> None:
        one(event)
        other(event)

    return listen


async def pilot_first(
    pilot: Pilot, stages: AsyncGenerator[Iterable[Due], None], *, agree: Callable[[], bool]
) -> AsyncGenerator[Iterable[Due], None]:
    """Yield the pilot, and the rest of its stage and the other stages only where `agree` says so afterwards."""
    async with aclosing(stages):
        yield pilot.tasks
        if not agree():
            return
        pilot.is_over = True
        is_first = True
        async for stage in stages:
            yield pilot.rest if is_first else stage
            is_first = False

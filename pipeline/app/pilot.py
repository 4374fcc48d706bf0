"""`run --pilot N`: chooses a few due tasks over jobs and axes, and forecasts cost and time of the rest from them."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing

from pipeline.engine.events import AttemptEnded, Event, Listener, TaskEnded
from pipeline.engine.halt import Halt
from pipeline.errors import Exit
from pipeline.model import Due, TaskState
from pipeline.plan.plan import Plan
from pipeline.plan.selection import pilot_ids
from pipeline.settings import Limits
from pipeline.text import count, duration, money


class Pilot:
    """The pilot of one run. It listens to what its tasks cost and how long their requests take."""

    def __init__(self, spool: Iterable[Due], number: int) -> None:
        self.ids = pilot_ids(spool, number)
        self._spool = spool
        self._tasks: Counter[str] = Counter()  # by job
        self._costs: Counter[str] = Counter()  # micro-dollars by job
        self._images = 0
        self._seconds = 0.0  # of all requests
        self.is_over = False

    def __len__(self) -> int:
        return len(self.ids)

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

    def seconds_of_rest(self, plan: Plan, limits: Limits) -> float:
        """Return how long the other tasks will take: as many requests at a time as the limits allow."""
        left = self._rest_by_job(plan).total()
        each = self._seconds / max(1, self._tasks.total())
        slots = max(1, min(limits.concurrency, left))
        pace = limits.requests_per_minute
        return max(each, left * each / slots, left * 60 / pace if pace else 0.0) if left else 0.0

    def _rest_by_job(self, plan: Plan) -> Counter[str]:
        due: Counter[str] = Counter()
        for key, group in plan.groups.items():
            if key.is_due:
                due[key.job] += group.tasks
        for task_id in self.ids:
            due[task_id.partition("/")[0]] -= 1
        return +due

    def verdict(self, plan: Plan, limits: Limits, *, is_play_money: bool) -> str:
        """Return `6 of 6 images came for $0.23; the other 194 tasks will cost about $7.60 and take about 3 min`."""
        rest, spent = self._rest_by_job(plan).total(), self._costs.total()
        cost, seconds = self.cost_of_rest(plan), self.seconds_of_rest(plan, limits)
        came = f"{self._images} of {count(len(self), 'image')} came for {money(spent, is_play_money)}"
        expected = f"about {money(cost, is_play_money)} and take about {duration(seconds)}"
        return f"pilot: {came}; by what those did, the other {count(rest, 'task')} will cost {expected}"

    def halt(self, plan: Plan, limits: Limits, *, is_play_money: bool) -> Halt:
        """Return why the run ends after the pilot."""
        text = self.verdict(plan, limits, is_play_money=is_play_money)
        return Halt(Exit.BUDGET, f"{text}. The same command without --pilot asks for them")


def both(one: Listener, other: Listener) -> Listener:
    """Return a listener that tells two."""

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

"""A provider that plays a script and a store in memory: the engine's two neighbours, without wire and disk."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pipeline.model import Answer, Artifact, Billed, Digests, Due, Failure, Fault, Image, Reply, Task, TaskState, Usage

PRICE = 40_000
BILLED = {
    Fault.SILENCE: Billed.MAYBE,
    Fault.OTHER: Billed.MAYBE,
    Fault.REFUSED: Billed.YES,
    Fault.NO_IMAGE: Billed.YES,
    Fault.BROKEN: Billed.YES,
    Fault.LINK: Billed.YES,
}


def task(task_id: str = "job/a", **fields: object) -> Task:
    job, _, row = task_id.partition("/")
    digests = Digests("p", "i", "g", "m")
    known = {"prompt": "a mug", "model": "m", "name": task_id, "fingerprint": "f" * 64, "digests": digests}
    return Task(id=task_id, job=job, row=row, variant=1, **{**known, **fields})  # type: ignore[arg-type]


def due(*ids: str, unknowns: int = 0) -> list[Due]:
    return [Due(task=task(task_id), reason="new", unknowns=unknowns) for task_id in ids]


def failure(fault: Fault, hint_s: float | None = None) -> Failure:
    return Failure(fault=fault, billed=BILLED.get(fault, Billed.NO), reason=f"it was {fault}", hint_s=hint_s)


IMAGE = Image(data=b"png", sha256="0" * 64, mime="image/png", suffix=".png", width=1, height=1)
ANSWER = Answer(image=IMAGE)


@dataclass
class FakeProvider:
    """Answers each task with its next scripted outcome; without a script, with an image. `hold` keeps answers back."""

    script: dict[str, list[Fault | Failure | Exception]] = field(default_factory=dict)
    always: Fault | None = None
    hold: asyncio.Event | None = None
    answer: Answer = ANSWER
    sent: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def send(self, task: Task) -> Reply | Failure:
        self.sent.append(task.id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (self.hold.wait() if self.hold else asyncio.sleep(0))
        finally:
            self.in_flight -= 1
        steps = self.script.get(task.id, [])
        step = steps.pop(0) if steps else self.always
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Failure):
            return step
        if step is not None:
            return failure(step)
        return Reply(status=200, headers=(), body=b"", is_first=False, seconds=0.0)

    def read(self, reply: Reply, task: Task) -> Answer | Failure:
        return self.answer


@dataclass
class Intent:
    attempt: int
    number: int


@dataclass
class FakeStore:
    """Remembers what it was told, in order. `broken` is raised by publish."""

    broken: Exception | None = None
    log: list[tuple[str, object]] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    states: dict[int, TaskState] = field(default_factory=dict)
    unknown_microusd: int = 0
    free: int = 2**40

    async def free_bytes(self) -> int:
        return self.free

    async def intend(self, task: Task, *, run: int, reserved_microusd: int | None) -> Intent:
        self.numbers[task.id] += 1
        self.log.append(("intend", task.id))
        return Intent(len(self.log), self.numbers[task.id])

    async def publish(
        self, task: Task, attempt: int, answer: Answer, *, cost_microusd: int, seconds: float
    ) -> Artifact:
        if self.broken is not None:
            raise self.broken
        await asyncio.sleep(0)
        self.log.append(("publish", task.id))
        return Artifact(
            path=f"{task.name}.png", sha256="0" * 64, mime="image/png", width=1, height=1, size_bytes=3, mtime_ns=0
        )

    async def close(
        self,
        attempt: int,
        failure: Failure,
        *,
        state: TaskState,
        cost_microusd: int,
        unknown_microusd: int,
        seconds: float,
    ) -> None:
        self.log.append(("close", failure.fault))
        self.states[attempt] = state
        self.unknown_microusd += unknown_microusd

    async def release(self, states: Collection[TaskState], ids: Collection[str]) -> int:
        self.log.append(("release", sorted(ids)))
        return len(ids)

    def published(self) -> Iterable[object]:
        return [what for verb, what in self.log if verb == "publish"]


class FakePrices:
    """Every image costs the same."""

    def price(self, model: str, size: str | None) -> int | None:
        return PRICE

    def settle(self, model: str, size: str | None, usage: Usage | None) -> int | None:
        return None

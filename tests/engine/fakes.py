"""A sender that plays a script and a ledger in memory: the engine's two neighbours, without wire and disk."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pipeline.model import Artifact, Attempt, Billed, Digests, Due, Failure, Fault, Task, TaskState, Usage

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


def artifact(name: str = "job/a", **fields: object) -> Artifact:
    known = {"path": f"{name}.png", "sha256": "0" * 64, "mime": "image/png", "width": 1, "height": 1}
    return Artifact(**{**known, "size_bytes": 3, "mtime_ns": 0, **fields})  # type: ignore[arg-type]


def unpublished(fault: Fault) -> Failure:
    """Return the failure of an image that was paid for and has no final name."""
    said = {"storage_error": "no space left"} if fault is Fault.STORAGE else {"kept": "x"}
    return Failure(fault=fault, billed=Billed.YES, reason="no space left", image_sha256="0" * 64, **said)  # type: ignore[arg-type]


@dataclass
class FakeSender:
    """Ends each attempt with the task's next scripted outcome; without a script, with an image.

    `hold` keeps answers back; `abandon` lets them go as silence.
    """

    script: dict[str, list[Fault | Failure | Artifact | Exception | None]] = field(default_factory=dict)
    always: Fault | Failure | None = None
    hold: asyncio.Event | None = None
    sent: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    _abandoned: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, attempt: Attempt) -> Artifact | Failure:
        task = attempt.task
        self.sent.append(task.id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._answer()
        finally:
            self.in_flight -= 1
        if self._abandoned.is_set():
            return failure(Fault.SILENCE)
        steps = self.script.get(task.id, [])
        step = steps.pop(0) if steps else self.always
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Failure | Artifact):
            return step
        return artifact(task.name) if step is None else failure(step)

    def abandon(self) -> None:
        self._abandoned.set()

    async def _answer(self) -> None:
        if self.hold is None:
            await asyncio.sleep(0)
            return
        waits = [asyncio.ensure_future(event.wait()) for event in (self.hold, self._abandoned)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


@dataclass
class FakeLedger:
    """Remembers what was recorded, in order."""

    log: list[tuple[str, object]] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    states: dict[int, TaskState] = field(default_factory=dict)
    unknown_microusd: int = 0
    free: int = 2**40

    async def free_bytes(self) -> int:
        return self.free

    async def begin(self, task: Task, *, run: int, reserved_microusd: int | None) -> Attempt:
        self.numbers[task.id] += 1
        self.log.append(("begin", task.id))
        return Attempt(id=len(self.log), number=self.numbers[task.id], task=task)

    async def finish(self, attempt: Attempt, artifact: Artifact, *, cost_microusd: int, seconds: float) -> None:
        await asyncio.sleep(0)
        self.log.append(("finish", attempt.task.id))

    async def close(
        self,
        attempt: Attempt,
        failure: Failure,
        *,
        state: TaskState,
        cost_microusd: int,
        unknown_microusd: int,
        seconds: float,
    ) -> None:
        self.log.append(("close", failure.fault))
        self.states[attempt.id] = state
        self.unknown_microusd += unknown_microusd

    def finished(self) -> Iterable[object]:
        return [what for verb, what in self.log if verb == "finish"]

    async def fail(self, ids: Collection[str]) -> int:
        self.log.append(("fail", sorted(ids)))
        return len(ids)


class FakePrices:
    """Every image costs the same."""

    def reserve(self, task: Task) -> int | None:
        return PRICE

    def settle(self, task: Task, usage: Usage | None) -> int | None:
        return None

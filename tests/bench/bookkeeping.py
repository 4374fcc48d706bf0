"""What a task costs besides its bytes: the ledger's rows, and the engine's own turns. Each in a process of its own.

    python -m tests.bench.bookkeeping ledger|images|engine TASKS IN_FLIGHT FOLDER

ledger   intents and ends of attempts without an image, through the real store
images   intents and tiny images, through the real store: two commits, a file, a link and two syncs each
engine   the real engine between a sender and a ledger that keep nothing
"""

import asyncio
import json
import resource
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path

from pipeline.engine.halt import HaltPolicy
from pipeline.engine.run import Engine
from pipeline.engine.throttle import Gate, Throttle
from pipeline.engine.wallet import Wallet
from pipeline.model import (
    Answer,
    Artifact,
    Attempt,
    Billed,
    Digests,
    Due,
    Failure,
    Fault,
    Image,
    Task,
    TaskState,
    Usage,
)
from pipeline.settings import Budget, Limits, Retry
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from tests.bench import child
from tests.bench.figures import Figure

_DIGITS = "0" * 16


def tasks(count: int) -> Iterator[Task]:
    """Yield `count` tasks of a common shape."""
    digests = Digests(prompt=_DIGITS, inputs=_DIGITS, params=_DIGITS, model="bench")
    for number in range(count):
        yield Task(
            id=f"noise/n{number:07}",
            job="noise",
            row=f"n{number:07}",
            variant=1,
            prompt=f"a picture of noise, number {number}",
            model="bench",
            name=f"noise/n{number:07}",
            fingerprint=f"{number:064x}",
            digests=digests,
        )


def answer(number: int) -> Answer:
    """Return a tiny image; the store does not look into it."""
    data = b"\x89PNG" + number.to_bytes(8, "big")
    return Answer(image=Image(data=data, sha256=f"{number:064x}", mime="image/png", suffix=".png", width=1, height=1))


async def _ledger(count: int, in_flight: int, folder: Path) -> None:
    nothing = Failure(fault=Fault.OUTAGE, billed=Billed.NO, reason="HTTP 503")

    async def one(store: Store, run: int, task: Task, _number: int) -> None:
        attempt = await store.begin(task, run=run, reserved_microusd=40_000)
        await store.close(attempt, nothing, state=TaskState.PENDING, cost_microusd=0, unknown_microusd=0, seconds=1.0)

    await _through_store(count, in_flight, folder, one)


async def _images(count: int, in_flight: int, folder: Path) -> None:
    async def one(store: Store, run: int, task: Task, number: int) -> None:
        attempt = await store.begin(task, run=run, reserved_microusd=40_000)
        artifact = await store.images.put(attempt, answer(number))
        assert isinstance(artifact, Artifact)
        await store.finish(attempt, artifact, cost_microusd=40_000, seconds=1.0)

    await _through_store(count, in_flight, folder, one)


async def _through_store(
    count: int, in_flight: int, folder: Path, one: Callable[[Store, int, Task, int], Awaitable[None]]
) -> None:
    (folder / "state").mkdir(parents=True)
    (folder / "out").mkdir()
    store = await Store.open(
        StoreSettings(
            output_dir=folder / "out",
            state_dir=folder / "state",
            manifest="bench",
            is_play_money=False,
            reserve_bytes=0,
        )
    )
    run = await store.begin_run(manifest_sha256="0" * 64)
    stream = enumerate(tasks(count))

    async def worker() -> None:
        for number, task in stream:
            await one(store, run, task, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    await store.aclose()


class _Sender:
    """Brings an image at once."""

    async def send(self, attempt: Attempt) -> Artifact | Failure:
        await asyncio.sleep(0)
        sha256 = attempt.task.fingerprint[::-1]  # of another image each: its beginning counts
        return Artifact(path="a.png", sha256=sha256, mime="image/png", width=1, height=1, size_bytes=1, mtime_ns=1)

    def abandon(self) -> None:
        raise NotImplementedError


class _Ledger:
    """Takes everything."""

    async def free_bytes(self) -> int:
        return 2**40

    async def begin(self, task: Task, *, run: int, reserved_microusd: int | None) -> Attempt:
        await asyncio.sleep(0)
        return Attempt(id=1, number=1, task=task)

    async def finish(self, _attempt: Attempt, _artifact: Artifact, **_: object) -> None:
        await asyncio.sleep(0)

    async def close(self, _attempt: Attempt, _failure: Failure, **_: object) -> None:
        raise NotImplementedError

    async def fail(self, _ids: Collection[str]) -> int:
        raise NotImplementedError


class _Prices:
    def reserve(self, _task: Task) -> int:
        return 40_000

    def settle(self, _task: Task, _usage: Usage | None) -> int | None:
        return None


async def _engine(count: int, in_flight: int, _folder: Path) -> None:
    limits = Limits(concurrency=in_flight)
    engine = Engine(
        run=1,
        sender=_Sender(),
        ledger=_Ledger(),
        prices=_Prices(),
        gate=Gate(Throttle(limits)),
        wallet=Wallet(Budget(run=10**15)),
        policy=HaltPolicy(),
        limits=limits,
        retry=Retry(),
        listen=lambda _event: None,
    )
    counts = await engine.run(Due(task=task, reason="new") for task in tasks(count))
    assert counts.images == count


def measured(scratch: Path, disk: Path, *, tasks: int) -> Iterator[Figure]:
    """Run each of the three in a child process, in memory and on disk."""
    goals = {"engine": 0.4}
    for what, folder, where in (
        ("engine", scratch, "no disk"),
        ("ledger", scratch, "in memory"),
        ("ledger", disk, "on disk"),
        ("images", scratch, "in memory"),
        ("images", disk, "on disk"),
    ):
        place = folder / "books"
        shutil.rmtree(place, ignore_errors=True)
        used = child.run("-m", "tests.bench.bookkeeping", what, str(tasks), "256", str(place), scratch=scratch)
        shutil.rmtree(place, ignore_errors=True)
        assert used.exit == 0, used.errors
        said = used.said
        yield Figure(f"{what}, {where}: CPU a task", said["cpu_s"] / tasks * 1000, "ms", goals.get(what))
        goal = 5000 if (what, where) == ("ledger", "in memory") else None
        yield Figure(f"{what}, {where}: tasks", tasks / said["seconds"], "a second", goal, is_least=True)


def main(what: str, count: str, in_flight: str, folder: str) -> None:
    """Run one of the three and print what a task cost."""
    work = {"ledger": _ledger, "images": _images, "engine": _engine}[what]
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    asyncio.run(work(int(count), int(in_flight), Path(folder)))
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"tasks": int(count), "seconds": seconds, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main(*sys.argv[1:])

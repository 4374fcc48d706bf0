"""A store on a real directory, opened as often as a test likes."""

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.model import Artifact, Task
from pipeline.store.reader import LedgerReader
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from pipeline.store.writer import part_name
from tests.store.fakes import PRICE, SHA, answer, publish


class Bench:
    """One state and output directory, and the store that is open in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        self.state = root / "state"
        self.warnings: list[str] = []
        self.run = 0

    async def open(self, **options: Any) -> Store:
        """Open, recover and begin a run."""
        options = {"reserve_bytes": 0, "warn": self.warnings.append, "mountinfo": lambda: ""} | options
        fixed = {"manifest": "m", "is_play_money": False, "output_dir": self.out, "state_dir": self.state}
        self.store = await Store.open(StoreSettings(**fixed | options))
        self.recovery = await self.store.recover()
        self.run = await self.store.begin_run(manifest_sha256=SHA)
        return self.store

    async def make(self, task: Task, number: int = 0, suffix: str = ".png", cost: int = PRICE) -> Artifact:
        """Ask for a task and publish its image."""
        intent = await self.store.begin(task, run=self.run, reserved_microusd=PRICE)
        return await publish(self.store, intent, answer(number, suffix), cost_microusd=cost, seconds=1.5)

    def part_name(self, attempt: int, sha256: str) -> str:
        """Return the name of a part of this ledger."""
        with self.reader() as reader:
            return part_name(str(reader.ledger_id), attempt, sha256)

    def reader(self, manifest: str = "m") -> LedgerReader:
        return LedgerReader(self.state, manifest=manifest, output_dir=self.out)


Reopen = Callable[..., Awaitable[Store]]


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A directory in memory where there is one, for tests that open hundreds of stores: a sync costs nothing there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None, prefix="imgpipe-") as name:
        yield Path(name)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """An open store; `reopen` closes it and starts anew."""
    bench = Bench(tmp_path)
    async with AsyncExitStack() as stack:
        await bench.open()
        stack.push_async_callback(lambda: bench.store.aclose())
        yield bench


@pytest.fixture
def reopen(bench: Bench) -> Reopen:
    async def again(**options: Any) -> Store:
        await bench.store.aclose()
        return await bench.open(**options)

    return again

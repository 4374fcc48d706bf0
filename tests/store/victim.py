"""A process meant to die: makes images until a failpoint kills it. Run `python -m tests.store.victim ROOT COUNT`."""

import asyncio
import sys
from pathlib import Path

from pipeline.store.lock import StateLock
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from tests.store.fakes import PRICE, SHA, answer, publish, task


async def main(root: Path, count: int) -> None:
    options = {"output_dir": root / "out", "state_dir": root / "state", "manifest": "m", "is_play_money": False}
    with StateLock(root / "state"):
        store = await Store.open(StoreSettings(**options, reserve_bytes=0))
        await store.recover()
        run = await store.begin_run(manifest_sha256=SHA)

        async def make(number: int) -> None:
            wanted = task(number)
            intent = await store.begin(wanted, run=run, reserved_microusd=PRICE)
            with (root / "requests").open("a") as bill:
                bill.write(f"{number}\n")
            await publish(store, intent, answer(number), cost_microusd=PRICE, seconds=1)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(make(number))
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

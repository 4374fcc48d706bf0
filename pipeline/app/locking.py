"""Opens the store of a manifest under its lock, for the length of a block.

Not part of `context`, which opens nothing: every verb that only reads does without this module.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Final

from pipeline.app.context import Setup
from pipeline.app.sidecars import sidecars_of
from pipeline.errors import TryLater
from pipeline.store.lock import StateLock
from pipeline.store.store import Store

POLL_S: Final = 0.1


@asynccontextmanager
async def open_store(
    setup: Setup, *, lock: StateLock | None = None, check: Callable[[Setup], None] = lambda _: None
) -> AsyncIterator[Store]:
    """Hold the lock and the open store. `check` may refuse when the lock is held and nothing is open yet.

    `lock`: one that was taken before; it is let go of as well. If its directory was removed since, it is worth nothing.
    Raises TryLater: another run has the lock. InputError, StorageError, LedgerError.
    """
    if lock is None or lock.state_dir != setup.manifest.state_dir or not lock.is_standing:
        lock = await _locked(setup)
    try:
        check(setup)
        store = await _finished(_open(setup))
        try:
            yield store
        finally:
            await store.aclose()
    finally:
        lock.release()


async def _locked(setup: Setup) -> StateLock:
    """Take the lock; wait for it as long as was asked. Waiting can be cancelled."""
    deadline = time.monotonic() + setup.flags.wait_lock_s
    while True:
        lock = StateLock(setup.manifest.state_dir)
        try:
            lock.acquire()  # it does not wait
        except TryLater:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(POLL_S)
        else:
            return lock


async def _open(setup: Setup) -> Store:
    manifest = setup.manifest
    return await Store.open(
        output_dir=manifest.output_dir,
        state_dir=manifest.state_dir,
        manifest=manifest.name,
        is_play_money=setup.is_play_money,
        force=setup.flags.force,
        beside=sidecars_of(setup),
    )


async def _finished(opening: Coroutine[object, object, Store]) -> Store:
    """Await the store; when cancelled, only after it has been opened and closed: until then its lock must be held."""
    task = asyncio.create_task(opening, name="open the store")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        store = await task
        await store.aclose()
        raise

"""The store of a manifest, open under its lock, for as long as a block lasts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pipeline.compose.prepare import Setup
from pipeline.store import StateLock, Store


@asynccontextmanager
async def opened(setup: Setup, *, check: Callable[[Setup], None] = lambda _: None) -> AsyncIterator[Store]:
    """Hold the lock and the open store. `check` may refuse when the lock is held and nothing is open yet.

    Raises TryLater: another run has the lock. InputError, StorageError, LedgerError.
    """
    manifest = setup.manifest
    lock = StateLock(manifest.state_dir, wait_s=setup.flags.wait_lock_s)
    await asyncio.to_thread(lock.acquire)
    try:
        check(setup)
        store = await Store.open(
            output_dir=manifest.output_dir,
            state_dir=manifest.state_dir,
            manifest=manifest.name,
            is_play_money=setup.is_play_money,
            force=setup.flags.force,
        )
        try:
            yield store
        finally:
            await store.aclose()
    finally:
        lock.release()

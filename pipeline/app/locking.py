"""Opens the store of a manifest under its lock, for the length of a block, with what makes sidecars and checks images.

Not part of `context`, which opens nothing: every verb that only reads does without this module.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pipeline.app.context import Setup
from pipeline.errors import TryLater
from pipeline.model import Answer, Digests, Image, InputImage, Sidecar, Task
from pipeline.store.lock import StateLock
from pipeline.store.resources import Beside, ImageCheck
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
        check=checks_of(setup),
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


def sidecars_of(setup: Setup) -> Beside:
    """Return what makes the sidecar of an image that recovery or salvage publishes; None where it needs none.

    It is made from the ledger's record of the request: only a sender has the task itself.
    """

    def beside(record: Mapping[str, Any], image: Image) -> Sidecar | None:
        if not record.get("embed"):
            return None
        from pipeline.senders.local import embedded  # asyncio's and Pillow's weight: not for a start that finds nothing

        task = recorded_task(record)
        return embedded(Answer(image=image), task, manifest=setup.manifest.name, at=datetime.now(UTC)).sidecar

    return beside


def checks_of(setup: Setup) -> ImageCheck:
    """Return what checks an image that recovery or salvage publishes, as its request asked. Twins are not found."""

    def check(record: Mapping[str, Any], image: Image) -> tuple[Mapping[str, str], str]:
        task = recorded_task(record)
        if not task.checks.names:
            return {}, ""
        from pipeline.senders.checker import ImageChecker  # late, as above

        state_dir = setup.manifest.state_dir
        images = tuple(msgspec.structs.replace(each, path=str(state_dir / each.path)) for each in task.images)
        with closing(ImageChecker()) as checker:
            return checker.check_now(image, msgspec.structs.replace(task, images=images))

    return check


def recorded_task(record: Mapping[str, Any] | None) -> Task:
    """Return the task as the ledger remembers its request; a bare one where it remembers none."""
    bare = {"id": "", "job": "", "row": "", "variant": 1, "prompt": "", "model": "", "name": "", "fingerprint": ""}
    known: dict[str, Any] = dict(record) if record is not None else dict(bare)
    images = tuple(InputImage(**image, mtime_ns=0) for image in known.pop("images", ()))
    digests = Digests(prompt="", inputs="", params="", model="")
    try:
        task = msgspec.convert({**known, "digests": digests}, Task)
    except msgspec.ValidationError:
        task = msgspec.convert({**bare, "digests": digests}, Task)
    return msgspec.structs.replace(task, images=images)

"""Takes the lock of a manifest, and opens its store under it for the length of a block.

`early_lock` needs neither the checked manifest nor asyncio: of 20 runs that start at once 19 end there after 0.06 s of
CPU each, where imports and manifest would take each of them 0.4 s. So this module imports everything large late.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import InputError, StorageError, TryLater
from pipeline.manifest.location import peek
from pipeline.store.lock import StateLock

if TYPE_CHECKING:
    from pipeline.app.context import Setup
    from pipeline.model import Image, Sidecar, Task
    from pipeline.store.resources import StoreSettings
    from pipeline.store.store import Store

POLL_S: Final = 0.1


@contextmanager
def early_lock(path: Path, *, simulate: bool, wait_lock_s: float) -> Iterator[StateLock | None]:
    """Hold the lock of a manifest for as long as the block lasts, or until the run has let go of it.

    None: it is not known yet where the lock lies, as something may be wrong with the manifest or the directory; or
    somebody has it who is waited for. The run finds out, and takes it by itself. Raises TryLater: another run has it.
    """
    lock, where = None, peek(path, simulate=simulate)
    if where is not None:
        try:
            lock = StateLock(where[1])
            lock.acquire()
        except TryLater:
            if not wait_lock_s:
                raise
            lock = None
        except (InputError, StorageError):  # reported by the run, after what is wrong with the manifest
            lock = None
    try:
        yield lock
    finally:
        if lock is not None:
            lock.release()


@asynccontextmanager
async def open_store(
    setup: "Setup", *, lock: StateLock | None = None, check: "Callable[[Setup], None]" = lambda _: None
) -> "AsyncIterator[Store]":
    """Hold the lock and the open store. `check` may refuse when the lock is held and nothing is open yet.

    `lock`: one that was taken before; it is let go of as well. If its directory was removed since, it is worth nothing.
    Raises TryLater: another run has the lock. InputError, StorageError, LedgerError.
    """
    import asyncio

    from pipeline.store.store import Store

    if lock is None or lock.state_dir != setup.manifest.state_dir or not lock.is_standing:
        lock = await locked(setup.manifest.state_dir, wait_s=setup.flags.wait_lock_s)
    try:
        check(setup)
        # No TaskGroup: one would cancel the task it waits for, and an opened store must not be lost. It is awaited.
        opening = asyncio.create_task(Store.open(store_settings(setup)), name="open the store")
        try:
            yield await asyncio.shield(opening)
        finally:  # also when cancelled while it was being opened: until it is closed, its lock must be held
            await (await opening).aclose()
    finally:
        lock.release()


async def locked(state_dir: Path, *, wait_s: float) -> StateLock:
    """Take the lock of a state directory; wait for it as long as was asked. Waiting can be cancelled.

    Raises TryLater: another run has it. InputError, StorageError.
    """
    import asyncio

    deadline = time.monotonic() + wait_s
    while True:
        lock = StateLock(state_dir)
        try:
            lock.acquire()  # it does not wait
        except TryLater:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(POLL_S)
        else:
            return lock


def store_settings(setup: "Setup") -> "StoreSettings":
    """Return where the store of a manifest lies and how it behaves."""
    from pipeline.store.resources import StoreSettings

    manifest = setup.manifest
    return StoreSettings(
        output_dir=manifest.output_dir,
        state_dir=manifest.state_dir,
        manifest=manifest.name,
        is_play_money=setup.is_play_money,
        force=setup.rules.force,
        beside=partial(_sidecar, manifest.name),
        check=partial(_checked, manifest.state_dir),
    )


def _sidecar(manifest: str, record: Mapping[str, Any], image: "Image") -> "Sidecar | None":
    """Return the sidecar of an image that recovery or salvage publishes; None where it needs none.

    It is made from the ledger's record of the request: only a sender has the task itself.
    """
    if not record.get("embed"):
        return None
    from pipeline.model import Answer
    from pipeline.senders.local import embedded  # asyncio's and Pillow's weight: not for a start that finds nothing

    return embedded(Answer(image=image), recorded_task(record), manifest=manifest, at=datetime.now(UTC)).sidecar


def _checked(state_dir: Path, record: Mapping[str, Any], image: "Image") -> tuple[Mapping[str, str], str]:
    """Return what is wrong with an image that recovery or salvage publishes, by check, and its perceptual hash.

    Checked is what its request asked for. Twins are not found.
    """
    task = recorded_task(record)
    if not task.checks.names:
        return {}, ""
    import msgspec

    from pipeline.senders.checker import ImageChecker

    images = tuple(msgspec.structs.replace(each, path=str(state_dir / each.path)) for each in task.images)
    with closing(ImageChecker()) as checker:
        return checker.check_now(image, msgspec.structs.replace(task, images=images))


def recorded_task(record: Mapping[str, Any] | None) -> "Task":
    """Return the task as the ledger remembers its request; a bare one where it remembers none."""
    import msgspec

    from pipeline.model import Digests, InputImage, Task

    bare = {"id": "", "job": "", "row": "", "variant": 1, "prompt": "", "model": "", "name": "", "fingerprint": ""}
    known: dict[str, Any] = dict(record) if record is not None else dict(bare)
    images = tuple(InputImage(**image, mtime_ns=0) for image in known.pop("images", ()))
    digests = Digests(prompt="", inputs="", params="", model="")
    try:
        task = msgspec.convert({**known, "digests": digests}, Task)
    except msgspec.ValidationError:
        task = msgspec.convert({**bare, "digests": digests}, Task)
    return msgspec.structs.replace(task, images=images)

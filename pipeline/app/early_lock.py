"""Takes the lock of a manifest before the manifest is checked and anything large is imported.

Not part of `locking`, because it imports neither asyncio nor another module of this package: of 20 runs that start at
once 19 end here after 0.06 s of CPU each, where imports and manifest would take each of them 0.4 s.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError, StorageError, TryLater
from pipeline.manifest.location import peek
from pipeline.store.lock import StateLock


@contextmanager
def early_lock(path: Path, *, simulate: bool, wait_lock_s: float) -> Iterator[StateLock | None]:
    """Hold the lock of a manifest for as long as the block lasts, or until the run has let go of it.

    None: it is not known yet where the lock lies, as something may be wrong with the manifest or the directory; or
    somebody has it who is waited for. The run finds out, and takes it by itself. Raises TryLater: another run has it.
    """
    lock = _taken(path, simulate=simulate, is_patient=wait_lock_s > 0)
    try:
        yield lock
    finally:
        if lock is not None:
            lock.release()


def _taken(path: Path, *, simulate: bool, is_patient: bool) -> StateLock | None:
    where = peek(path, simulate=simulate)
    if where is None:
        return None
    lock = StateLock(where[1])
    try:
        lock.acquire()
    except TryLater:
        if is_patient:
            return None
        raise
    except (InputError, StorageError):  # reported by the run, after what is wrong with the manifest
        return None
    return lock

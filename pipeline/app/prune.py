"""What takes room and is no longer needed: superseded images, answers without an image, images of orphaned tasks.

Read without the lock, removed under it. Never among them: an image in rejected/ that waits to be published, an image
that was edited since, one that the manifest or another one still asks for. What was spent stays in the ledger.
"""

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path

from pipeline.app.context import Setup
from pipeline.app.locking import open_store
from pipeline.app.orphans import Orphans
from pipeline.app.planning import DigestMemory, plan_rows, reading
from pipeline.app.rejected import rejected
from pipeline.buckets import Locations
from pipeline.manifest.expand import Expansion
from pipeline.model import Artifact, is_object
from pipeline.store.maintenance import Maintenance, superseded_images
from pipeline.store.rejected import FACTS


class PrunableKind(StrEnum):
    """What may be removed."""

    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    ORPHANS = "orphans"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prunable:
    """One file or object that may go, with what lies beside it. `task` is the orphan's id."""

    kind: PrunableKind
    location: str
    size_bytes: int
    at: datetime  # when it was written
    task: str | None = None


async def prune(setup: Setup, kinds: Collection[PrunableKind], *, older_s: float, is_done: bool) -> list[Prunable]:
    """Return what is older than `older_s`; remove it where `is_done`. Raises InputError, TryLater, StorageError."""
    before = datetime.now(UTC) - timedelta(seconds=older_s)
    if not is_done:
        return _found(setup, kinds, before)
    async with open_store(setup) as store:
        await store.recover()  # what waits to be published is, before anything goes
        found = _found(setup, kinds, before)
        for each in found:
            await store.maintain(partial(_remove, each))
    return found


def _found(setup: Setup, kinds: Collection[PrunableKind], before: datetime) -> list[Prunable]:
    walks = {PrunableKind.SUPERSEDED: _superseded, PrunableKind.REJECTED: _rejected, PrunableKind.ORPHANS: _orphans}
    return [each for kind in PrunableKind if kind in kinds for each in walks[kind](setup) if each.at < before]


def _superseded(setup: Setup) -> Iterator[Prunable]:
    manifest = setup.manifest
    with reading(setup) as reader:
        for each in superseded_images(manifest.output_dir, manifest.state_dir, ledger_id=reader.ledger_id):
            if reader.is_made_elsewhere(each.attempt):
                continue
            yield Prunable(kind=PrunableKind.SUPERSEDED, location=each.location, size_bytes=each.size_bytes, at=each.at)


def _rejected(setup: Setup) -> Iterator[Prunable]:
    for kept in rejected(setup):
        if kept.facts is not None and not kept.facts.is_image:
            yield _prunable(PrunableKind.REJECTED, kept.path)


def _orphans(setup: Setup) -> Iterator[Prunable]:
    """Yield the images of tasks that the manifest no longer has, of jobs whose tasks are all known now.

    An image that a renamed task will take over is asked for.
    """
    locations = Locations()
    with reading(setup) as reader:
        ended, orphans = list[Expansion](), Orphans(setup.manifest, reader)
        rows = plan_rows(setup, reader, DigestMemory(reader), on_end=ended.append)
        present = {each for row in orphans.watch(rows) for each in (row.task.id, row.verdict.former)}
        jobs = orphans.counted(*ended)
        for known in reader.orphans(present):
            record = reader.record(known.id)
            if known.artifact is None or record is None or record["job"] not in jobs:
                continue
            if len(reader.makers(path=known.artifact.path)) == 1:
                yield from _as_recorded(known.id, known.artifact, setup.manifest.location_of(known.artifact), locations)


def _as_recorded(task: str, artifact: Artifact, location: str, locations: Locations) -> Iterator[Prunable]:
    """Yield an image that is as it was recorded."""
    if is_object(location):
        bucket, name = locations.find(location)
        found = bucket.head(name)
        if found is not None and (found.size_bytes, found.version) == (artifact.size_bytes, artifact.mtime_ns):
            yield Prunable(
                kind=PrunableKind.ORPHANS,
                location=location,
                size_bytes=found.size_bytes,
                at=found.written_at,
                task=task,
            )
        return
    path = Path(location)
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            is_same = hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
        if is_same:
            yield _prunable(PrunableKind.ORPHANS, path, task=task)


def _prunable(kind: PrunableKind, path: Path, *, task: str | None = None) -> Prunable:
    status = path.lstat()
    at = datetime.fromtimestamp(status.st_mtime, UTC)
    return Prunable(kind=kind, location=str(path), size_bytes=status.st_size, at=at, task=task)


def _remove(each: Prunable, maintenance: Maintenance) -> None:
    if each.task is not None:
        maintenance.forget_image(each.task)
        return
    if is_object(each.location):
        bucket, name = Locations().find(each.location)
        bucket.delete(name)
        return
    for path in (each.location, each.location + FACTS):
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()

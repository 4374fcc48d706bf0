"""The verbs of maintenance: verify, rebuild, rejected, settle, prune. None of them sends a paid request.

- verify hashes every image again and compares it with the ledger. It reads only, also beside a run
- rebuild makes a new ledger from the images on disk and what can be read of the old ledger
- rejected lists the answers in `rejected/`; with `--salvage` it parses them again with this version. A kept
  answer is removed only when its image has its task's name
- settle records what the provider's support said of unknown requests: billed, or free
- prune removes superseded images, answers without an image and images of orphaned tasks; never an image that waits to
  be published, one that was edited since, or one that any manifest still asks for. What was spent stays in the ledger

What changes something does so under the lock.
"""

import hashlib
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.app.context import Setup
from pipeline.app.locking import open_store, recorded_task, store_settings
from pipeline.app.orphans import Orphans
from pipeline.app.planning import PRESENT, file_view, plan_rows, reading, upstream_of
from pipeline.buckets import Locations, as_input_error
from pipeline.errors import Exit, InputError, StorageError
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.model import IMAGE_SUFFIXES, Artifact, BucketUrl, Due, Failure, Image, Reply, Task, is_object
from pipeline.plan.decide import FileView
from pipeline.plan.plan import Spool
from pipeline.provider.catalogue import PriceList
from pipeline.report.folder import is_thumbnail
from pipeline.store import integrity
from pipeline.store import rebuild as ledger_rebuild
from pipeline.store.integrity import Verification
from pipeline.store.lock import StateLock
from pipeline.store.maintenance import Maintenance, superseded_images
from pipeline.store.reader import LedgerReader
from pipeline.store.rebuild import Rebuilt
from pipeline.store.rejected import FACTS, Rejected, list_rejected
from pipeline.store.rows import Unknown

if TYPE_CHECKING:
    from pipeline.provider.responses import AnswerReader


def verify(setup: Setup, *, decode: bool = False, is_quick: bool = False) -> tuple[Verification, Exit]:
    """Hash every image again; `decode` reads its pixels too, `is_quick` only what differs.

    The exit code: all well, or something for a person to do; images without any ledger are one such thing. Images of
    orphans may be missing: nothing asks for them.

    Raises LedgerError, TryLater; of a bucket InputError, StorageError.
    """
    manifest = setup.manifest
    found = integrity.verify_images(
        output_dir=manifest.output_dir,
        state_dir=manifest.state_dir,
        manifest=manifest.name,
        decode=decode,
        is_quick=is_quick,
    )
    found.unrecorded = [path for path in found.unrecorded if not is_thumbnail(path)]
    if found.missing:
        unwanted = set(_orphaned_paths(setup))
        missing = [path for path in found.missing if path not in unwanted]
        found.checked -= len(found.missing) - len(missing)
        found.missing = missing
    is_well = found.is_sound and (found.has_ledger or not found.unrecorded)
    return found, Exit.OK if is_well else Exit.SOME_FAILED


def _orphaned_paths(setup: Setup) -> Iterator[str]:
    """Yield the images of tasks that the manifest no longer has, as far as its rows can be read."""
    with reading(setup) as reader, suppress(InputError, StorageError):
        orphans = Orphans(setup.manifest, reader)
        rows = orphans.watch(plan_rows(setup, reader, on_end=orphans.ended.append, files=FileView()))
        ids, paths = set[str](), set[str]()
        for row in rows:
            ids |= {row.task.id, row.verdict.former}
            if row.known is not None and row.known.artifact is not None:
                paths.add(row.known.artifact.path)
        for known in reader.orphans(ids):
            path = None if known.artifact is None else known.artifact.path
            if path is not None and path not in paths and known.id.partition("/")[0] not in orphans.unsure:
                yield path


def rebuild(setup: Setup) -> Rebuilt:
    """Make or complete the ledger from the files of the manifest's tasks; no image is touched.

    The manifest is read to its end before anything is changed: a mistake in it leaves all as it was. A job that takes
    another one's images is read when those are known again. Raises InputError, LedgerError, StorageError, TryLater.
    """
    manifest, prices = setup.manifest, PriceList(setup.catalogue)

    def price(task: Task) -> int | None:  # what an image without a recorded purchase counts
        return quote.least if (quote := prices.quote(task)) is not None else None

    url = manifest.output_dir if isinstance(manifest.output_dir, BucketUrl) else None
    with (
        nullcontext() if url is None else as_input_error(url),
        StateLock(manifest.state_dir, wait_s=setup.flags.wait_lock_s),
        closing(_stages(setup)) as stages,
    ):
        return ledger_rebuild.rebuild_ledger(store_settings(setup), stages, price=price)


def _stages(setup: Setup) -> Generator[Iterator[Task], None, None]:
    """Yield the tasks of each stage, once all of them are read."""
    for number, names in enumerate(setup.manifest.stages):
        with closing(Spool(setup.manifest.state_dir)) as spool:
            for task in _tasks(setup, names, is_first=number == 0):
                spool.add(Due(task=task, reason=""))
            yield (due.task for due in spool)


def _tasks(setup: Setup, names: tuple[str, ...], *, is_first: bool) -> Iterator[Task]:
    """Read the tasks of one stage; the ledger is asked only from the second one on, when it can be trusted again."""
    if is_first:
        yield from Expansion(setup.manifest, digests=read_digest, jobs=names)
        return
    with reading(setup) as reader:
        files = file_view(setup.manifest.output_dir, reader)
        yield from Expansion(
            setup.manifest,
            digests=read_digest,
            jobs=names,
            upstream=lambda job: upstream_of(setup, reader, read_digest, job, files),
        )


def rejected(setup: Setup) -> list[Rejected]:
    """Return the answers of this manifest that could not be published, oldest first; those of no known task too."""
    manifest = setup.manifest
    kept = list_rejected(manifest.state_dir)
    return [each for each in kept if each.facts is None or each.facts.manifest == manifest.name]


@dataclass(slots=True, kw_only=True)
class Salvaged:
    """What was done. `left` says of each other body why it stays."""

    published: list[str] = field(default_factory=list)  # task ids
    left: list[str] = field(default_factory=list)


async def salvage(setup: Setup) -> Salvaged:
    """Read every kept body of this manifest again, under the lock. Raises TryLater, StorageError, LedgerError."""
    from pipeline.provider.redact import Redactor  # late, as in `_read_again`: only this verb reads answers
    from pipeline.provider.responses import AnswerReader

    salvaged = Salvaged()
    async with open_store(setup) as store:
        recovery = await store.recover()
        salvaged.left += recovery.notes
        with reading(setup) as reader:
            answers = AnswerReader(Redactor(""), setup.catalogue)
            for kept in rejected(setup):
                image = _read_again(kept, setup, reader, answers)
                if isinstance(image, str):
                    salvaged.left.append(f"{kept.name}: {image}")
                    continue
                found = await store.maintain(partial(Maintenance.publish_again, kept=kept, image=image))
                if found.recovered and kept.facts is not None:
                    salvaged.published.append(kept.facts.task)
                else:
                    reason = "its task has another image, or asks for another one"
                    salvaged.left += found.notes or [f"{kept.name}: {reason}"]
    return salvaged


def _read_again(kept: Rejected, setup: Setup, reader: LedgerReader, answers: "AnswerReader") -> Image | str:
    """Return the image of a body, or why there is none."""
    from pipeline.imaging.formats import BrokenImageError, inspect
    from pipeline.senders.local import embedded

    if kept.facts is None:
        return "nothing is known of it"
    data = kept.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != kept.sha256:
        return "it was changed since it was kept"
    if kept.suffix in IMAGE_SUFFIXES:
        try:
            return inspect(data)
        except BrokenImageError as flaw:
            return str(flaw)
    status = 200 if kept.facts.status is None else kept.facts.status
    reply = Reply(status=status, headers=(), body=data, is_first=False, seconds=0.0)
    task = recorded_task(reader.record(kept.facts.task))
    result = answers.read(reply, task)
    if isinstance(result, Failure):
        return result.reason
    if task.embed:
        result = embedded(result, task, manifest=setup.manifest.name, at=datetime.now(UTC))
    return result.image


async def settle(setup: Setup, names: Sequence[str], *, is_billed: bool) -> list[Unknown]:
    """Write down how unknown requests ended, under the lock; `names` empty: all of this manifest. Return them.

    A name is a request id, a task's id (all its unknowns), `ID#N` for its attempt N, or N alone where one task has it.
    Raises InputError for a name that means none or several, TryLater, StorageError, LedgerError.
    """
    async with open_store(setup) as store:
        await store.recover()
        with reading(setup) as reader:
            unknowns = reader.unknowns()
        meant = [each for name in names for each in _meant(setup, name, unknowns)] if names else unknowns
        found = {each.attempt: each for each in meant}
        await store.maintain(partial(Maintenance.settle, attempts=list(found), is_billed=is_billed))
    return list(found.values())


def _meant(setup: Setup, name: str, unknowns: Sequence[Unknown]) -> list[Unknown]:
    found = [each for each in unknowns if name in (each.request_id, each.task_id, f"{each.task_id}#{each.number}")]
    if not found and name.isdecimal():
        found = [each for each in unknowns if each.number == int(name)]
        if len({each.task_id for each in found}) > 1:
            example = f"{found[0].task_id}#{found[0].number}"
            raise InputError(f"{len(found)} tasks have an unknown attempt {name}; write {example}")
    if not found:
        instead = "write a request id, a task's id, or ID#N for its attempt N"
        lists = f"`imgpipe status {setup.command}` lists them"
        raise InputError(f"no unknown request is called {name!r}; {lists}; {instead}")
    return found


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
    at: datetime  # when it was written; of a superseded image, when it was replaced
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
            if not reader.is_made_elsewhere(each.attempt):
                size_bytes, kind = each.size_bytes, PrunableKind.SUPERSEDED
                yield Prunable(kind=kind, location=each.location, size_bytes=size_bytes, at=each.at)


def _rejected(setup: Setup) -> Iterator[Prunable]:
    for kept in rejected(setup):
        if kept.facts is not None and not kept.facts.is_image:
            yield _prunable(PrunableKind.REJECTED, kept.path)


def _orphans(setup: Setup) -> Iterator[Prunable]:
    """Yield the images of tasks that the manifest no longer has, of jobs whose tasks are all known now.

    An image that a renamed task will take over is asked for. A job that the manifest has and that is empty keeps its
    images: the drive with its files may not be mounted, its table may be cut.
    """
    with reading(setup) as reader:
        orphans, files = Orphans(setup.manifest, reader), file_view(setup.manifest.output_dir, reader)
        locations = Locations()
        present, empty = set[str](), set(setup.manifest.jobs)
        for row in orphans.watch(plan_rows(setup, reader, on_end=orphans.ended.append, files=files)):
            present |= {row.task.id, row.verdict.former}
            empty.discard(row.task.job)
        jobs = orphans.counted().keys() - empty
        for known in reader.orphans(present):
            record, artifact = reader.record(known.id), known.artifact
            if artifact is None or record is None or record["job"] not in jobs:
                continue
            if len(reader.makers(path=artifact.path)) == 1 and files.compare(artifact) in PRESENT:
                yield from _as_recorded(known.id, artifact, setup.manifest.location_of(artifact), locations)


def _as_recorded(task_id: str, artifact: Artifact, location: str, locations: Locations) -> Iterator[Prunable]:
    """Yield an image that is what was written; it is looked at again and a file read to its end: it will be gone."""
    if is_object(location):
        bucket, name = locations.find(location)
        found = bucket.look(name)
        if found is not None and found.is_as_recorded(artifact):
            size_bytes, at = found.size_bytes, found.written_at
            yield Prunable(kind=PrunableKind.ORPHANS, location=location, size_bytes=size_bytes, at=at, task=task_id)
        return
    path = Path(location)
    with path.open("rb") as file:
        is_same = hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
    if is_same:
        yield _prunable(PrunableKind.ORPHANS, path, task=task_id)


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
        with suppress(FileNotFoundError):
            Path(path).unlink()

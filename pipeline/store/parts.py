"""Part files left by a process that died: found, attributed, and published without a request or kept.

After each the ledger and the disk agree. `recovery` looks for them.
"""

import contextlib
import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.errors import ClosedFolder, Conflict
from pipeline.failpoint import reach
from pipeline.imaging.formats import describe
from pipeline.model import Artifact, Billed, Failure, Fault, Image, TaskState
from pipeline.store import rows
from pipeline.store.files import Disk, FileComparison, Tree, read_all, split, status_of
from pipeline.store.ledger_file import query, to_us
from pipeline.store.rejected import Facts, Rejected
from pipeline.store.resources import StoreResources, StoreSettings
from pipeline.store.writer import PART, Delivery, supersede

_PART: Final = re.compile(re.escape(PART) + r"(?:([0-9a-f]{8})-)?(\d{1,18})-([0-9a-f]{64})")
SLACK_US: Final = 60_000_000  # by which the clocks of a file server and of this machine may differ
LISTED: Final = 20  # notes of one kind; beyond, they are only counted


@dataclass(slots=True, kw_only=True)
class Recovery:
    """What a start found and did."""

    done: int = 0  # tasks of this manifest that have their image
    recovered: int = 0  # images published without a request
    unknown: int = 0  # requests of a dead process whose outcome nobody knows
    unknown_microusd: int = 0
    torn: int = 0  # half-written parts, removed
    foreign: int = 0  # parts this ledger did not write, left
    missing: list[str] = field(default_factory=list)  # ids: done, and the file is gone
    changed: list[str] = field(default_factory=list)  # ids: done, and the file was edited
    conflicts: list[str] = field(default_factory=list)  # ids: an image is kept, its name is taken
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add something a person may want to know."""
        self.notes.append(rows.text(text))


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt a part belongs to, and its task as it stands; the columns of `attempt_record`."""

    attempt: int
    attempt_state: str
    fingerprint: str
    reserved_microusd: int
    cost_microusd: int
    received: str | None  # hash of an image that got its name by a rename
    kept: str | None  # and that name
    number: int
    sent_at: int
    ended_at: int | None
    task: int
    id: str
    manifest: str
    state: TaskState
    asked: str
    name: str
    attempts: int
    maker: int | None
    path: str | None
    sha256: str | None
    mime: str | None
    width: int | None
    height: int | None
    size_bytes: int | None
    mtime_ns: int | None

    @property
    def artifact(self) -> Artifact | None:
        return rows.artifact_of(
            (self.path, self.sha256, self.mime, self.width, self.height, self.size_bytes, self.mtime_ns)
        )

    @property
    def is_latecomer(self) -> bool:
        """Whether a later attempt at the same request has brought the task's image."""
        return self.fingerprint == self.asked and self.maker is not None and self.attempt < self.maker

    @property
    def price_microusd(self) -> int:
        """What the image cost: the settled price, else the one that was reserved."""
        return self.cost_microusd if self.attempt_state in ("ok", "paid") else self.reserved_microusd


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPart:
    """One part on disk, in this or in an earlier output directory."""

    tree: Tree
    folder: str
    name: str
    ledger_id: str | None  # None: the older form, without it
    attempt: int
    sha256: str

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name


def find_parts(
    outputs: Tree, besides: Path, *, foreign: Callable[[str], None], unreadable: Callable[[OSError], None]
) -> Iterator[FoundPart]:
    """Walk an output directory, not `besides` (the state directory) and no links.

    `foreign`: called with the path of a file that is named like a part and is none.
    """
    for folder, folders, names in os.walk(outputs.root, onerror=unreadable):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name != besides]
        relative = "" if here == outputs.root else here.relative_to(outputs.root).as_posix()
        for name in names:
            if not name.startswith(PART):
                continue
            if match := _PART.fullmatch(name):
                yield FoundPart(
                    tree=outputs,
                    folder=relative,
                    name=name,
                    ledger_id=match[1],
                    attempt=int(match[2]),
                    sha256=match[3],
                )
            else:
                foreign(f"{relative}/{name}".lstrip("/"))


def find_part(outputs: Tree, *, ledger_id: str, attempt: int, name: str) -> Image | None:
    """Return the image in the part of an attempt, durable; None: it has none, or one that is not whole."""
    begin = f"{PART}{ledger_id}-{attempt}-"
    with contextlib.suppress(FileNotFoundError), outputs.directory(split(name)[0]) as fd:
        for found in os.listdir(fd):  # noqa: PTH208 - of a descriptor
            if not found.startswith(begin):
                continue
            data = read_all(outputs.disk, found, dir_fd=fd)
            if hashlib.sha256(data).hexdigest() == found.removeprefix(begin):
                make_durable(outputs.disk, found, fd)
                return describe(data)
    return None


def make_durable(disk: Disk, name: str, dir_fd: int) -> None:
    """Sync a file whose bytes are right in memory; whether they are on the disk nobody has said."""
    fd = disk.open(name, dir_fd=dir_fd)
    try:
        disk.fsync(fd)
    finally:
        disk.close(fd)


def attempt_record_of(connection: sqlite3.Connection, attempt: int) -> AttemptRecord | None:
    """Look up whose image an attempt brought; None: not in this ledger."""
    cursor = connection.execute(query("attempt_record"), {"attempt": attempt})
    row = cursor.fetchone()
    if row is None:
        return None
    return msgspec.convert(dict(zip((column[0] for column in cursor.description), row, strict=True)), AttemptRecord)


def _record_of(connection: sqlite3.Connection, record: AttemptRecord) -> dict[str, Any] | None:
    """Return the record of the request that an attempt sent."""
    values = {"manifest": record.manifest, "id": record.id, "fingerprint": record.fingerprint}
    row = connection.execute(query("record_of"), values).fetchone()
    return None if row is None else {**msgspec.json.decode(row[0], type=dict[str, Any]), "fingerprint": row[1]}


def is_named_part(name: str) -> bool:
    """Say whether a file is a part that names the ledger which wrote it."""
    match = _PART.fullmatch(name)
    return match is not None and match[1] is not None


def written_by(part: FoundPart, record: AttemptRecord, ledger_id: str) -> bool:
    """Say whether a part holds the image of this attempt of this ledger.

    The older form has only a number, which another ledger over the same directory gave as well. Such a part counts if
    it lies beside the task's name, is what the attempt is known to have brought, and was written while it lasted.
    """
    if part.ledger_id is not None:
        return part.ledger_id == ledger_id
    if part.folder != split(record.name)[0] or record.received not in (None, part.sha256):
        return False
    with part.tree.directory(part.folder) as fd:
        written_at = part.tree.disk.stat(part.name, dir_fd=fd).st_mtime_ns // 1000
    latest = written_at if record.ended_at is None else record.ended_at
    return record.sent_at - SLACK_US <= written_at <= latest + SLACK_US


def kept_by(kept: Rejected, record: AttemptRecord, ledger_id: str) -> bool:
    """Say whether a kept body answered this attempt of this ledger; the older form says whose it was in its facts."""
    if kept.ledger_id is not None:
        return kept.ledger_id == ledger_id
    if kept.facts is None:
        return record.received == kept.sha256
    return (kept.facts.manifest, kept.facts.task) == (record.manifest, record.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an image was found: one of the two."""

    part: FoundPart | None = None
    rejected: str | None = None


class Salvager:
    """Settles images one by one, and keeps account in a `Recovery`."""

    def __init__(self, resources: StoreResources, settings: StoreSettings, *, recovery: Recovery) -> None:
        self._ledger = resources.ledger
        self._ledger_id = resources.ledger_id
        self._writer = resources.writer
        self._rejected = resources.rejected
        self._state = resources.state
        self._outputs = resources.outputs
        self._clock = settings.clock
        self._beside = settings.beside
        self._check = settings.check
        self._recovery = recovery

    def settle(self, record: AttemptRecord, image: Image, source: Source) -> None:
        """Publish an image that is whole, or put it where it can be found when its task has moved on."""
        if record.state is TaskState.DONE and record.artifact is not None:
            is_same = record.sha256 == image.sha256
            match self._writer.compare(record.artifact):
                case FileComparison.MISSING if is_same:
                    pass  # its file was removed: the part is the image
                case FileComparison.SAME | FileComparison.TOUCHED if is_same:
                    self._drop(source)
                    return
                case _ if record.is_latecomer:
                    self._reject(record, image, source)
                    return
                case _:
                    self._set_aside(record, image, source)
                    return
        elif record.fingerprint != record.asked:
            self._set_aside(record, image, source)
            return
        self._publish(record, image, source)

    def _publish(self, record: AttemptRecord, image: Image, source: Source) -> None:
        delivery = Delivery(
            ledger_id=self._ledger_id,
            attempt=record.attempt,
            image=image,
            name=record.name,
            facts=self._facts(record, image),
            previous=record.artifact,
            previous_maker=record.maker,
            received=lambda path: self._ledger.run(
                lambda c: rows.receive(c, record.attempt, sha256=image.sha256, kept=path)
            ),
        )
        part = source.part
        delivery.is_part_whole = part is not None and part.tree is self._outputs and part.path == delivery.part_path
        try:
            artifact = self._writer.publish(delivery)
        except Conflict as conflict:
            self._write_conflict(record, image, conflict)
            if source.rejected is not None and not conflict.kept.startswith("rejected/"):
                self._rejected.drop(source.rejected)
            return
        except ClosedFolder as error:
            self._recovery.note(str(error))  # its folder is somebody else's: the image waits, and the others go on
            return
        reach("recover-link")
        self.finish(record, image, artifact)
        reach("recover-done")
        self._writer.drop_part(self._ledger_id, record.attempt, artifact)
        self._drop(source)

    def finish(self, record: AttemptRecord, image: Image, artifact: Artifact) -> None:
        """Check an image that stands under its final name and write it down as done, its sidecar beside it."""
        request = self._ledger.run(lambda c: _record_of(c, record))
        if request is not None and (sidecar := self._beside(request, image)) is not None:
            self._writer.write_beside(artifact, sidecar)
        if request is not None:
            flags, look = self._check(request, image)
            artifact = replace(artifact, flags=flags, look=look)
        now, cost = to_us(self._clock()), record.price_microusd
        reason = "" if record.attempt_state == "ok" else "recovered without a request"
        self._ledger.run(lambda c: rows.finish(c, record.attempt, artifact, cost=cost, now=now, reason=reason))
        self._recovery.recovered += 1

    def _write_conflict(self, record: AttemptRecord, image: Image, conflict: Conflict) -> None:
        self._recovery.conflicts.append(record.id)
        self._recovery.note(str(conflict))
        if record.state is not TaskState.CONFLICT or record.attempt_state != "paid":
            self._write_kept(record, image, TaskState.CONFLICT, reason=str(conflict), kept=conflict.kept)

    def _write_kept(self, record: AttemptRecord, image: Image, state: TaskState, *, reason: str, kept: str) -> None:
        """Write down that the image arrived, was paid for, and is kept without a final name."""
        failure = Failure(
            fault=Fault.STORAGE,
            billed=Billed.YES,
            reason=reason,
            image_sha256=image.sha256,
            kept=kept,
        )
        now, cost = to_us(self._clock()), record.price_microusd
        self._ledger.run(lambda c: rows.close(c, record.attempt, failure, state=state, cost=cost, now=now))

    def _set_aside(self, record: AttemptRecord, image: Image, source: Source) -> None:
        """The task has another image, or asks for another one: this one is kept, not published."""
        if source.part is None:
            return  # it lies in rejected/ already
        name = record.name.rpartition("/")[2] + image.suffix
        kept = supersede(source.part.tree, self._state, source.part.path, maker=record.attempt, name=name)
        reason = f"the image of attempt {record.attempt} is no longer asked for; it is in {kept}"
        self._recovery.note(f"{record.id}: {reason}")
        if record.attempt_state in ("sent", "unknown"):
            self._write_kept(record, image, record.state, reason=reason, kept=kept)

    def _reject(self, record: AttemptRecord, image: Image, source: Source) -> None:
        """A later attempt has brought the task's image: this one came too late, and is kept with its attempt."""
        if source.part is None:
            return
        kept = self._rejected.keep(image.data, image.suffix, self._facts(record, image))
        self._take_name_away(source.part, record.name + image.suffix)
        reason = f"a second image of {record.id}, of attempt {record.attempt}; it is in {kept}"
        self._recovery.note(reason)
        self._drop(source)
        if record.attempt_state in ("sent", "unknown"):
            self._write_kept(record, image, record.state, reason=reason, kept=kept)

    def _take_name_away(self, part: FoundPart, path: str) -> None:
        """Remove the final name of a part: the task's image has another suffix, so both had one."""
        disk, name = part.tree.disk, split(path)[1]
        with part.tree.directory(part.folder) as fd:
            named, mine = status_of(disk, name, dir_fd=fd), status_of(disk, part.name, dir_fd=fd)
            if named is not None and mine is not None and (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino):
                disk.unlink(name, dir_fd=fd)

    def reject_object(self, record: AttemptRecord, image: Image, artifact: Artifact) -> None:
        """Take an object away that came too late; it is kept in rejected/."""
        kept = self._rejected.keep(image.data, image.suffix, self._facts(record, image))
        self._writer.unlink(artifact.path)
        reason = f"a second image of {record.id}, of attempt {record.attempt}; it is in {kept}"
        self._recovery.note(reason)
        self._write_kept(record, image, record.state, reason=reason, kept=kept)

    def _drop(self, source: Source) -> None:
        if source.rejected is not None:
            self._rejected.drop(source.rejected)
        if source.part is not None:
            tree = source.part.tree
            with contextlib.suppress(FileNotFoundError), tree.directory(source.part.folder) as fd:
                tree.disk.unlink(source.part.name, dir_fd=fd)

    def _facts(self, record: AttemptRecord, image: Image) -> Facts:
        return Facts(
            attempt=record.attempt,
            manifest=record.manifest,
            task=record.id,
            at=self._clock().isoformat(),
            reason="it could not be published by recovery",
            is_image=True,
            name=record.name,
            mime=image.mime,
        )

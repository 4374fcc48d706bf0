"""Part files left by a process that died: found, attributed, and published without a request or kept.

After each the ledger and the disk agree. `recovery` looks for them.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.errors import ClosedFolder, Conflict
from pipeline.failpoint import reach
from pipeline.imaging.formats import describe
from pipeline.model import PART, Artifact, Billed, Failure, Fault, Image, TaskState
from pipeline.store import rows
from pipeline.store.files import PART_NAME, FileComparison, is_same_file, make_durable, read_all, status_of
from pipeline.store.ledger_file import query
from pipeline.store.rejected import Facts, Rejected
from pipeline.store.resources import StoreResources
from pipeline.store.tree import Tree, join, split
from pipeline.store.writer import Delivery, supersede

SLACK_US: Final = 60_000_000  # by which the clocks of a file server and of this machine may differ
OPEN: Final = ("sent", "unknown")  # states of an attempt whose image may yet be found
LISTED: Final = 20  # notes of one kind; beyond, they are only counted


@dataclass(slots=True, kw_only=True)
class Recovery:
    """What a start found and did."""

    recovered: int = 0  # images published without a request
    unknown: int = 0  # requests of a dead process whose outcome is not known
    unknown_microusd: int = 0
    foreign: int = 0  # parts this ledger did not write, left
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add something a person may want to know."""
        self.notes.append(rows.text(text))

    def note_foreign(self, path: str) -> None:
        """Count a part that this ledger did not write; name the first ones."""
        self.foreign += 1
        if self.foreign <= LISTED:
            self.note(f"{path} is not a part file of this ledger; it was left as it is")

    def note_unreadable(self, error: OSError) -> None:
        """Name a folder that cannot be read."""
        self.note(f"{error.filename} cannot be read ({error.strerror}): parts in it are not recovered")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """The attempt a part belongs to, and its task as it stands; columns of `attempt_record`."""

    attempt: int
    attempt_state: str
    fingerprint: str
    reserved_microusd: int
    cost_microusd: int
    received: str | None  # hash of an image that got its name by a rename
    kept: str | None  # and that name
    sent_at: int
    ended_at: int | None
    id: str
    manifest: str
    state: TaskState
    asked: str
    name: str
    maker: int | None
    artifact: Artifact | None

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
        return join(self.folder, self.name)


def find_parts(outputs: Tree, besides: Path, found: Recovery) -> Iterator[FoundPart]:
    """Walk an output directory, not `besides` (the state directory) and no links; note what is no part there."""
    for folder, folders, names in os.walk(outputs.root, onerror=found.note_unreadable):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name != besides]
        relative = "" if here == outputs.root else here.relative_to(outputs.root).as_posix()
        for name in names:
            if match := PART_NAME.fullmatch(name):
                ledger_id, attempt, sha256 = match.groups()
                yield FoundPart(
                    tree=outputs, folder=relative, name=name, ledger_id=ledger_id, attempt=int(attempt), sha256=sha256
                )
            elif name.startswith(PART):
                found.note_foreign(f"{relative}/{name}".lstrip("/"))


def find_part(outputs: Tree, *, ledger_id: str, attempt: int, name: str) -> Image | None:
    """Return the image in the part of an attempt, durable; None: it has none, or one that is not whole."""
    begin = f"{PART}{ledger_id}-{attempt}-"
    with contextlib.suppress(FileNotFoundError), outputs.directory(split(name)[0]) as fd:
        for found in os.listdir(fd):  # noqa: PTH208 - of a descriptor
            if not found.startswith(begin):
                continue
            data = read_all(outputs.disk, found, dir_fd=fd)
            if hashlib.sha256(data).hexdigest() == found.removeprefix(begin):
                make_durable(outputs.disk, found, dir_fd=fd)
                return describe(data)
    return None


def attempt_record_of(connection: sqlite3.Connection, attempt: int) -> AttemptRecord | None:
    """Look up whose image an attempt brought; None: not in this ledger."""
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    row = cursor.execute(query("attempt_record"), {"attempt": attempt}).fetchone()
    if row is None:
        return None
    artifact = rows.artifact_of([row[name] for name in rows.ARTIFACT])
    named = {name: row[name] for name in AttemptRecord.__dataclass_fields__ if name != "artifact"}
    return AttemptRecord(**named | {"state": TaskState(named["state"])}, artifact=artifact)


def is_named_part(name: str) -> bool:
    """Say whether a file is a part that names the ledger which wrote it."""
    match = PART_NAME.fullmatch(name)
    return match is not None and match[1] is not None


def written_by(part: FoundPart, record: AttemptRecord) -> bool:
    """Say whether a part of the older form holds the image of this attempt.

    It has only a number, which another ledger over the same directory gave as well. So it counts if it lies beside the
    task's name, is what the attempt is known to have brought, and was written while it lasted.
    """
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


class Salvager:
    """Publishes found images one by one, or keeps them where they can be found; counts them in a `Recovery`."""

    def __init__(self, resources: StoreResources, *, recovery: Recovery) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._ledger = resources.ledger
        self._writer = resources.writer
        self._rejected = resources.rejected
        self._recovery = recovery

    def salvage(self, record: AttemptRecord, image: Image, source: FoundPart | Rejected) -> None:
        """Publish an image that is whole, or put it where it can be found when its task has moved on."""
        if record.state is TaskState.DONE and record.artifact is not None:
            is_same = record.artifact.sha256 == image.sha256
            match self._writer.compare(record.artifact):
                case FileComparison.MISSING if is_same:
                    pass  # its file was removed: the part is the image
                case FileComparison.SAME | FileComparison.TOUCHED if is_same:
                    self._drop(source)
                    return
                case _ if record.is_latecomer:
                    self._reject_part(record, image, source)
                    return
                case _:
                    self._set_aside(record, image, source)
                    return
        elif record.fingerprint != record.asked:
            self._set_aside(record, image, source)
            return
        self._publish(record, image, source)

    def _publish(self, record: AttemptRecord, image: Image, source: FoundPart | Rejected) -> None:
        delivery = Delivery(
            ledger_id=self._resources.ledger_id,
            attempt=record.attempt,
            image=image,
            name=record.name,
            facts=self._facts(record, image),
            previous=record.artifact,
            previous_maker=record.maker,
            received=lambda path: self._ledger.receive(record.attempt, image.sha256, path),
        )
        if isinstance(source, FoundPart):
            delivery.is_part_whole = source.tree is self._resources.outputs and _is_at(source, delivery.part_path)
        try:
            artifact = self._writer.publish(delivery)
        except Conflict as conflict:
            self._write_conflict(record, image, conflict)
            if isinstance(source, Rejected) and not conflict.kept.startswith("rejected/"):
                self._rejected.drop(source.name)
            return
        except ClosedFolder as error:
            self._recovery.note(str(error))  # its folder is somebody else's: the image waits, and the others go on
            return
        reach("recover-link")
        self.finish(record, image, artifact)
        reach("recover-done")
        self._writer.drop_part(self._resources.ledger_id, record.attempt, artifact)
        self._drop(source)

    def finish(self, record: AttemptRecord, image: Image, artifact: Artifact) -> None:
        """Check an image that stands under its final name and write it down as done, its sidecar beside it."""
        whose = {"manifest": record.manifest, "id": record.id, "fingerprint": record.fingerprint}
        if (row := self._ledger.first("record_of", **whose)) is not None:
            request = {**msgspec.json.decode(row[0], type=dict[str, Any]), "fingerprint": row[1]}
            artifact = self._resources.checked(request, image, artifact)
        now, cost = self._settings.now_us(), record.price_microusd
        reason = "" if record.attempt_state == "ok" else "recovered without a request"
        self._ledger.run(lambda c: rows.finish(c, record.attempt, artifact, cost=cost, now=now, reason=reason))
        self._recovery.recovered += 1

    def _write_conflict(self, record: AttemptRecord, image: Image, conflict: Conflict) -> None:
        self._recovery.note(str(conflict))
        if record.state is not TaskState.CONFLICT or record.attempt_state != "paid":
            self._write_kept(record, image, TaskState.CONFLICT, reason=str(conflict), kept=conflict.kept)

    def _write_kept(self, record: AttemptRecord, image: Image, state: TaskState, *, reason: str, kept: str) -> None:
        """Write down that the image arrived, was paid for, and is kept without a final name."""
        failure = Failure(fault=Fault.STORAGE, billed=Billed.YES, reason=reason, image_sha256=image.sha256, kept=kept)
        now, cost = self._settings.now_us(), record.price_microusd
        self._ledger.run(lambda c: rows.close(c, record.attempt, failure, state=state, cost=cost, now=now))

    def _set_aside(self, record: AttemptRecord, image: Image, source: FoundPart | Rejected) -> None:
        """The task has another image, or asks for another one: this one is kept, not published."""
        if isinstance(source, Rejected):
            return  # it lies in rejected/ already
        name = record.name.rpartition("/")[2] + image.suffix
        kept = supersede(source.tree, self._resources.state, source.path, maker=record.attempt, name=name)
        reason = f"the image of attempt {record.attempt} is no longer asked for; it is in {kept}"
        self._recovery.note(f"{record.id}: {reason}")
        if record.attempt_state in OPEN:
            self._write_kept(record, image, record.state, reason=reason, kept=kept)

    def _reject_part(self, record: AttemptRecord, image: Image, source: FoundPart | Rejected) -> None:
        if isinstance(source, FoundPart):

            def remove() -> None:
                _take_name_away(source, record.name + image.suffix)
                self._drop(source)

            self.reject(record, image, remove)

    def reject(self, record: AttemptRecord, image: Image, remove: Callable[[], None]) -> None:
        """Keep an image that came after the task's own in rejected/; `remove` takes it from its place."""
        kept = self._rejected.keep(image.data, image.suffix, self._facts(record, image))
        remove()
        reason = f"a second image of {record.id}, of attempt {record.attempt}; it is in {kept}"
        self._recovery.note(reason)
        if record.attempt_state in OPEN:
            self._write_kept(record, image, record.state, reason=reason, kept=kept)

    def _drop(self, source: FoundPart | Rejected) -> None:
        if isinstance(source, Rejected):
            self._rejected.drop(source.name)
            return
        with contextlib.suppress(FileNotFoundError), source.tree.directory(source.folder) as fd:
            source.tree.disk.unlink(source.name, dir_fd=fd)

    def _facts(self, record: AttemptRecord, image: Image) -> Facts:
        return Facts(
            attempt=record.attempt,
            manifest=record.manifest,
            task=record.id,
            at=self._settings.clock().isoformat(),
            reason="it could not be published by recovery",
            is_image=True,
            name=record.name,
            mime=image.mime,
        )


def _is_at(part: FoundPart, path: str) -> bool:
    """Say whether a part lies where it is meant to, also in a folder whose name is in another case on such a disk."""
    disk = part.tree.disk
    unopened = contextlib.suppress(OSError)  # it is met again, and reported, when the image is published
    with unopened, part.tree.at(part.path) as here, part.tree.at(path) as there:
        return is_same_file(*(status_of(disk, name, dir_fd=fd) for fd, name in (here, there)))
    return False


def _take_name_away(part: FoundPart, path: str) -> None:
    """Remove the final name of a part: the task's image has another suffix, so both had one."""
    disk, name = part.tree.disk, split(path)[1]
    with part.tree.directory(part.folder) as fd:
        if is_same_file(status_of(disk, name, dir_fd=fd), status_of(disk, part.name, dir_fd=fd)):
            disk.unlink(name, dir_fd=fd)

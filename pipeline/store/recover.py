"""What a start finds -> order: parts published or removed, lost requests counted, files compared with the ledger.

Under the lock, before anything is sent. Every step can be killed and done again; nothing here asks the network. What
it cannot place (parts of another ledger) it leaves and reports.
"""

import contextlib
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from pipeline.errors import Conflict, StorageError
from pipeline.failpoint import reach
from pipeline.model import Answer, Artifact, Image, TaskState
from pipeline.store import rows
from pipeline.store.clock import Clock, to_us
from pipeline.store.disk import read_all
from pipeline.store.ledger import Ledger
from pipeline.store.picture import SUFFIXES, NotAnImageError, look
from pipeline.store.reader import Reader
from pipeline.store.rejected import Facts, RejectedFolder, list_rejected
from pipeline.store.sql import query
from pipeline.store.standing import Standing, standings
from pipeline.store.superseded import supersede
from pipeline.store.tree import Tree, split
from pipeline.store.writer import PART, Delivery, Writer

_PART: Final = re.compile(re.escape(PART) + r"(\d{1,18})-([0-9a-f]{64})")
LOST: Final = "the process ended while this request was in flight; it may have been billed"
LISTED: Final = 20


@dataclass(slots=True, kw_only=True)
class Recovery:
    """What a start found and did."""

    done: int = 0  # tasks of this manifest that have their image
    recovered: int = 0  # images published without a request
    unknown: int = 0  # requests of a dead process whose outcome nobody knows
    unknown_microusd: int = 0
    torn: int = 0  # half-written parts, removed
    foreign: int = 0  # parts this ledger does not know, left
    missing: list[str] = field(default_factory=list)  # ids: done, and the file is gone
    changed: list[str] = field(default_factory=list)  # ids: done, and the file was edited
    conflicts: list[str] = field(default_factory=list)  # ids: an image is kept, its name is taken
    notes: list[str] = field(default_factory=list)


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt a part belongs to, and its task as it stands; the columns of `claimant`."""

    attempt: int
    attempt_state: str
    fingerprint: str
    reserved_microusd: int
    cost_microusd: int
    received: str | None  # hash of an image that got its name by a rename
    kept: str | None  # and that name
    number: int
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
    def price_microusd(self) -> int:
        """What the image cost: the settled price, else the one that was reserved."""
        return self.cost_microusd if self.attempt_state in ("ok", "paid") else self.reserved_microusd


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One part on disk."""

    folder: str
    name: str
    attempt: int
    sha256: str

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where an image was found: one of the two."""

    part: Found | None = None
    rejected: str | None = None


class Recoverer:
    """One recovery of one output directory."""

    def __init__(
        self, ledger: Ledger, writer: Writer, *, outputs: Tree, state: Tree, rejected: RejectedFolder, manifest: str,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._writer = writer
        self._outputs = outputs
        self._state = state
        self._rejected = rejected
        self._manifest = manifest
        self._clock = clock
        self._found = Recovery()

    def run(self) -> Recovery:
        """Bring disk and ledger together. Idempotent; may be killed anywhere.

        Raises StorageError, LedgerError, TryLater.
        """
        try:
            parts = list(self._parts())
            self._keep_numbers_apart(parts)
            for part in parts:
                self._settle_part(part)
            self._settle_rejected()
            self._settle_open_attempts()
            self._compare_files()
        except OSError as error:
            raise StorageError(f"{error.filename or self._outputs.root}: {error.strerror}; nothing was sent") from error
        return self._found

    # --- parts

    def _parts(self) -> Iterator[Found]:
        """Walk the output directory, not the state directory and no links."""
        root = self._outputs.root
        for folder, folders, names in os.walk(root, onerror=self._unreadable):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name != self._state.root]
            relative = "" if here == root else here.relative_to(root).as_posix()
            for name in names:
                if not name.startswith(PART):
                    continue
                if match := _PART.fullmatch(name):
                    yield Found(folder=relative, name=name, attempt=int(match[1]), sha256=match[2])
                else:
                    self._foreign(f"{relative}/{name}".lstrip("/"))

    def _unreadable(self, error: OSError) -> None:
        self._note(f"{error.filename} cannot be read ({error.strerror}): parts in it are not recovered")

    def _foreign(self, path: str) -> None:
        self._found.foreign += 1
        if self._found.foreign <= LISTED:
            self._note(f"{path} is not a part this ledger knows; it was left as it is")

    def _note(self, text: str) -> None:
        self._found.notes.append(rows.text(text))

    def _keep_numbers_apart(self, parts: list[Found]) -> None:
        """See to it that a new attempt never gets the number of a part that an older, lost ledger gave."""
        seen = [part.attempt for part in parts] + [each.attempt for each in list_rejected(self._state.root)]
        highest = max(seen, default=0)
        (last,) = self._ledger.run(lambda c: c.execute(query("last_attempt")).fetchone())
        if highest > last:
            self._ledger.run(lambda c: _raise_sequence(c, highest))

    def _settle_part(self, part: Found) -> None:
        claimant = self._claimant(part.attempt)
        if claimant is None:
            self._foreign(part.path)
            return
        disk = self._outputs.disk
        with self._outputs.directory(part.folder) as fd:
            data = read_all(disk, part.name, dir_fd=fd)
            if hashlib.sha256(data).hexdigest() != part.sha256:
                disk.unlink(part.name, dir_fd=fd)
                self._found.torn += 1
                return
            self._make_durable(part.name, fd)
        reach("recover-part")
        image = self._image(data, part.path)
        if image is not None:
            self._settle_image(claimant, image, _Source(part=part))

    def _make_durable(self, name: str, dir_fd: int) -> None:
        """The bytes are right in memory; whether they are on the disk nobody has said."""
        disk = self._outputs.disk
        fd = disk.open(name, dir_fd=dir_fd)
        try:
            disk.fsync(fd)
        finally:
            disk.close(fd)

    def _image(self, data: bytes, path: str) -> Image | None:
        try:
            return look(data)
        except NotAnImageError as error:
            self._note(f"{path} is whole but no image this program knows ({error}); it was left as it is")
            return None

    def _claimant(self, attempt: int) -> Claimant | None:
        return self._ledger.run(lambda connection: _claimant(connection, attempt))

    def _settle_rejected(self) -> None:
        """Publish whole images that the disk did not take when they came; bodies without an image stay for people."""
        for kept in list_rejected(self._state.root):
            claimant = self._claimant(kept.attempt) if kept.suffix in SUFFIXES else None
            if claimant is None or claimant.manifest != self._manifest:
                continue
            data = kept.path.read_bytes()
            if hashlib.sha256(data).hexdigest() != kept.sha256 or not (kept.facts is None or kept.facts.is_image):
                continue
            image = self._image(data, f"rejected/{kept.name}")
            if image is not None:
                self._settle_image(claimant, image, _Source(rejected=kept.name))

    # --- images

    def _settle_image(self, claimant: Claimant, image: Image, source: _Source) -> None:
        """Publish an image that is whole, or put it where it can be found when its task has moved on."""
        if claimant.state is TaskState.DONE and claimant.artifact is not None:
            is_same = claimant.sha256 == image.sha256
            match self._standing(claimant.artifact):
                case Standing.MISSING if is_same:
                    pass  # its file was removed: the part is the image
                case Standing.SAME | Standing.TOUCHED if is_same:
                    self._drop(source)
                    return
                case _:
                    self._set_aside(claimant, image, source)
                    return
        elif claimant.fingerprint != claimant.asked:
            self._set_aside(claimant, image, source)
            return
        self._publish(claimant, image, source)

    def _standing(self, artifact: Artifact) -> Standing:
        ((_, _, found),) = standings(self._outputs, [(None, artifact)])
        return found

    def _publish(self, claimant: Claimant, image: Image, source: _Source) -> None:
        delivery = Delivery(
            attempt=claimant.attempt,
            image=image,
            name=claimant.name,
            facts=self._facts(claimant, image),
            previous=claimant.artifact,
            previous_maker=claimant.maker,
            received=lambda path: self._ledger.run(
                lambda c: rows.receive(c, claimant.attempt, sha256=image.sha256, kept=path)
            ),
        )
        delivery.is_part_whole = source.part is not None and source.part.path == delivery.part_path
        try:
            artifact = self._writer.publish(delivery)
        except Conflict as conflict:
            self._write_conflict(claimant, image, conflict)
            if source.rejected is not None and not conflict.kept.startswith("rejected/"):
                self._rejected.drop(source.rejected)
            return
        reach("recover-link")
        self._finish(claimant, artifact)
        reach("recover-done")
        self._writer.drop_part(delivery)
        self._drop(source)

    def _finish(self, claimant: Claimant, artifact: Artifact) -> None:
        now, cost = to_us(self._clock()), claimant.price_microusd
        reason = "" if claimant.attempt_state == "ok" else "recovered without a request"
        self._ledger.run(lambda c: rows.finish(c, claimant.attempt, artifact, cost=cost, now=now, reason=reason))
        self._found.recovered += 1

    def _write_conflict(self, claimant: Claimant, image: Image, conflict: Conflict) -> None:
        self._found.conflicts.append(claimant.id)
        self._note(str(conflict))
        if claimant.state is TaskState.CONFLICT and claimant.attempt_state == "paid":
            return
        closing = rows.Closing(
            attempt_state="paid",
            state=TaskState.CONFLICT,
            cost=claimant.price_microusd,
            reserved=None,
            reason=str(conflict),
            seconds=None,
            sha256=image.sha256,
            kept=conflict.kept,
        )
        now = to_us(self._clock())
        self._ledger.run(lambda c: rows.close(c, claimant.attempt, closing, now=now, facts=Answer(image=image)))

    def _set_aside(self, claimant: Claimant, image: Image, source: _Source) -> None:
        """The task has another image, or asks for another one: this one is kept, not published."""
        if source.part is None:
            return  # it lies in rejected/ already
        name = claimant.name.rpartition("/")[2] + image.suffix
        kept = supersede(self._outputs, self._state, source.part.path, maker=claimant.attempt, name=name)
        self._note(f"{claimant.id}: an image of attempt {claimant.attempt} is no longer asked for; it is in {kept}")

    def _drop(self, source: _Source) -> None:
        if source.rejected is not None:
            self._rejected.drop(source.rejected)
        if source.part is not None:
            with contextlib.suppress(FileNotFoundError), self._outputs.directory(source.part.folder) as fd:
                self._outputs.disk.unlink(source.part.name, dir_fd=fd)

    def _facts(self, claimant: Claimant, image: Image) -> Facts:
        return Facts(
            attempt=claimant.attempt,
            manifest=claimant.manifest,
            task=claimant.id,
            at=self._clock().isoformat(),
            reason="it could not be published by recovery",
            is_image=True,
            name=claimant.name,
            mime=image.mime,
        )

    # --- requests without an image

    def _settle_open_attempts(self) -> None:
        scope = {"manifest": self._manifest, "output": rows.relative_bytes(self._outputs.root, self._state.root)}
        open_attempts = self._ledger.run(lambda c: c.execute(query("open_attempts"), scope).fetchall())
        for (attempt,) in open_attempts:
            claimant = self._claimant(attempt)
            assert claimant is not None
            artifact = self._renamed(claimant)
            if artifact is not None:
                self._finish(claimant, artifact)
            else:
                self._lose(claimant)

    def _renamed(self, claimant: Claimant) -> Artifact | None:
        """Find an image that lost its part when it got its name (no hard links here) and was not written down."""
        if claimant.received is None or claimant.kept is None:
            return None
        folder, name = split(claimant.kept)
        disk = self._outputs.disk
        try:
            with self._outputs.directory(folder) as fd:
                data = read_all(disk, name, dir_fd=fd)
                if hashlib.sha256(data).hexdigest() != claimant.received:
                    return None
                self._make_durable(name, fd)
                self._outputs.sync(fd)
                status = disk.stat(name, dir_fd=fd)
        except FileNotFoundError:
            return None
        image = self._image(data, claimant.kept)
        return None if image is None else rows.artifact(image, claimant.kept, status)

    def _lose(self, claimant: Claimant) -> None:
        now = to_us(self._clock())
        self._ledger.run(lambda c: rows.lose(c, claimant.attempt, reason=LOST, now=now))
        self._found.unknown += 1
        self._found.unknown_microusd += claimant.reserved_microusd
        reach("recover-unknown")

    # --- files

    def _compare_files(self) -> None:
        """Count what is done; tell what is gone or was edited. Hashes only files whose size or time differ."""
        touched: list[tuple[str, Artifact, int]] = []
        with Reader(self._state.root, manifest=self._manifest) as reader:
            for task_id, artifact, found in standings(self._outputs, reader.all_done()):
                self._found.done += 1
                match found:
                    case Standing.MISSING:
                        self._found.missing.append(task_id)
                    case Standing.CHANGED:
                        self._found.changed.append(task_id)
                    case Standing.TOUCHED:
                        touched.append((task_id, artifact, self._mtime_ns(artifact)))
                    case Standing.SAME:
                        pass
        if touched:
            self._ledger.run(lambda c: rows.touch(c, self._manifest, touched))

    def _mtime_ns(self, artifact: Artifact) -> int:
        folder, name = split(artifact.path)
        with self._outputs.directory(folder) as fd:
            return self._outputs.disk.stat(name, dir_fd=fd).st_mtime_ns


def _claimant(connection: sqlite3.Connection, attempt: int) -> Claimant | None:
    cursor = connection.execute(query("claimant"), {"attempt": attempt})
    row = cursor.fetchone()
    if row is None:
        return None
    return msgspec.convert(dict(zip((column[0] for column in cursor.description), row, strict=True)), Claimant)


def _raise_sequence(connection: sqlite3.Connection, attempt: int) -> None:
    connection.execute(query("start_sequence"), {"attempt": attempt})
    connection.execute(query("raise_sequence"), {"attempt": attempt})

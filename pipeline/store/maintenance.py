"""Orders of a person between requests: images renamed, present files accepted, bodies of rejected/ salvaged.

Nothing is sent and nothing is replaced; each order is durable when it returns.
"""

import hashlib
import re
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from pipeline.buckets import Bucket, open_bucket
from pipeline.errors import Conflict, StorageError
from pipeline.imaging.formats import NotAnImageError, describe
from pipeline.model import IMAGE_SUFFIXES, SIDECAR, Artifact, BucketUrl, Edit, Image, Known, Task
from pipeline.store import rows
from pipeline.store.bucket_writer import SUPERSEDED
from pipeline.store.files import IN_THE_WAY, read_all
from pipeline.store.ledger_file import query
from pipeline.store.marks import rename_marks
from pipeline.store.parts import Recovery, Salvager, attempt_record_of, kept_by
from pipeline.store.rejected import Rejected
from pipeline.store.resources import StoreResources
from pipeline.store.writer import FOLDER, SUPERSEDED_NAME
from pipeline.text import name_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """An image that a newer one has replaced."""

    location: str  # a path of this machine, or the address of an object
    attempt: int  # that made it
    size_bytes: int
    at: datetime  # when it was replaced


def superseded_images(place: Path | BucketUrl, state_dir: Path, *, ledger_id: str | None) -> Iterator[Superseded]:
    """Yield the images of one ledger that were replaced. Raises InputError, BucketError: the bucket."""
    folder = state_dir / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = SUPERSEDED_NAME.fullmatch(path.name)
        status = path.lstat()
        if match is not None and stat.S_ISREG(status.st_mode):
            at = datetime.fromtimestamp(status.st_mtime, UTC)
            yield Superseded(location=str(path), attempt=int(match[1]), size_bytes=status.st_size, at=at)
    if isinstance(place, BucketUrl) and ledger_id is not None:
        bucket = open_bucket(place).below(SUPERSEDED.strip("/"))
        for each in bucket.listing():
            match = re.match(rf"{ledger_id}-(\d+)(?:\.\d+)?-", each.path)
            if match is not None:
                yield Superseded(
                    location=f"{bucket.url}/{each.path}",
                    attempt=int(match[1]),
                    size_bytes=each.size_bytes,
                    at=each.written_at,
                )


def _known(connection: sqlite3.Connection, manifest: str, task_id: str) -> Known | None:
    ids = msgspec.json.encode([rows.text(task_id)]).decode()
    row = connection.execute(query("known_among"), {"manifest": manifest, "ids": ids}).fetchone()
    return None if row is None else rows.known_of(row)


def _described(artifact: Artifact, data: bytes, mtime_ns: int) -> Artifact:
    """Return what stands under an image's name now; what is no image we can read keeps the old kind and size."""
    try:
        return rows.artifact(describe(data), artifact.path, mtime_ns)
    except NotAnImageError:
        sha256 = hashlib.sha256(data).hexdigest()
        return replace(artifact, sha256=sha256, size_bytes=len(data), mtime_ns=mtime_ns)


SAID_BILLED: Final = "billed, as the provider said, and nothing was received"
SAID_FREE: Final = "not billed, as the provider said"


class Maintenance:
    """Carries out orders, each in one thread. Thread-safe."""

    def __init__(self, resources: StoreResources) -> None:
        self._settings = resources.settings
        self._resources = resources
        self._ledger = resources.ledger
        self._writer = resources.writer

    def move(self, task_id: str, name: str) -> Artifact:
        """Give a done task's image the output name `name`; return it. Durable there before the old name goes.

        Raises Conflict: the name is taken, the image stays. StorageError.
        """
        artifact = self._artifact(task_id)
        if artifact is None:
            raise StorageError(f"{task_id} has no image that could move")
        old = artifact.path
        new = name + "." + old.rpartition(".")[2]
        try:
            moved = self._writer.link(artifact, new)
            row = self._row(task_id, name=name, name_key=name_key(rows.text(name)), path=new, mtime_ns=moved.mtime_ns)
            self._ledger.change("move_task", row)
            self._writer.unlink(old, renamed=new)
            self._writer.move_beside(old + SIDECAR, new + SIDECAR)
        except FileExistsError:
            raise Conflict(f"{task_id}: {new} is in the way; the image stays {old}", kept=old) from None
        except OSError as error:
            if error.errno in IN_THE_WAY:
                text = f"{task_id}: a file or a link stands where a folder of {new} belongs; the image stays {old}"
                raise Conflict(text, kept=old) from error
            raise StorageError(f"{task_id}: {old} could not be moved to {new}: {error.strerror}") from error
        return moved

    def accept(self, tasks: Sequence[Task]) -> int:
        """Take each done task's image as what its present request would bring, a refusal as it is; return how many.

        Fingerprint and digests become the present ones; attempts and the record of how the image was made stay.
        """
        now = self._settings.now_us()
        present = [rows.task_row(task, manifest=self._settings.manifest, now=now) for task in tasks]
        orders = [(query(name), row) for name in ("accept_task", "accept_refused") for row in present]
        return self._ledger.run(lambda c: sum(c.execute(*order).rowcount for order in orders))

    def accept_edits(self, edits: Sequence[tuple[Task, Edit]]) -> int:
        """Take what a person did to done images as it is; return how many. A file that cannot be read is left out."""
        manifest = self._settings.manifest
        known = self._ledger.run(lambda c: [(task, edit, _known(c, manifest, task.id)) for task, edit in edits])
        orders = [row for each in known if (row := self._edit_row(*each)) is not None]
        return self._ledger.run(lambda c: sum(c.execute(query(name), row).rowcount for name, row in orders))

    def _edit_row(self, task: Task, edit: Edit, known: Known | None) -> tuple[str, rows.Row] | None:
        """Return the order and its values; None: there is nothing to accept. An image may be of another kind now."""
        artifact = None if known is None else known.artifact
        if artifact is None:
            return None
        row = self._row(task.id)
        if edit is Edit.ABSENT:
            return "accept_absent", row
        suffixes = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))
        paths = dict.fromkeys((artifact.path, *(task.name + suffix for suffix in suffixes)))
        standing = (self._standing(replace(artifact, path=path)) for path in paths)
        edited = next((each for each in standing if each is not None), None)
        return None if edited is None else ("accept_edited", row | rows.artifact_row(edited))

    def _standing(self, artifact: Artifact) -> Artifact | None:
        """Return what stands under an image's name now; None: nothing readable. Raises StorageError: the bucket."""
        outputs = self._resources.outputs
        if isinstance(outputs, Bucket):
            found, content = outputs.look(artifact.path), outputs.read(artifact.path)
            return None if found is None or content is None else _described(artifact, content, found.version)
        try:
            with outputs.at(artifact.path) as (fd, name):
                status = outputs.disk.stat(name, dir_fd=fd)
                data = read_all(outputs.disk, name, dir_fd=fd)
        except OSError:
            return None
        return _described(artifact, data, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def take_over(self, renamed: Sequence[tuple[str, Task]]) -> int:
        """Give the images of tasks that the manifest no longer has to their successors; return how many.

        `renamed`: the former id, and the task that asks for the same image now. History, money and marks go along; the
        files keep their names.
        """
        now, manifest = self._settings.now_us(), self._settings.manifest
        orders = [
            (
                rows.task_row(task, manifest=manifest, now=now) | {"former": rows.text(former)},
                rows.record_of(task, self._settings.state_dir),
            )
            for former, task in renamed
        ]
        # First, as the ledger has no former id afterwards: where this fails, the next run does both.
        rename_marks(self._settings.state_dir, manifest, [(former, task.id) for former, task in renamed])
        return self._ledger.run(lambda c: sum(_take_over(c, row, record) for row, record in orders))

    def restore(self) -> int:
        """Set tasks to done whose image is that of their present request, whatever a later attempt for it met.

        A second request for an image that is there (`redo`, `--repair`) may fail; the image is still the task's.
        """
        values = {"manifest": self._settings.manifest, "now": self._settings.now_us()}
        return self._ledger.change("restore_done", values)

    def settle(self, attempts: Sequence[int], *, is_billed: bool) -> None:
        """Write down how unknown requests ended. Their tasks are pending, or failed if they were billed."""
        now = self._settings.now_us()
        reason = SAID_BILLED if is_billed else SAID_FREE
        settled = [{"attempt": each, "is_billed": is_billed, "reason": reason, "now": now} for each in attempts]
        orders = [(query(name), row) for row in settled for name in ("settle_task", "settle_attempt")]
        self._ledger.run(lambda c: [c.execute(*order) for order in orders])

    def forget_image(self, task_id: str) -> None:
        """Remove a task's image and its sidecar; the task is pending, its attempts and their money stay.

        Killed between the two, it is done again. Raises StorageError.
        """
        artifact = self._artifact(task_id)
        if artifact is not None:
            try:
                for each in (artifact.path, artifact.path + SIDECAR):
                    self._writer.unlink(each)
            except OSError as error:
                raise StorageError(f"{task_id}: {artifact.path} could not be removed: {error.strerror}") from error
        self._ledger.change("forget_image", self._row(task_id))

    def publish_again(self, kept: Rejected, image: Image) -> Recovery:
        """Publish an image that was read from a kept body after all; the body goes when the image stands.

        Nothing happens when the task has an image already, asks for another one, or is not known (a note says so).
        Raises StorageError, LedgerError.
        """
        recovery = Recovery()
        record = self._ledger.run(lambda c: attempt_record_of(c, kept.attempt))
        is_ours = record is not None and kept_by(kept, record, self._resources.ledger_id)
        if record is None or not is_ours or record.manifest != self._settings.manifest:
            recovery.note(f"{kept.name}: its attempt is not in this ledger; it was left where it is")
            return recovery
        Salvager(self._resources, recovery=recovery).salvage(record, image, kept)
        return recovery

    def _artifact(self, task_id: str) -> Artifact | None:
        known = self._ledger.run(lambda c: _known(c, self._settings.manifest, task_id))
        return None if known is None else known.artifact

    def _row(self, task_id: str, **values: object) -> dict[str, object]:
        return {"manifest": self._settings.manifest, "id": rows.text(task_id), "now": self._settings.now_us(), **values}


def _take_over(connection: sqlite3.Connection, row: rows.Row, record: str) -> bool:
    """Give the done task `row["former"]` the id and request of `row`; say whether it was there."""
    former = {"manifest": row["manifest"], "id": row["former"]}
    if connection.execute(query("key_of_task"), former).fetchone() is None:
        return False
    for name in ("hand_over_attempts", "hand_over_costs", "drop_record", "drop_earlier", "drop_task"):
        connection.execute(query(name), row)
    found = connection.execute(query("rename_task"), row).fetchone()
    if found is None:
        raise ValueError(f"{row['former']} is not done, so {row['id']} cannot have its image")
    rows.remember(connection, found[0], str(row["fingerprint"]), record)
    return True

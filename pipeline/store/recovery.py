"""Repairs at the start of a run: parts published or removed, lost requests counted, new times of files written down.

Under the lock, before anything is sent; no network. Every step can be killed and repeated. Parts of another ledger are
left and reported.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.buckets import Bucket, StoredObject, as_input_error
from pipeline.errors import InputError, StorageError
from pipeline.failpoint import reach
from pipeline.imaging.formats import NotAnImageError, describe
from pipeline.model import OUTPUT_SUFFIXES, Artifact, Image, TaskState
from pipeline.store import parts, rows
from pipeline.store.bucket_writer import find_object
from pipeline.store.files import FileComparison, closed_folder, make_durable, read_all, status_of
from pipeline.store.integrity import compare_files
from pipeline.store.ledger_file import query
from pipeline.store.reader import LedgerReader
from pipeline.store.rejected import WORKERS_MARK, Rejected, list_rejected
from pipeline.store.resources import StoreResources
from pipeline.store.tree import Tree

DAY_US: Final = 86_400_000_000
LOST: Final = "the process ended while this request was in flight; it may have been billed"


class Recoverer:
    """One recovery of one output directory."""

    def __init__(self, resources: StoreResources) -> None:
        self._settings = resources.settings
        self._resources = resources
        self._ledger = resources.ledger
        self._outputs = resources.outputs
        self._tree = resources.outputs if isinstance(resources.outputs, Tree) else None  # None: a bucket
        self._state = resources.state
        self._ledger_id = resources.ledger_id
        self._found = parts.Recovery()
        self._salvager = parts.Salvager(resources, recovery=self._found)

    def run(self) -> parts.Recovery:
        """Bring disk and ledger together. Idempotent; may be killed anywhere.

        Raises StorageError, LedgerError, TryLater. InputError: a bucket that a person must see to.
        """
        if isinstance(self._outputs, Bucket):
            with as_input_error(self._outputs.url):
                return self._run()
        return self._run()

    def recover_late(self) -> parts.Recovery:
        """At the end of a run that lost workers: publish or reject what they wrote after they were given up.

        A part that is not whole is left: its worker may be at work.
        """
        if self._tree is None:
            self._recover_unknown_attempts(is_late=True)
        else:
            for part in self._parts(self._tree):
                self._recover_part(part, is_late=True)
        return self._found

    def _run(self) -> parts.Recovery:
        try:
            with contextlib.ExitStack() as stack:
                leftovers = [part for tree in self._trees(stack) for part in self._parts(tree)]
                self._keep_numbers_apart(leftovers)
                for part in leftovers:
                    self._recover_part_unless_closed(part)
            had_workers = (self._state.root / WORKERS_MARK).exists()
            if had_workers:
                self._resources.rejected.collect(self._outputs)
            self._recover_rejected()
            self._recover_open_attempts()
            if self._tree is None:
                self._recover_unknown_attempts(is_late=had_workers)
            (self._state.root / WORKERS_MARK).unlink(missing_ok=True)
            self._note_touched()
        except OSError as error:
            place = error.filename or self._settings.output_dir
            raise StorageError(f"{place}: {error.strerror}; nothing was sent") from error
        return self._found

    # --- parts

    def _trees(self, stack: contextlib.ExitStack) -> list[Tree]:
        """Return the output directory, and the one this manifest had before it was changed."""
        row = self._ledger.first("output_of", manifest=self._settings.manifest)
        if self._tree is None or (row is not None and b"://" in row[0]):
            self._refuse_change_of_place(None if row is None else bytes(row[0]))
            return [] if self._tree is None else [self._tree]
        root = self._state.root
        earlier = root if row is None else Path(os.path.normpath(root / os.fsdecode(row[0])))
        if row is None or earlier == self._tree.root or not earlier.is_dir():
            return [self._tree]
        tree = Tree(earlier, self._settings.disk, warn=self._settings.warn)
        stack.callback(tree.close)
        return [self._tree, tree]

    def _refuse_change_of_place(self, earlier: bytes | None) -> None:
        """Raise InputError when `output_dir` became or was a bucket while requests of a dead process are open."""
        if earlier in (None, self._settings.manifest_row["output"]) or not self._numbers("open_attempts"):
            return
        raise InputError(
            f"the last run was cut short and wrote to {os.fsdecode(earlier)}; its images are looked for there, so"
            " run this once more with that output_dir, and change it then"
        )

    def _numbers(self, name: str) -> list[int]:
        """Ask for attempts of this manifest, or of this output directory."""
        found = self._ledger.run(lambda c: c.execute(query(name), self._settings.manifest_row).fetchall())
        return [attempt for (attempt,) in found]

    def _parts(self, tree: Tree) -> list[parts.FoundPart]:
        return list(parts.find_parts(tree, self._state.root, self._found))

    def _keep_numbers_apart(self, leftovers: list[parts.FoundPart]) -> None:
        """See to it that a new attempt never gets the number of a file that this ledger wrote before it was damaged."""
        found: list[parts.FoundPart | Rejected] = [*leftovers, *list_rejected(self._state.root)]
        seen = [each.attempt for each in found if each.ledger_id in (None, self._ledger_id)]
        highest = max(seen, default=0)
        if highest > self._ledger.first("last_attempt")[0]:
            self._ledger.run(lambda c: rows.raise_sequence(c, highest))

    def _recover_part_unless_closed(self, part: parts.FoundPart) -> None:
        """Recover a part; one in a folder that may not be written to waits, as its task does."""
        try:
            self._recover_part(part)
        except PermissionError as error:
            closed = closed_folder(part.tree.root, part.folder)
            if closed is None or closed == ".":
                raise
            self._found.note(f"{part.path} waits: the folder {closed} cannot be written to ({error.strerror})")

    def _recover_part(self, part: parts.FoundPart, *, is_late: bool = False) -> None:
        if part.ledger_id not in (None, self._ledger_id):
            self._count_foreign(part)
            return
        record = self._record(part.attempt)
        if record is None or (part.ledger_id is None and not parts.written_by(part, record)):
            self._found.note_foreign(part.path)
            return
        disk = part.tree.disk
        with part.tree.directory(part.folder) as fd:
            data = read_all(disk, part.name, dir_fd=fd)
            if hashlib.sha256(data).hexdigest() != part.sha256:
                if is_late:
                    return
                disk.unlink(part.name, dir_fd=fd)
                return
            make_durable(disk, part.name, dir_fd=fd)
        reach("recover-part")
        image = self._image(data, part.path)
        if image is not None:
            self._salvager.salvage(record, image, part)

    def _count_foreign(self, part: parts.FoundPart) -> None:
        """Count the part of another ledger, which may be at work right now; a note names it when it is a day old."""
        with part.tree.directory(part.folder) as fd:
            status = status_of(part.tree.disk, part.name, dir_fd=fd)
        if status is not None and status.st_mtime_ns // 1000 < self._settings.now_us() - DAY_US:
            self._found.note_foreign(part.path)
        else:
            self._found.foreign += 1

    def _image(self, data: bytes, path: str) -> Image | None:
        try:
            return describe(data)
        except NotAnImageError as error:
            self._found.note(f"{path} is whole but not a supported image ({error}); it was left as it is")
            return None

    def _record(self, attempt: int) -> parts.AttemptRecord | None:
        return self._ledger.run(lambda connection: parts.attempt_record_of(connection, attempt))

    def _recover_rejected(self) -> None:
        """Publish whole images that the disk did not take when they came; bodies without an image stay for people."""
        for kept in list_rejected(self._state.root):
            record = self._record(kept.attempt) if kept.suffix in OUTPUT_SUFFIXES else None
            if record is None or record.manifest != self._settings.manifest:
                continue
            if not parts.kept_by(kept, record, self._ledger_id):
                continue
            data = kept.path.read_bytes()
            if hashlib.sha256(data).hexdigest() != kept.sha256 or not (kept.facts is None or kept.facts.is_image):
                continue
            image = self._image(data, f"rejected/{kept.name}")
            if image is not None:
                self._salvager.salvage(record, image, kept)

    # --- requests without an image

    def _recover_open_attempts(self) -> None:
        for attempt in self._numbers("open_attempts"):
            record = self._record(attempt)
            assert record is not None
            found = self._renamed(record) if self._tree is not None else self._object_of(record)
            if found is not None:
                self._salvager.finish(record, *found)
            else:
                self._lose(record)

    def _recover_unknown_attempts(self, *, is_late: bool = False) -> None:
        """Record what a service finished to put after its request was given up, for tasks that wait for it.

        `is_late`: some may have brought a second image of a task.
        """
        for attempt in self._numbers("unknown_attempts"):
            record = self._record(attempt)
            assert record is not None
            if record.state is TaskState.UNKNOWN and record.fingerprint == record.asked:
                if (found := self._object_of(record)) is not None:
                    self._salvager.finish(record, *found)
            elif is_late and record.is_latecomer and (found := self._object_of(record)) is not None:
                image, artifact = found
                self._salvager.reject(record, image, functools.partial(self._resources.writer.unlink, artifact.path))

    def _object_of(self, record: parts.AttemptRecord) -> tuple[Image, Artifact] | None:
        """Find the object of an attempt that was put and not written down, by the ledger and attempt it names."""
        assert isinstance(self._outputs, Bucket)
        return find_object(
            self._outputs,
            ledger_id=self._ledger_id,
            attempt=record.attempt,
            name=record.name,
            look=self._look,
            note=self._found.note,
        )

    @functools.cached_property
    def _look(self) -> Callable[[str], StoredObject | None]:
        """Look once: several attempts of one task have one name."""
        assert isinstance(self._outputs, Bucket)
        return functools.cache(self._outputs.look)

    def _renamed(self, record: parts.AttemptRecord) -> tuple[Image, Artifact] | None:
        """Find an image that lost its part when it got its name (no hard links here) and was not written down."""
        if record.received is None or record.kept is None:
            return None
        assert self._tree is not None
        disk = self._tree.disk
        try:
            with self._tree.at(record.kept) as (fd, name):
                data = read_all(disk, name, dir_fd=fd)
                if hashlib.sha256(data).hexdigest() != record.received:
                    return None
                make_durable(disk, name, dir_fd=fd)
                self._tree.sync(fd)
                status = disk.stat(name, dir_fd=fd)
        except FileNotFoundError:
            return None
        image = self._image(data, record.kept)
        return None if image is None else (image, rows.artifact(image, record.kept, status.st_mtime_ns))

    def _lose(self, record: parts.AttemptRecord) -> None:
        now = self._settings.now_us()
        self._ledger.run(lambda c: rows.lose(c, record.attempt, reason=LOST, now=now))
        self._found.unknown += 1
        self._found.unknown_microusd += record.reserved_microusd
        reach("recover-unknown")

    # --- files

    def _note_touched(self) -> None:
        """Write down new times of files whose bytes are the same, so that they are not hashed again.

        In a bucket that is left to the plan, which lists it once.
        """
        tree = self._tree
        if tree is None:
            return
        touched: list[tuple[str, Artifact, int]] = []
        with LedgerReader(self._state.root, manifest=self._settings.manifest) as reader:
            for task_id, artifact, found in compare_files(tree, reader.all_done()):
                if found is FileComparison.TOUCHED:
                    with tree.at(artifact.path) as (fd, name):
                        touched.append((task_id, artifact, tree.disk.stat(name, dir_fd=fd).st_mtime_ns))
        if touched:
            self._ledger.run(lambda c: rows.touch(c, self._settings.manifest, touched))

"""Images as objects: put if absent under their final name, with their facts as metadata.

An object is whole or not there, so there are no parts. An image that cannot be put is kept in rejected/ of the state
directory, and the next start publishes it without a request (P2). One that was put and not recorded is found again
by the ledger and attempt in its metadata (P1). Synchronous; thread-safe.
"""

import contextlib
import hashlib
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from dataclasses import replace
from threading import Thread
from typing import Any, Final, TypeVar

from pipeline.buckets import Bucket, BucketError, ObjectExists, ObjectFacts, StoredObject
from pipeline.errors import Conflict, StorageError
from pipeline.failpoint import reach
from pipeline.imaging.formats import describe
from pipeline.model import OUTPUT_SUFFIXES, SIDECAR, Artifact, Image, Sidecar
from pipeline.store import rows
from pipeline.store.files import FileComparison
from pipeline.store.rejected import RejectedFolder
from pipeline.store.writer import Delivery, keep, superseded_names

T = TypeVar("T")
SUPERSEDED: Final = ".superseded/"  # below the prefix
SIDECAR_MIME: Final = "application/rdf+xml"  # XMP
GRACE_S: Final = 1.0  # of the 2 s that a second signal leaves


def create(bucket: Bucket, path: str, data: bytes, mime: str, facts: ObjectFacts) -> int:
    """Put an image under a free name; return its version. An answer that was lost does no harm.

    Raises ObjectExists: somebody else's object has the name. BucketError.
    """
    try:
        return bucket.put_new(path, data, facts.attributes(mime))
    except ObjectExists:
        found = bucket.look(path)
        if found is None or found.facts != facts:
            raise
        return found.version


def find_object(
    bucket: Bucket,
    *,
    ledger_id: str,
    attempt: int,
    name: str,
    look: Callable[[str], StoredObject | None] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Image, Artifact] | None:
    """Return the image that an attempt put; None: it put none, or what stands there is another one.

    `look`: one that remembers. `note`: called where the bytes are not what was put.
    """
    for path in (name + suffix for suffix in OUTPUT_SUFFIXES):
        found = (look or bucket.look)(path)
        if found is None or found.facts is None or (found.facts.ledger, found.facts.attempt) != (ledger_id, attempt):
            continue
        data = bucket.read(path) or b""
        if hashlib.sha256(data).hexdigest() == found.facts.sha256:
            image = describe(data)
            return image, rows.artifact(image, path, found.version)
        note(f"{path} is not what was put there; it was left as it is")
    return None


def _is_copy(there: StoredObject | None, found: StoredObject) -> bool:
    """Say whether nothing but a copy of `found` stands there; a copy may have another ETag (encryption)."""
    if there is None or there.version == found.version:
        return True
    return found.facts is not None and there.facts == found.facts


class BucketWriter:
    """Puts images into one bucket, with the methods of `store.writer.Writer`."""

    def __init__(self, bucket: Bucket, *, rejected: RejectedFolder, force: bool = False) -> None:
        """`force`: an image of ours that was edited since makes way too (to `.superseded/`)."""
        self._bucket = bucket
        self._rejected = rejected
        self._force = force
        self._abandoned: Future[None] = Future()

    def publish(self, delivery: Delivery) -> Artifact:
        """Put an image under its final name (B3 and B4 at once).

        Raises Conflict: an object that may not be replaced has the name. StorageError: the bucket did not take it.
        Both say where the image was kept.
        """
        image, task = delivery.image, delivery.facts.task
        facts = ObjectFacts(ledger=delivery.ledger_id, attempt=delivery.attempt, task=task, sha256=image.sha256)
        try:
            version, kept = self._in_time(lambda: self._put(delivery, facts))
        except ObjectExists:
            raise self._conflict(delivery) from None
        except BucketError as error:
            raise self._unpublished(delivery, error) from None
        reach("link")
        if kept is not None:
            self._rejected.drop(kept)
        return rows.artifact(image, delivery.path, version)

    def abandon(self) -> None:
        """Stop waiting for the service: what it has not taken after `GRACE_S` is kept in rejected/ (P10)."""
        with contextlib.suppress(InvalidStateError):  # a second time
            self._abandoned.set_result(None)

    def _in_time(self, put: Callable[[], tuple[int, str | None]]) -> tuple[int, str | None]:
        """Put in a thread that a process may leave behind; raises BucketError once the run was stopped.

        It may be carried out all the same: the next start finds the object, and takes it for what it is.
        """
        outcome: Future[tuple[int, str | None]] = Future()
        Thread(target=_resolve, args=(outcome, put), name="put", daemon=True).start()
        either: tuple[Future[Any], ...] = (outcome, self._abandoned)
        wait(either, return_when=FIRST_COMPLETED)
        if not wait((outcome,), timeout=GRACE_S if self._abandoned.done() else None).done:
            raise BucketError(f"{self._bucket.url}: the run was stopped while it was put", is_permanent=False)
        return outcome.result()

    def _put(self, delivery: Delivery, facts: ObjectFacts) -> tuple[int, str | None]:
        """Return the version of the new object, and the name in rejected/ of the image that stands in for it."""
        kept = self._make_way(delivery, facts)
        reach("put")
        return create(self._bucket, delivery.path, delivery.image.data, delivery.image.mime, facts), kept

    def drop_part(self, ledger_id: str, attempt: int, artifact: Artifact) -> None:
        """Do nothing: a bucket has no parts."""

    def compare(self, artifact: Artifact) -> FileComparison:
        """Compare an object's size and ETag with its record. Raises BucketError."""
        found = self._bucket.look(artifact.path)
        if found is None:
            return FileComparison.MISSING
        return FileComparison.SAME if found.is_as_recorded(artifact) else FileComparison.CHANGED

    def write_beside(self, artifact: Artifact, sidecar: Sidecar) -> None:
        """Put a sidecar; somebody else's is left alone. What cannot be put stands in the ledger all the same."""
        path, attributes = artifact.path + SIDECAR, {"Content-Type": SIDECAR_MIME}
        with contextlib.suppress(BucketError, ObjectExists):
            try:
                self._bucket.put_new(path, sidecar.data, attributes)
            except ObjectExists:
                if sidecar.mark not in (self._bucket.read(path) or b""):
                    return
                self._bucket.delete(path)
                self._bucket.put_new(path, sidecar.data, attributes)

    def link(self, artifact: Artifact, new: str) -> Artifact:
        """Copy an image to a second name, if that is free, by reading it: services cannot copy if absent.

        Raises FileExistsError: the name is taken. BucketError.
        """
        found, data = self._bucket.look(artifact.path), self._bucket.read(artifact.path)
        if found is None or data is None or found.facts is None:
            raise BucketError(f"{self._bucket.url}: {artifact.path} is gone or not ours", is_permanent=True)
        try:
            version = create(self._bucket, new, data, artifact.mime, found.facts)
        except ObjectExists:
            raise FileExistsError(new) from None
        reach("link")
        return replace(artifact, path=new, mtime_ns=version)

    def unlink(self, path: str, *, renamed: str | None = None) -> None:  # noqa: ARG002 - no two names are one here
        """Delete an object; one that is not there is no error. Raises BucketError."""
        self._bucket.delete(path)

    def move_beside(self, old: str, new: str) -> None:
        """Take a sidecar along where its new name is free."""
        with contextlib.suppress(BucketError, ObjectExists):
            data = self._bucket.read(old)
            if data is not None:
                self._bucket.put_new(new, data, {"Content-Type": SIDECAR_MIME})
                self._bucket.delete(old)

    def _make_way(self, delivery: Delivery, facts: ObjectFacts) -> str | None:
        """Move the task's own earlier image to `.superseded/`; return the name in rejected/ of the new one.

        The new image is durable there before the old one is moved, so that a kill in between loses neither.
        """
        old = delivery.previous
        found = None if old is None else self._bucket.look(old.path)
        if old is None or found is None or found.facts == facts:
            return None
        if not self._force and not found.is_as_recorded(old):
            return None  # edited since: if it has our name, the put will say so
        waiting = keep(self._rejected, delivery)
        reach("kept")
        self._bucket.copy(old.path, self._superseded_path(delivery, old.path, found))
        reach("superseded")
        self._bucket.delete(old.path)
        return waiting.rpartition("/")[2]

    def _superseded_path(self, delivery: Delivery, path: str, found: StoredObject) -> str:
        """Return a free name, or that of a copy of this very image, made before a kill."""
        names = superseded_names(path.rpartition("/")[2], delivery.previous_maker)
        paths = (f"{SUPERSEDED}{delivery.ledger_id}-{name}" for name in names)
        return next(new for new in paths if _is_copy(self._bucket.look(new), found))

    def _conflict(self, delivery: Delivery) -> Conflict:
        kept = keep(self._rejected, delivery)
        place = f"{self._bucket.url}/{delivery.path}"
        return Conflict(
            f"{delivery.facts.task}: {place} is in the way and may not be replaced; the image was kept as {kept}. Move"
            " that object away and run this again: the image is published without a request",
            kept=kept,
        )

    def _unpublished(self, delivery: Delivery, error: BucketError) -> StorageError:
        kept = keep(self._rejected, delivery)
        return StorageError(
            f"{delivery.facts.task}: {delivery.path} could not be put: {error}; the image is in {kept} and is published"
            " by the next run, without a request"
        )


def _resolve(outcome: "Future[T]", work: Callable[[], T]) -> None:
    """Do work in this thread; its error is raised where the outcome is asked for."""
    try:
        outcome.set_result(work())
    except BaseException as error:  # seen by the thread that waits for the outcome
        outcome.set_exception(error)

"""Stores the images of a sender under their final names, and bodies without a usable image in `rejected/`.

The same for folders and buckets; how an image gets its name there is decided by `ImageResources.writer`.

Expected errors are returned as a `Failure` that says where the bytes were kept. Each call runs in one thread of the
writer pool from end to end; cancelling the caller stops only the wait.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

import aiofiles.os
import msgspec

from pipeline.buckets import Bucket
from pipeline.errors import ClosedFolder, Conflict, StorageError
from pipeline.failpoint import reach
from pipeline.imaging.formats import describe
from pipeline.model import KEPT, Answer, Artifact, Attempt, Billed, Failure, Fault, Image
from pipeline.pools import whole_pool
from pipeline.store import rows
from pipeline.store.bucket_writer import BucketWriter, find_object
from pipeline.store.parts import find_part
from pipeline.store.rejected import Facts
from pipeline.store.resources import ImageResources
from pipeline.store.tree import Tree
from pipeline.store.writer import Delivery, keep

T = TypeVar("T")
TAKEN_OVER: Final = "found in the output after its worker was lost"


class WriterPool:
    """The threads that write images. What they began is finished even when its caller is cancelled."""

    def __init__(self, threads: int) -> None:
        """Raises MemoryError: there are not enough threads."""
        self._threads = whole_pool(threads, "writer")
        self._unfinished = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<WriterPool, {self._unfinished} unfinished>"

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a whole step in one thread: one hop, however many file operations."""
        result: T = await aiofiles.os.wrap(function)(*arguments, executor=self._threads)
        return result

    async def finish(self, function: Callable[..., T], *arguments: object) -> T:
        """As `run`, and once begun it is finished, whether or not its caller is cancelled."""
        self._unfinished += 1
        self._idle.clear()
        return await asyncio.shield(self._counted(self.run(function, *arguments)))

    async def _counted(self, work: Coroutine[object, object, T]) -> T:
        try:
            return await work
        finally:
            self._unfinished -= 1
            if self._unfinished == 0:
                self._idle.set()

    async def aclose(self) -> None:
        """Wait for what was begun; end the threads."""
        await self._idle.wait()
        await asyncio.to_thread(self._threads.shutdown)


class StoredImages:
    """Images in whatever kind of place. All methods may be called concurrently."""

    def __init__(
        self, resources: ImageResources, pool: WriterPool, *, received: Callable[[int, str, str], None] | None = None
    ) -> None:
        """`received` is called with attempt, hash and path of an image before a rename gives up its part.

        None: this is a worker. It gives images free names only: what stands in the place of another one is moved by
        the process that has the ledger, for a worker that was frozen may go on whenever it likes.
        """
        self._settings = resources.settings
        self._resources = resources
        self._pool = pool
        self._received = received

    async def put(self, attempt: Attempt, answer: Answer) -> Artifact | Failure:
        """Give an image its final name durably (B3, B4); its part stays until `release`.

        A `Failure` with the fault CONFLICT or STORAGE: the image was kept, and the next start publishes it.
        """
        return await self._pool.finish(self._put, attempt, answer)

    async def keep_body(self, attempt: Attempt, failure: Failure) -> Failure:
        """Keep the body of an answer without a usable image in rejected/; return the failure without it.

        Its `storage_error` says when the disk did not take it.
        """
        return await self._pool.finish(self._keep_body, attempt, failure)

    async def publish_kept(self, attempt: Attempt, failure: Failure) -> Artifact | Failure:
        """Give the image that a worker kept its name, in the place of the task's earlier one."""
        return await self._search(self._publish_kept, attempt, failure)

    async def find(self, attempt: Attempt) -> Artifact | Failure | None:
        """Find the image of an attempt whose sender died, and publish it where only its part stands (P1).

        None: there is none, or not yet; the next start looks again.
        """
        return await self._search(self._find, attempt)

    async def take_earlier(self, attempt: Attempt, failure: Failure, earlier: Attempt) -> Artifact | Failure:
        """Take the image of an earlier attempt, given up for unknown, that has the name by now; reject this one's.

        Returns `failure` where it is not that image which is in the way.
        """
        return await self._search(self._take_earlier, attempt, failure, earlier)

    async def _search(self, work: Callable[..., T], attempt: Attempt, *others: object) -> T:
        """Do work on what a worker left. Raises StorageError: the run stops, and the next start looks again."""
        try:
            return await self._pool.finish(work, attempt, *others)
        except OSError as error:
            why = error.strerror or error
            raise StorageError(f"{attempt.task.id}: its image could not be looked for ({why})") from error

    def abandon(self) -> None:
        """Stop waiting for a service that takes images slowly: they are kept, and the next start publishes them."""
        if isinstance(self._resources.writer, BucketWriter):  # a disk is waited for
            self._resources.writer.abandon()

    async def release(self, attempt: Attempt, artifact: Artifact) -> None:
        """Remove the part of an image that is recorded as done (step 9)."""
        await self._pool.finish(self._release, attempt, artifact)

    def _find(self, attempt: Attempt) -> Artifact | Failure | None:
        outputs, name = self._resources.outputs, attempt.task.name
        if isinstance(outputs, Bucket):
            found = find_object(outputs, ledger_id=self._resources.ledger_id, attempt=attempt.id, name=name)
            return None if found is None else self._checked(attempt, *found)
        image = find_part(outputs, ledger_id=self._resources.ledger_id, attempt=attempt.id, name=name)
        if image is None:
            return None
        result = self._put(attempt, Answer(image=image, notes=(TAKEN_OVER,)), is_written=True)
        return self._checked(attempt, image, result) if isinstance(result, Artifact) else result

    def _checked(self, attempt: Attempt, image: Image, artifact: Artifact) -> Artifact:
        record: dict[str, Any] = msgspec.json.decode(rows.record_of(attempt.task, self._settings.state_dir))
        return self._resources.checked({**record, "fingerprint": attempt.task.fingerprint}, image, artifact)

    def _publish_kept(self, attempt: Attempt, failure: Failure) -> Artifact | Failure:
        rejected = self._resources.rejected
        kept = rejected.find_image(attempt.id)
        if kept is None:  # kept by a worker that does not see the state directory
            rejected.collect(self._resources.outputs, attempt=attempt.id)
            kept = rejected.find_image(attempt.id)
        if kept is None:
            return replace(failure, storage_error=f"{attempt.task.id}: its image was kept and is not found")
        answer = Answer(image=describe(kept.path.read_bytes()), usage=failure.usage, request_id=failure.request_id)
        result = self._put(attempt, replace(answer, response_id=failure.response_id))
        if not isinstance(result, Artifact):
            return result
        rejected.drop(kept.name)
        return self._checked(attempt, answer.image, result)

    def _take_earlier(self, attempt: Attempt, failure: Failure, earlier: Attempt) -> Artifact | Failure:
        found = self._find(earlier)
        if not isinstance(found, Artifact):
            return failure
        resources, note = self._resources, f"brought by attempt {earlier.number}, whose worker was lost for a while"
        if isinstance(resources.outputs, Tree):
            mine = find_part(
                resources.outputs, ledger_id=resources.ledger_id, attempt=attempt.id, name=attempt.task.name
            )
            if mine is not None:
                resources.rejected.keep(mine.data, mine.suffix, self._delivery(attempt, Answer(image=mine)).facts)
                resources.writer.drop_part(resources.ledger_id, attempt.id, replace(found, sha256=mine.sha256))
        return replace(found, usage=failure.usage, request_id=failure.request_id, notes=(note,))

    def _put(self, attempt: Attempt, answer: Answer, *, is_written: bool = False) -> Artifact | Failure:
        delivery = self._delivery(attempt, answer)
        delivery.is_part_whole = is_written
        try:
            if self._received is None and attempt.previous is not None:
                where = StorageError(f"its image is in {keep(self._resources.rejected, delivery)}")
                return replace(_unpublished(answer, where), storage_error=None, code=KEPT)
            artifact = self._resources.writer.publish(delivery)
        except StorageError as error:
            return _unpublished(answer, error)
        if answer.sidecar is not None:
            self._resources.writer.write_beside(artifact, answer.sidecar)
        return replace(
            artifact,
            usage=answer.usage,
            model_version=answer.model_version,
            response_id=answer.response_id,
            request_id=answer.request_id,
            notes=answer.notes,
            doubts=answer.doubts,
        )

    def _keep_body(self, attempt: Attempt, failure: Failure) -> Failure:
        assert failure.body is not None
        trouble: str | None = None
        try:
            self._resources.rejected.keep(failure.body, failure.suffix, self._facts_of_body(attempt, failure))
        except OSError as error:
            trouble = f"{attempt.task.id}: its answer could not be kept in rejected/: {error.strerror}"
        return replace(failure, body=None, storage_error=trouble)

    def _release(self, attempt: Attempt, artifact: Artifact) -> None:
        self._resources.writer.drop_part(self._resources.ledger_id, attempt.id, artifact)
        reach("unlink")

    def _delivery(self, attempt: Attempt, answer: Answer) -> Delivery:
        image = answer.image
        return Delivery(
            ledger_id=self._resources.ledger_id,
            attempt=attempt.id,
            image=image,
            name=attempt.task.name,
            previous=attempt.previous,
            previous_maker=attempt.previous_maker,
            received=lambda path: self._receive(attempt, image, path),
            facts=Facts(
                attempt=attempt.id,
                manifest=self._settings.manifest,
                task=attempt.task.id,
                at=self._settings.clock().isoformat(),
                reason="the image could not be written to its place",
                is_image=True,
                name=attempt.task.name,
                mime=image.mime,
                request_id=answer.request_id,
            ),
        )

    def _receive(self, attempt: Attempt, image: Image, path: str) -> None:
        if self._received is None:
            raise StorageError(f"{attempt.task.id}: this worker's output directory has no hard links")
        self._received(attempt.id, image.sha256, path)

    def _facts_of_body(self, attempt: Attempt, failure: Failure) -> Facts:
        return Facts(
            attempt=attempt.id,
            manifest=self._settings.manifest,
            task=attempt.task.id,
            at=self._settings.clock().isoformat(),
            reason=rows.text(failure.reason),
            fault=failure.fault.value,
            status=failure.status,
            code=failure.code,
            request_id=failure.request_id,
        )


def _unpublished(answer: Answer, error: StorageError) -> Failure:
    """Return the failure of an image that was paid for, is kept, and has no final name."""
    conflict = error if isinstance(error, Conflict) else None
    closed = error.folder if isinstance(error, ClosedFolder) else None
    return Failure(
        fault=Fault.STORAGE if conflict is None else Fault.CONFLICT,
        billed=Billed.YES,
        reason=str(error),
        status=200,
        request_id=answer.request_id,
        response_id=answer.response_id,
        usage=answer.usage,
        image_sha256=answer.image.sha256,
        kept=None if conflict is None else conflict.kept,
        storage_error=str(error) if conflict is None and closed is None else None,
        closed_folder=closed,
    )

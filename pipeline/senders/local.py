"""Performs attempts in this process: one request, its answer parsed in a thread, its image written durably.

Once the whole answer has arrived, nothing here is cancelled: `abandon` ends only the wait for answers. Where a task
asks for it (`metadata: embed`), the image gets its record before it is hashed and written, so that ledger, `verify` and
`explain` agree about it.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePath
from typing import Final, Protocol, Self

from pipeline import __version__
from pipeline.imaging.metadata import embed, is_signed, sidecar
from pipeline.model import PARAMETERS, Answer, Artifact, Attempt, Billed, Failure, Fault, Reply, Task
from pipeline.pools import whole_pool
from pipeline.senders.checker import ImageChecker

READERS: Final = 1  # threads that judge answers: one reads 1 GB/s. A second one, measured on 2 cores with answers of
# 14 MB, took 5 % more CPU and doubled the loop's lateness (p99 19 ms, not 10), as three threads shared two cores.
SIGNED: Final = "signed (C2PA), so it is left as it came; its record is in a file beside it"
FORM: Final = 1  # of the embedded record; a reader may rely on its names
STOPPED: Final = Failure(
    fault=Fault.SILENCE, billed=Billed.MAYBE, reason="the run was stopped before the answer came", code="stopped"
)


class ProviderClient(Protocol):
    """One exchange over the wire, and the judgement of its answer."""

    async def send(self, task: Task) -> Reply | Failure:
        """Send one request and read its whole answer (B1 to B2). Cancelled: the outcome is unknown."""
        ...

    def read(self, reply: Reply, task: Task) -> Answer | Failure:
        """Judge an answer. Pure CPU work, safe in any thread."""
        ...


class Images(Protocol):
    """Where images are kept."""

    async def put(self, attempt: Attempt, answer: Answer) -> Artifact | Failure:
        """Give an image its final name durably (B3, B4)."""
        ...

    async def keep_body(self, attempt: Attempt, failure: Failure) -> Failure:
        """Keep the body of an answer without a usable image; return the failure without it."""
        ...

    def abandon(self) -> None:
        """Stop waiting for the place that takes images; they are kept elsewhere."""
        ...


class LocalSender:
    """Sends attempts from this process. An async context manager: it owns the thread that judges answers."""

    def __init__(self, client: ProviderClient, images: Images, *, manifest: str) -> None:
        """`manifest`: its name, for the embedded record."""
        self._client = client
        self._images = images
        self._manifest = manifest
        self._readers = whole_pool(READERS, "read")
        self._checker = ImageChecker()
        self._waits: set[asyncio.Timeout] = set()
        self._is_abandoned = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._readers.shutdown(wait=False)
        self._checker.close()

    async def send(self, attempt: Attempt) -> Artifact | Failure:
        """Send one request and keep what it brings; see `engine.attempt.AttemptSender`."""
        result: Reply | Answer | Failure = await self._exchange(attempt.task)
        if isinstance(result, Reply):
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self._readers, self._judge, result, attempt.task)
        if isinstance(result, Answer):
            return await self._put(attempt, result)
        return result if result.body is None else await self._images.keep_body(attempt, result)

    def abandon(self) -> None:
        """Stop waiting for answers; what has arrived is kept."""
        if self._is_abandoned:
            return
        self._is_abandoned = True
        self._images.abandon()
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    async def _exchange(self, task: Task) -> Reply | Failure:
        wait = asyncio.timeout(0 if self._is_abandoned else None)
        self._waits.add(wait)
        try:
            async with wait:
                return await self._client.send(task)
        except TimeoutError:
            if not wait.expired():
                raise
            return STOPPED
        finally:
            self._waits.discard(wait)

    def _judge(self, reply: Reply, task: Task) -> Answer | Failure:
        result = self._client.read(reply, task)
        if isinstance(result, Failure) or not task.embed:
            return result
        return embedded(result, task, manifest=self._manifest, at=datetime.now(UTC))

    async def _put(self, attempt: Attempt, answer: Answer) -> Artifact | Failure:
        try:
            kept = await self._images.put(attempt, answer)
            if isinstance(kept, Failure) or not attempt.task.checks.names:
                return kept
            found = await self._checker.check(answer.image, attempt.task)
            return replace(kept, flags=found.flags, look=found.look)
        finally:  # an error's traceback may have the image until the collector comes, and others wait for its memory
            if answer.hold is not None:
                answer.hold.release()


def embedded(answer: Answer, task: Task, *, manifest: str, at: datetime) -> Answer:
    """Return the answer with the record in its image; beside it where the image is signed or takes none."""
    image, record = answer.image, provenance_record(answer, task, manifest=manifest, at=at)
    if is_signed(image.data):
        return replace(answer, sidecar=sidecar(record), notes=(*answer.notes, SIGNED))
    try:
        data = embed(image.data, image.mime, record)
    except Exception as error:  # seen in the attempt's notes: an image that was paid for is kept as it came
        why = f"its record is in a file beside it: {error}"
        return replace(answer, sidecar=sidecar(record), notes=(*answer.notes, why))
    return replace(answer, image=replace(image, data=data, sha256=sha256(data).hexdigest()))


def provenance_record(answer: Answer, task: Task, *, manifest: str, at: datetime) -> dict[str, object]:
    """Return what an image says of itself."""
    return {
        "form": FORM,
        "program": f"imgpipe {__version__}",
        "made_at": at.isoformat(timespec="seconds"),
        "manifest": manifest,
        "task": task.id,
        "job": task.job,
        "row": task.row,
        "variant": task.variant,
        "matrix": task.matrix,
        "prompt": task.prompt,
        "system": task.system,
        "model": task.model,
        "model_version": answer.model_version,
        "parameters": {name: value for name in PARAMETERS if (value := getattr(task, name)) not in (None, {})},
        "inputs": [{"name": PurePath(image.path).name, "sha256": image.sha256} for image in task.images],
        "fingerprint": task.fingerprint,
        "response_id": answer.response_id,
        "request_id": answer.request_id,
    }

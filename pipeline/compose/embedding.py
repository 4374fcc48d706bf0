"""Where an image comes from, written into its file before it is hashed and published (`metadata: embed`).

In: a provider, and the tasks' own wish. Out: the same provider, whose images carry a record; the hash is that of the
file as it will lie on disk, so that ledger, `verify` and `explain` agree about it. A signed image stays as it came, and
its record goes into a file beside it. The engine knows nothing of it.
The record names no folder of this machine and no cell of a row: only what the request itself says.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePath
from typing import Final

from pipeline import __version__
from pipeline.engine.ports import Provider
from pipeline.model import Answer, Failure, Reply, Task
from pipeline.report.provenance import embed, is_signed, sidecar

Clock = Callable[[], datetime]
SIGNED: Final = "signed (C2PA), so it is left as it came; its record is in a file beside it"
FORM: Final = 1  # of the record; a reader may rely on the names below


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Embedding:
    """A provider whose images carry their provenance, where the task asks for it."""

    def __init__(self, provider: Provider, *, manifest: str, clock: Clock = _utc_now) -> None:
        self._provider = provider
        self._manifest = manifest
        self._clock = clock

    async def send(self, task: Task) -> Reply | Failure:
        """Send a task's request once."""
        return await self._provider.send(task)

    def read(self, reply: Reply, task: Task) -> Answer | Failure:
        """Judge an answer; its image gets the record."""
        result = self._provider.read(reply, task)
        if isinstance(result, Failure) or not task.embed:
            return result
        return embedded(result, task, manifest=self._manifest, at=self._clock())


def embedded(answer: Answer, task: Task, *, manifest: str, at: datetime) -> Answer:
    """Return the answer with the record in its image; beside it where the image is signed.

    An image that takes none is kept as it came, with a note.
    """
    image = answer.image
    if is_signed(image.data):
        record = record_of(answer, task, manifest=manifest, at=at)
        return replace(answer, sidecar=sidecar(record), notes=(*answer.notes, SIGNED))
    try:
        data = embed(image.data, image.mime, record_of(answer, task, manifest=manifest, at=at))
    except Exception as error:  # seen in the attempt's notes: an image that was paid for is kept, with a record or not
        return replace(answer, notes=(*answer.notes, f"no record was embedded: {error}"))
    return replace(answer, image=replace(image, data=data, sha256=sha256(data).hexdigest()))


def record_of(answer: Answer, task: Task, *, manifest: str, at: datetime) -> dict[str, object]:
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
        "parameters": parameters(task),
        "inputs": [{"name": PurePath(image.path).name, "sha256": image.sha256} for image in task.images],
        "fingerprint": task.fingerprint,
        "response_id": answer.response_id,
        "request_id": answer.request_id,
    }


def parameters(task: Task) -> dict[str, object]:
    """Return the parameters that the request sets, by their names in the manifest."""
    named: dict[str, object] = {
        "aspect_ratio": task.aspect_ratio,
        "size": task.size,
        "seed": task.seed,
        "temperature": task.temperature,
        "params": task.params or None,
        "safety": task.safety or None,
    }
    return {name: value for name, value in named.items() if value is not None}

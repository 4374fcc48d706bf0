"""`rejected`: lists the answers in `rejected/`, and reads them again with today's parser (`--salvage`).

An image found in one is published without a request. The kept answer is removed only when its image stands under its
task's name.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from pipeline.app.context import Setup
from pipeline.app.locking import open_store, recorded_task
from pipeline.app.planning import reading
from pipeline.imaging.formats import BrokenImageError, inspect
from pipeline.model import IMAGE_SUFFIXES, Answer, Failure, Image, Reply, Task
from pipeline.provider.redact import Redactor
from pipeline.provider.responses import AnswerReader
from pipeline.senders.local import embedded
from pipeline.store.maintenance import Maintenance
from pipeline.store.parts import Recovery
from pipeline.store.reader import LedgerReader
from pipeline.store.rejected import Rejected, list_rejected


def rejected(setup: Setup) -> list[Rejected]:
    """Return the answers of this manifest that could not be published, oldest first; those of nobody are listed too."""
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
    salvaged = Salvaged()
    async with open_store(setup) as store:
        recovery = await store.recover()
        salvaged.left += recovery.notes
        with reading(setup) as reader:
            answers = AnswerReader(Redactor(""), setup.catalogue)
            for kept in rejected(setup):
                image = _read(kept, setup, reader, answers)
                if isinstance(image, str):
                    salvaged.left.append(f"{kept.name}: {image}")
                    continue
                found = await store.maintain(partial(_publish, kept, image))
                if found.recovered and kept.facts is not None:
                    salvaged.published.append(kept.facts.task)
                else:
                    reason = "its task has another image, or asks for another one"
                    salvaged.left += found.notes or [f"{kept.name}: {reason}"]
    return salvaged


def _publish(kept: Rejected, image: Image, mender: Maintenance) -> Recovery:
    return mender.publish_again(kept, image)


def _read(kept: Rejected, setup: Setup, reader: LedgerReader, answers: AnswerReader) -> Image | str:
    """Return the image of a body, or why there is none."""
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
    return _with_record(result, task, setup).image


def _with_record(answer: Answer, task: Task, setup: Setup) -> Answer:
    return embedded(answer, task, manifest=setup.manifest.name, at=datetime.now(UTC)) if task.embed else answer

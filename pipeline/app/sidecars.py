"""The record that is kept beside a signed image, made from the ledger's record of its request.

Apart from the sender, which has the task itself: here are images that are published later, by recovery or salvage.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from pipeline.app.context import Setup
from pipeline.model import Answer, Digests, Image, InputImage, Sidecar, Task
from pipeline.store.resources import Beside


def sidecars_of(setup: Setup) -> Beside:
    """Return what makes the sidecar of an image of this manifest; it makes None where the image needs none."""

    def beside(record: Mapping[str, Any], image: Image) -> Sidecar | None:
        if not record.get("embed"):
            return None
        from pipeline.senders.local import embedded  # asyncio's and Pillow's weight: not for a start that finds nothing

        task = recorded_task(record)
        return embedded(Answer(image=image), task, manifest=setup.manifest.name, at=datetime.now(UTC)).sidecar

    return beside


def recorded_task(record: Mapping[str, Any] | None) -> Task:
    """Return the task as the ledger remembers its request; a bare one where it remembers none."""
    bare = {"id": "", "job": "", "row": "", "variant": 1, "prompt": "", "model": "", "name": "", "fingerprint": ""}
    known: dict[str, Any] = dict(record) if record is not None else dict(bare)
    images = tuple(InputImage(**image, mtime_ns=0) for image in known.pop("images", ()))
    digests = Digests(prompt="", inputs="", params="", model="")
    try:
        task = msgspec.convert({**known, "digests": digests}, Task)
    except msgspec.ValidationError:
        task = msgspec.convert({**bare, "digests": digests}, Task)
    return msgspec.structs.replace(task, images=images)

"""Builds the JSON body of a request from a task and its input images.

All names in camelCase: the gateway drops other spellings without a word. Not part of `client`, because it is the one
place that writes the API's format, without I/O.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import pybase64

from pipeline.model import Task, Tier
from pipeline.provider.catalogue import Catalogue

IMAGE_BYTES = 7_000_000  # of one input image; more is refused by some of the API's front ends
REQUEST_BYTES = 14_000_000  # of all of them: 18.7 MB as Base64, under the 20 MB a request may have


class Ready(NamedTuple):
    """One input image as it is sent."""

    mime: str
    data: bytes


def body(task: Task, images: Sequence[Ready], catalogue: Catalogue) -> bytes:
    """Return the request's JSON: the prompt first, then the images in their order, as plain Base64.

    Raises: UnicodeEncodeError for text that is not Unicode.
    """
    parts: list[object] = [{"text": task.prompt}, *(_inline(image) for image in images)]
    request: dict[str, object] = {"contents": [{"role": "user", "parts": parts}]}
    if task.system is not None:
        request["systemInstruction"] = {"parts": [{"text": task.system}]}
    request["generationConfig"] = generation_config(task, catalogue)
    if task.tier is not Tier.STANDARD:
        request["service_tier"] = task.tier  # https://ai.google.dev/gemini-api/docs/flex-inference spells it so
    if task.safety:
        request["safetySettings"] = [{"category": c, "threshold": t} for c, t in task.safety.items()]
    return msgspec.json.encode(request)


def generation_config(task: Task, catalogue: Catalogue) -> dict[str, object]:
    """Return the parameters of generation; the task's own `params` are merged in last and win."""
    config: dict[str, object] = {"responseModalities": ["IMAGE"]}
    size = None if task.size is None else catalogue.image_size(task.model, task.size)
    wanted = {"aspectRatio": task.aspect_ratio, "imageSize": size}
    image = {name: value for name, value in wanted.items() if value is not None}
    if image:
        config["imageConfig"] = image
    numbers = {"seed": task.seed, "temperature": task.temperature}
    config |= {name: number for name, number in numbers.items() if number is not None}
    if task.thinking is not None:
        config["thinkingConfig"] = {"thinkingLevel": task.thinking}
    return _merged(config, task.params)


def most_bytes(task: Task) -> int:
    """Return about how much memory the request will need while it is made and sent."""
    images = sum(min(image.size_bytes, IMAGE_BYTES) * 7 // 3 for image in task.images)  # as read, and as Base64
    return len(task.prompt) * 2 + 4096 + images


def _inline(image: Ready) -> dict[str, object]:
    return {"inlineData": {"mimeType": image.mime, "data": pybase64.b64encode_as_string(image.data)}}


def _merged(under: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged

"""Builds the JSON body of a request from a task and its input images.

All names in camelCase: the gateway drops other spellings without a word. Each input, a file or an object, is read once
and proven to be what the plan saw; it is never touched. What the API takes is sent as it is, less its metadata; the
rest is converted in child processes (`imaging.convert`).
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from typing import NamedTuple

import msgspec
import pybase64

from pipeline.buckets import BucketError, Locations
from pipeline.errors import InputError
from pipeline.imaging.convert import OutOfMemoryError, convert
from pipeline.imaging.decoder import Decoder, DecoderDiedError, DecoderError
from pipeline.imaging.formats import MAX_PIXELS, BrokenImageError, measure, sniff
from pipeline.imaging.metadata import orientation_of, strip
from pipeline.model import HEIC_TYPES, InputImage, Task, Tier, is_object
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


_FILE_BYTES = 512 * 2**20  # of one file; larger ones are not pictures
_REMEMBERED_BYTES = 32 * 2**20  # of converted pictures: one reference image may serve a thousand tasks
_PROCESSES = min(4, os.cpu_count() or 1)
_CONVERTIBLE = frozenset({"image/gif", "image/bmp", "image/tiff", "image/avif"})


class UnfitError(Exception):
    """An input image cannot be sent; the text names the file and says why."""


class LocalTroubleError(UnfitError):
    """An input image cannot be read or converted here and now: its folder, time, memory or an extra is lacking."""


class InputImages:
    """Reads and converts input images; starts its processes when the first picture needs one."""

    def __init__(self) -> None:
        self._decoders: list[Decoder] = []  # as many as ever ran at once
        self._idle: list[Decoder] = []
        self._locations = Locations()
        self._slots = asyncio.Semaphore(_PROCESSES)
        self._remembered: OrderedDict[tuple[str, bool, int], Ready] = OrderedDict()

    async def load(self, images: Sequence[InputImage], *, keep_metadata: bool) -> list[Ready]:
        """Return the images in their order, ready to send.

        Raises: UnfitError, LocalTroubleError.
        """
        ready = [await self._load(image, keep_metadata, IMAGE_BYTES) for image in images]
        if sum(len(one.data) for one in ready) <= REQUEST_BYTES:
            return ready
        most = REQUEST_BYTES // len(images)
        return [
            one if len(one.data) <= most else await self._load(image, keep_metadata, most)
            for one, image in zip(ready, images, strict=True)
        ]

    async def aclose(self) -> None:
        """End the processes, whatever they are doing."""
        for decoder in self._decoders:
            await asyncio.to_thread(decoder.close)

    async def _load(self, image: InputImage, keep_metadata: bool, most_bytes: int) -> Ready:
        """Return one image; reasons name the file only, because the ledger holds no absolute path."""
        try:
            return await self._ready(image, keep_metadata, most_bytes)
        except UnfitError as error:
            name = os.path.basename(image.path)  # noqa: PTH119 - names that are not UTF-8 stay strings
            raise type(error)(f"{name}: {error}") from error

    async def _ready(self, image: InputImage, keep_metadata: bool, most_bytes: int) -> Ready:
        known, is_remote = (image.sha256, keep_metadata, most_bytes), is_object(image.path)
        if is_remote and known in self._remembered:  # a reference is not fetched for every task
            return self._recalled(known)
        data = await asyncio.to_thread(read_as_planned, image, self._locations)
        async with self._slots:
            if known in self._remembered:
                return self._recalled(known)
            ready = await asyncio.to_thread(as_it_is, data, keep_metadata)
            is_converted = ready is None or len(ready.data) > most_bytes
            if ready is None or is_converted:
                ready = await self._convert(data, most_bytes, keep_metadata)
            if is_converted or is_remote:
                self._remembered[known] = ready
                while sum(len(one.data) for one in self._remembered.values()) > _REMEMBERED_BYTES:
                    self._remembered.popitem(last=False)
            return ready

    async def _convert(self, data: bytes, most_bytes: int, keep_metadata: bool) -> Ready:
        if not self._idle:
            self._idle.append(Decoder())
            self._decoders += self._idle
        decoder = self._idle.pop()
        arguments = (data, most_bytes, MAX_PIXELS, keep_metadata)
        try:
            return Ready(*await asyncio.to_thread(decoder.call, convert, *arguments))
        except DecoderError as error:
            kind = LocalTroubleError if error.kind == OutOfMemoryError.__name__ else UnfitError
            raise kind(f"{error}") from error
        except DecoderDiedError as error:
            if error.has_crashed:
                raise UnfitError("cannot be converted: its decoder crashes on it") from error
            raise LocalTroubleError("cannot be converted here: it takes too much time or memory") from error
        except asyncio.CancelledError:  # the thread still waits for it
            decoder.close()
            raise
        finally:
            self._idle.append(decoder)

    def _recalled(self, known: tuple[str, bool, int]) -> Ready:
        self._remembered.move_to_end(known)
        return self._remembered[known]


def read_as_planned(image: InputImage, locations: Locations) -> bytes:
    """Read an image once, whatever it is now.

    Raises: LocalTroubleError when it cannot be read. UnfitError when it is no picture by its kind or size, or has other
    bytes than planned.
    """
    try:
        data = locations.read(image.path, most_bytes=_FILE_BYTES)
    except OSError as error:
        raise LocalTroubleError(f"{error.strerror or error}") from error
    except (BucketError, InputError) as error:
        raise LocalTroubleError(f"{error}") from None
    if data is None and is_object(image.path):
        raise LocalTroubleError("it is gone")
    if data is None:
        raise UnfitError(f"not a regular file, or larger than {_FILE_BYTES >> 20} MB")
    if sha256(data).hexdigest() != image.sha256:
        raise UnfitError("changed since the plan; run again to plan with it as it is now")
    return data


def as_it_is(data: bytes, keep_metadata: bool) -> Ready | None:
    """Return the image as it can be sent without decoding it; None when it has to be converted.

    A photograph that lies on its side is converted too: models see the pixels, and not what its EXIF says of them.

    Raises: UnfitError for what is no image; LocalTroubleError for a kind whose extra is not installed.
    """
    mime = sniff(data)[0]
    if mime in _CONVERTIBLE:
        return None
    if mime in HEIC_TYPES:
        return _heic(data, mime, keep_metadata)
    try:
        found = measure(data)
    except BrokenImageError as error:
        if mime == "image/jpeg":  # some cameras write what our walk does not know: a decoder has the last word
            return None
        raise UnfitError(f"cannot be sent: {error}") from error
    if not found.is_plain or found.width * found.height > MAX_PIXELS or orientation_of(data, mime) != 1:
        return None
    return Ready(mime, data if keep_metadata else strip(data, mime))


def _heic(data: bytes, mime: str, keep_metadata: bool) -> Ready | None:
    if find_spec("pillow_heif") is not None:
        return None
    if keep_metadata:
        return Ready(mime, data)
    raise LocalTroubleError(
        "HEIC needs a decoder to take its place and time out; "
        "install imgpipe[heic], or say keep_metadata: true to send it as it is"
    )

"""Flags images that are safe on disk: most by their header, the suspicious ones by their pixels.

Pixels are decoded in one limited child process, started when the first image needs it; what cannot be decoded there has
no flag. Twins are found where all images of a job are seen: around the sender of a run, whoever sends.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.imaging import checks
from pipeline.imaging.checks import Header, Pixels
from pipeline.imaging.decoder import Decoder, DecoderDiedError, DecoderError
from pipeline.model import Artifact, Attempt, Failure, Image, Task
from pipeline.settings import BLANK, SAME_AS_INPUT, TWIN

REMEMBERED: Final = 10_000  # pictures of a job that a new one is compared with: 1 ms


class Finding(NamedTuple):
    """What was found in one image: flag -> reason, and its perceptual hash where twins are looked for."""

    flags: dict[str, str]
    look: str = ""


class ImageChecker:
    """Checks images one by one. `close` ends its child process."""

    def __init__(self) -> None:
        self._decoder = Decoder()

    async def check(self, image: Image, task: Task) -> Finding:
        """Return what may be wrong with an image."""
        if _may_need_pixels(image, task):
            return await asyncio.to_thread(self.check_now, image, task)
        return Finding(_header_flags(image, task))

    def check_now(self, image: Image, task: Task) -> Finding:
        """Return the same, in a thread that may block."""
        names, header, flags = task.checks.names, _header(image), _header_flags(image, task)
        if BLANK in flags:
            return Finding(flags)
        given = _like_input(header, task)
        if not (given is not None or TWIN in names or (BLANK in names and checks.may_be_blank(header))):
            return Finding(flags)
        pixels = self._pixels(image.data)
        if pixels is None:
            return Finding(flags)
        if BLANK in names and checks.is_one_colour(pixels):
            return Finding({**flags, BLANK: "nearly one colour"})
        before = None if given is None else self._pixels(given)
        if before is not None and checks.is_same(pixels, before):
            flags = {**flags, SAME_AS_INPUT: "it looks like its input image"}
        return Finding(flags, f"{checks.perceptual_hash(pixels):064x}" if TWIN in names else "")

    def _pixels(self, source: bytes | str) -> Pixels | None:
        """Decode an image, or the file at a path; None: it cannot be decoded here, so nothing is flagged."""
        try:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            return checks.unpacked_pixels(self._decoder.call(checks.packed_pixels, data)[1])
        except (DecoderError, DecoderDiedError, OSError):
            return None

    def close(self) -> None:
        self._decoder.close()


def _header(image: Image) -> Header:
    return Header(image.mime, image.width, image.height, len(image.data))


def _header_flags(image: Image, task: Task) -> dict[str, str]:
    return checks.header_flags(_header(image), task.checks, aspect_ratio=task.aspect_ratio)


def _may_need_pixels(image: Image, task: Task) -> bool:
    names = task.checks.names
    is_blank = BLANK in names and checks.may_be_blank(_header(image))
    return is_blank or TWIN in names or (SAME_AS_INPUT in names and bool(task.images))


def _like_input(header: Header, task: Task) -> str | None:
    """Return the path of the first input when it may be what came back."""
    if SAME_AS_INPUT not in task.checks.names or not task.images:
        return None
    path = task.images[0].path
    given = checks.input_header(path)
    return path if given is not None and checks.may_be_input(header, given) else None


class TwinFinder:
    """Sends as another sender does, and flags images that are nearly the same as one of their job, of any run."""

    def __init__(
        self,
        send: Callable[[Attempt], Awaitable[Artifact | Failure]],
        abandon: Callable[[], None],
        *,
        known: Callable[[str], Mapping[str, str]],
    ) -> None:
        """`known` returns the perceptual hashes of a job's images by task, oldest first; it is asked once a job."""
        self._send = send
        self.abandon = abandon
        self._known = known
        self._looks: dict[str, dict[str, int]] = {}  # job -> task id -> perceptual hash

    async def send(self, attempt: Attempt) -> Artifact | Failure:
        result = await self._send(attempt)
        if isinstance(result, Failure) or not result.look:
            return result
        twin = self._twin(attempt.task, int(result.look, 16))
        return result if twin is None else replace(result, flags={**result.flags, TWIN: twin})

    def _twin(self, task: Task, look: int) -> str | None:
        if task.job not in self._looks:
            self._looks[task.job] = {each: int(hexes, 16) for each, hexes in self._known(task.job).items()}
        looks = self._looks[task.job]
        looks.pop(task.id, None)
        other = next((each for each, its in looks.items() if checks.are_twins(look, its)), None)
        looks[task.id] = look
        if len(looks) > REMEMBERED:
            del looks[next(iter(looks))]
        return None if other is None else f"nearly the same picture as {other}"

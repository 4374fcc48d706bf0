"""Flags images that are safe on disk: most by their header, the suspicious ones by their pixels.

Pixels are decoded in one limited child process, started when the first image needs it; what cannot be decoded there has
no flag.
"""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Final

from pipeline.imaging import checks
from pipeline.imaging.checks import Header, Pixels
from pipeline.imaging.decoder import Decoder, DecoderDiedError, DecoderError
from pipeline.model import Image, Task
from pipeline.settings import BLANK, SAME_AS_INPUT, TWIN

REMEMBERED: Final = 10_000  # pictures of a job that a new one is compared with


class ImageChecker:
    """Flags images of one run. `close` ends its child process."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._seen: defaultdict[str, dict[str, int]] = defaultdict(dict)  # job -> task id -> perceptual hash

    async def flags(self, image: Image, task: Task) -> dict[str, str]:
        """Return what may be wrong with an image: flag -> reason."""
        header = Header(image.mime, image.width, image.height, len(image.data))
        flags = checks.header_flags(
            header, aspect_ratio=task.aspect_ratio, min_side_px=task.min_side_px, checks=task.checks
        )
        if BLANK in flags:
            return flags
        given = await self._like_input(header, task)
        is_blank = BLANK in task.checks and checks.may_be_blank(header)
        if is_blank or given is not None or TWIN in task.checks:
            pixels = await self._pixels(image.data)
            if pixels is not None:
                flags |= await self._pixel_flags(pixels, given, task)
        return flags

    async def _like_input(self, header: Header, task: Task) -> str | None:
        """Return the path of the first input when it may be what came back."""
        if SAME_AS_INPUT not in task.checks or not task.images:
            return None
        path = task.images[0].path
        given = await asyncio.to_thread(checks.input_header, path)
        return path if given is not None and checks.may_be_input(header, given) else None

    async def _pixel_flags(self, pixels: Pixels, given: str | None, task: Task) -> dict[str, str]:
        flags: dict[str, str] = {}
        if BLANK in task.checks and checks.is_one_colour(pixels):
            return {BLANK: "nearly one colour"}
        before = None if given is None else await self._pixels(given)
        if before is not None and checks.is_same(pixels, before):
            flags[SAME_AS_INPUT] = "it looks like its input image"
        if TWIN in task.checks and (other := self._twin(pixels, task)) is not None:
            flags[TWIN] = f"nearly the same picture as {other}"
        return flags

    def _twin(self, pixels: Pixels, task: Task) -> str | None:
        seen, mark = self._seen[task.job], checks.perceptual_hash(pixels)
        found = next((each for each, other in seen.items() if each != task.id and checks.are_twins(mark, other)), None)
        if len(seen) < REMEMBERED:
            seen[task.id] = mark
        return found

    async def _pixels(self, source: bytes | str) -> Pixels | None:
        """Decode an image, or the file at a path; None: it cannot be decoded here, so there is no opinion."""
        try:
            return await asyncio.to_thread(self._decoded, source)
        except (DecoderError, DecoderDiedError, OSError):
            return None

    def _decoded(self, source: bytes | str) -> Pixels:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return checks.unpacked_pixels(self._decoder.call(checks.packed_pixels, data)[1])

    def close(self) -> None:
        """End the child process, whatever it is doing."""
        self._decoder.close()

"""Checks images that came and are safe on disk: most by their header, the suspicious ones by their pixels.

In: an answer and its task. Out: flags with their reasons. Pixels are decoded in one child process with limits, started
when the first image needs it; what cannot be decoded there has no flag.
"""

import asyncio
import multiprocessing
from collections import defaultdict
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Final

from pipeline.imaging import checks
from pipeline.imaging.checks import Header, Pixels
from pipeline.imaging.convert import prepare_process
from pipeline.model import Image, Task
from pipeline.settings import BLANK, SAME_AS_INPUT, TWIN

PATIENCE_S: Final = 20.0  # for one picture; most take 0.05 s
REMEMBERED: Final = 10_000  # pictures of a job that a new one is compared with


class ImageChecker:
    """Flags images of one run. `close` ends its child process."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
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
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare_process)
        looking = asyncio.get_running_loop().run_in_executor(self._pool, checks.pixels_of, source)
        try:
            return await asyncio.wait_for(looking, PATIENCE_S)
        except (BrokenExecutor, TimeoutError, OSError):  # this picture, or one beside it, was too much: no opinion
            self.close()
            return None

    def close(self) -> None:
        """End the child process, whatever it is doing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            running = list((pool._processes or {}).values())  # `terminate_workers` from Python 3.14 on
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()

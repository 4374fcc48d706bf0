"""Input images, as the API takes them.

In: a path and what the plan knew of it. Out: bytes ready to send. Each file is read once, and proven to be
what the plan saw. The file itself is never touched.
"""

import asyncio
import os
import stat
from hashlib import sha256

from pipeline.model import InputImage
from pipeline.provider.image import sniff
from pipeline.provider.request import Ready

_MOST_BYTES = 512 * 2**20  # of one file


class UnfitError(Exception):
    """An input image cannot be sent; the text names the file and says why."""


class Inputs:
    """Reads input images."""

    async def load(self, image: InputImage, *, keep_metadata: bool) -> Ready:
        data = await asyncio.to_thread(read_as_planned, image)
        return Ready(sniff(data)[0], data)

    async def aclose(self) -> None:
        pass


def read_as_planned(image: InputImage) -> bytes:
    """Read a file once, whatever it is now.

    Raises: UnfitError when it cannot be read, is no regular file, or has other bytes than the plan saw.
    """
    try:
        data = _read(image.path)
    except OSError as error:
        raise UnfitError(f"{image.path}: {error.strerror or error}") from error
    if sha256(data).hexdigest() != image.sha256:
        raise UnfitError(f"{image.path}: changed since the plan; run again to plan anew")
    return data


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)  # a pipe must not hang us
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnfitError(f"{path}: not a regular file")
        if status.st_size > _MOST_BYTES:
            raise UnfitError(f"{path}: {status.st_size} bytes; at most {_MOST_BYTES} are read")
        return file.read(_MOST_BYTES + 1)

"""Renders the pictures of an answer off the event loop: drawn ones, or tiny ones that cost nothing.

Threads, not processes: a picture takes a tenth of a second, most of it in Pillow, which releases the lock; processes
would outlive a killed parent, which a rehearsal of crashes does all day.
"""

import asyncio
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from io import BytesIO

import pybase64
from PIL import Image

from pipeline.simulator.chance import Dice, without_words
from pipeline.simulator.models import Ask
from pipeline.simulator.pictures import Order, draw, nearest_ratio
from pipeline.simulator.profile import Profile
from pipeline.simulator.responses import EncodedImage, Rendered

_WORKERS = min(4, os.cpu_count() or 1)
_MARK_BYTES = 36
_COMMENT_MOST = 65_533  # of one JPEG segment, its length field included
_DRAFT_EDGE = 256  # pixels of the longer side of a thought draft


class Renderer:
    """Makes pictures by a profile; a context manager."""

    def __init__(self, profile: Profile, *, workers: int = _WORKERS) -> None:
        self._is_tiny = profile.picture == "tiny"
        self._tiny_bytes = profile.picture_bytes
        self._dice = Dice(profile.seed, "studio")
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="renderer")

    async def render(self, ask: Ask, seed: int, fault: str) -> Rendered:
        """Make the pictures of one answer. Raises `relight.UnreadableImage` for an input that cannot be decoded."""
        ratio = ask.ratio or self._ratio_of(ask)
        orders = self._orders(ask, seed, ratio, fault)
        images = [await self._image(order) for order in orders]
        drafts: Sequence[EncodedImage] = ()
        if fault == "drafts" or ask.show_thoughts:
            drafts = [await self._image(self._draft(orders[-1], step)) for step in range(2)]
        return Rendered(images=tuple(images), drafts=tuple(drafts), ratio=ratio)

    def close(self) -> None:
        """End the workers; what they are drawing is finished first."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _ratio_of(self, ask: Ask) -> str:
        return nearest_ratio(ask.images[0].data, ask.model.ratios) if ask.images else "1:1"

    def _orders(self, ask: Ask, seed: int, ratio: str, fault: str) -> list[Order]:
        width, height = ask.model.pixels(ask.size, ratio)
        if fault == "wrong_size":
            width, height = width // 2, height // 2
        mime = self._dice.choice(ask.model.mimes, ask.digest, seed)
        count = self._dice.whole(2, 3, "several", ask.digest) if fault == "several_images" else 1
        inputs = tuple(image.data for image in ask.images)
        prompt = without_words(ask.prompt)
        return [
            Order(prompt=prompt, seed=seed + 1000 * earlier, width=width, height=height, mime=mime, inputs=inputs)
            for earlier in reversed(range(count))
        ]

    def _draft(self, final: Order, step: int) -> Order:
        scale = _DRAFT_EDGE / max(final.width, final.height)
        width, height = round(final.width * scale), round(final.height * scale)
        return replace(final, width=width, height=height, seed=final.seed + 1000 * (step + 1))

    async def _image(self, order: Order) -> EncodedImage:
        if self._is_tiny:
            return tiny(order.width, order.height, order.mime, self._tiny_bytes, order.digest())
        return await asyncio.get_running_loop().run_in_executor(self._pool, _encoded, order)


def _encoded(order: Order) -> EncodedImage:
    data = draw(order)
    return EncodedImage(data=data, base64=pybase64.b64encode(data), sha256=sha256(data).hexdigest(), mime=order.mime)


def tiny(width: int, height: int, mime: str, size_bytes: int, mark: bytes) -> EncodedImage:
    """Make one picture; the same mark makes the same bytes. Types other than PNG are made as JPEG."""
    mime = "image/png" if mime == "image/png" else "image/jpeg"
    head, head64, hashed, tail = _blank(width, height, mime, size_bytes)
    mark = mark[:_MARK_BYTES].ljust(_MARK_BYTES, b"\0")
    rest = (_chunk(b"maRk", mark) if mime == "image/png" else _comment(mark)) + tail
    hasher = hashed.copy()
    hasher.update(rest)
    return EncodedImage(
        data=head + rest, base64=head64 + pybase64.b64encode(rest), sha256=hasher.hexdigest(), mime=mime
    )


@lru_cache(maxsize=64)
def _blank(width: int, height: int, mime: str, size_bytes: int):  # type: ignore[no-untyped-def]  # hashlib's class has no public name
    """Return head, its Base64, its hash and the tail; the mark goes between. The head's length divides by three."""
    buffer = BytesIO()
    if mime == "image/png":
        Image.new("1", (width, height), 1).save(buffer, "PNG", optimize=True)
        head, tail = buffer.getvalue()[:33], buffer.getvalue()[33:]  # signature and IHDR
    else:
        Image.new("L", (width, height), 208).save(buffer, "JPEG", quality=20, optimize=True)
        head, tail = buffer.getvalue()[:2], buffer.getvalue()[2:]  # SOI
    missing = max(0, size_bytes - len(head) - len(tail) - _MARK_BYTES - 40)
    head += _filler(mime, missing, len(head))
    return head, pybase64.b64encode(head), sha256(head), tail


def _filler(mime: str, missing: int, before: int) -> bytes:
    """Return segments of about `missing` bytes which end on a multiple of three, `before` bytes counted."""
    if mime == "image/png":
        overhead = 12
        return _chunk(b"fiLl", b"\x5a" * (missing + -(before + missing + overhead) % 3))
    whole, rest = divmod(missing, _COMMENT_MOST)
    filler = _comment(b"\x5a" * (_COMMENT_MOST - 2)) * whole
    overhead = 4
    return filler + _comment(b"\x5a" * (rest + -(before + len(filler) + rest + overhead) % 3))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def _comment(data: bytes) -> bytes:
    return b"\xff\xfe" + (len(data) + 2).to_bytes(2) + data

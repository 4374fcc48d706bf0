"""Makes thumbnails for the contact sheet: `<folder>/<name>`, WebP, made once.

The name changes with the image's bytes. A picture that cannot be decoded has no thumbnail, and that is never an error:
the report shows the original instead.
"""

import hashlib
import io
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import Final

from pipeline.buckets import Locations
from pipeline.errors import InputError, StorageError
from pipeline.imaging.decoder import Decoder, DecoderDiedError, DecoderError
from pipeline.imaging.formats import MAX_PIXELS, SNIFFED_BYTES, UNKNOWN, costly, opened, sniff
from pipeline.model import IMAGE_SUFFIXES
from pipeline.text import visible

_log: Final = logging.getLogger(__name__)
_THUMB = (640, 320)  # a row of the sheet is up to 320 pixels high, a panorama twice as wide
_PREVIEW = (1600, 1600)
_SHOWN = (*IMAGE_SUFFIXES, ".gif", ".avif", ".bmp")  # what every browser draws
_RASTERS = (*_SHOWN, ".jpe", ".jfif", ".tif", ".tiff", ".heic", ".heif")
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "MPO")
_READERS = 8  # objects read at once; each is one picture in memory
_FEW = 16  # below this more processes cost more than they save: 0.4 s to start against 28 ms an image
_OURS = re.compile(r"[0-9a-f]{32}\.webp")


class CostlyError(Exception):
    """The picture is not decoded: it would take too much; the text says what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """One picture to be made small: it fits into `box` (width, height) and is never enlarged."""

    source: Path | str  # a file, or the address of an object
    box: tuple[int, int] = _THUMB


def thumb_name(sha256: str) -> str:
    """Return the file name of the thumbnail of an image."""
    return f"{sha256[:32]}.webp"


def is_drawn(source: Path | str) -> bool:
    """Say whether browsers draw such a file as it is."""
    return PurePosixPath(source).suffix.lower() in _SHOWN


def is_raster(source: Path) -> bool:
    """Say whether a file is a picture by name and by bytes: a browser that opens it runs no script of it."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with open(fd, "rb") as file:  # noqa: PTH123
        is_plain = stat.S_ISREG(os.fstat(fd).st_mode)
        return is_plain and source.suffix.lower() in _RASTERS and sniff(file.read(SNIFFED_BYTES)) != UNKNOWN


def thumb_of(source: Path | str, sha256: str | None = None) -> tuple[str, Thumb] | None:
    """Return name and order of the thumbnail of the picture that stands at `source`; None: there is none.

    The name changes with the file's place, size and time, so that an edited or exchanged picture gets a new one. What
    browsers cannot draw is only ever seen so, and larger. An object is not asked for: its `sha256` is in its place.
    """
    if isinstance(source, str):
        place, stamp = source, str(sha256)
    else:
        try:
            stat = source.stat()
        except OSError:
            return None
        place, stamp = os.path.normpath(source), f"{stat.st_size}\0{stat.st_mtime_ns}"
    mark = f"{place}\0{stamp}".encode(errors="surrogateescape")
    box = _THUMB if is_drawn(source) else _PREVIEW
    return thumb_name(hashlib.sha256(mark).hexdigest()), Thumb(source=source, box=box)


def make_thumbs(
    folder: Path, thumbs: Mapping[str, Thumb], *, on_progress: Callable[[int, int], None] | None = None
) -> set[str]:
    """Make those of `thumbs` (file name -> picture) that are missing; return the names that are there afterwards.

    `on_progress` is called with how many of how many are made. Thumbnails that are no longer asked for are removed.
    """
    there = _kept(folder, thumbs)
    missing = [(thumb, folder / name) for name, thumb in thumbs.items() if name not in there]
    for number, _ in enumerate(_made(missing), 1):
        if on_progress is not None:
            on_progress(number, len(missing))
    return thumbs.keys() & _names(folder)


def _kept(folder: Path, thumbs: Collection[str]) -> set[str]:
    """Remove thumbnails that are no longer asked for; return the names that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    there = _names(folder)
    for name in there.difference(thumbs):
        if _OURS.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
    return there


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _made(jobs: Sequence[tuple[Thumb, Path]]) -> Iterator[bool]:
    """Make each, several at once; yield whether there is one now."""
    from concurrent.futures import ThreadPoolExecutor

    if not jobs:
        return
    workers = 1 if len(jobs) < _FEW else _workers()
    readers = _READERS if any(isinstance(thumb.source, str) for thumb, _ in jobs) else workers
    maker = ThumbMaker(workers)
    pool = ThreadPoolExecutor(readers, thread_name_prefix="thumbnails")
    try:
        yield from pool.map(lambda job: maker.make(*job), jobs)
    finally:
        maker.close()
        pool.shutdown(cancel_futures=True)


def _workers() -> int:
    return min(os.cpu_count() or 1, 8)


class ThumbMaker:
    """Makes thumbnails in limited processes of their own (`decoder`), from any thread. `close` ends them."""

    def __init__(self, workers: int | None = None) -> None:
        """`workers`: processes, each started when it is needed; None: one a core."""
        self._decoders = [Decoder() for _ in range(_workers() if workers is None else workers)]
        self._locations = Locations()
        self._idle: SimpleQueue[Decoder] = SimpleQueue()
        for decoder in self._decoders:
            self._idle.put(decoder)

    def make(self, thumb: Thumb, target: Path) -> bool:
        """Make one under a temporary name and move it into place; False when there can be none."""
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        try:
            small = self._shrunk(thumb)
            if small is None:
                return False
            with part.open("xb") as file:
                file.write(small)
            part.replace(target)
        except DecoderError as error:
            if error.kind == CostlyError.__name__:
                _log.warning("no thumbnail of %s: it is %s", visible(str(thumb.source)), visible(str(error)))
            return False
        except DecoderDiedError:
            _log.warning("no thumbnail of %s: it takes too much time or memory", visible(str(thumb.source)))
            return False
        except (OSError, StorageError, InputError):  # the caller shows the original
            return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def _shrunk(self, thumb: Thumb) -> bytes | None:
        data = self._locations.read(str(thumb.source))
        if data is None:
            return None
        decoder = self._idle.get()
        try:
            return decoder.call(shrunk, data, *thumb.box)[1]
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        for decoder in self._decoders:
            decoder.close()


def shrunk(data: bytes, width: int, height: int) -> tuple[str, bytes]:
    """Decode, turn upright, shrink and encode. Raises CostlyError, and whatever decoders raise."""
    from PIL import ImageOps

    from pipeline.imaging.convert import eight_bits, in_srgb

    if (reason := costly(data)) is not None:
        raise CostlyError(reason)
    with opened(data, _FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise CostlyError(f"a picture of more than {MAX_PIXELS:,} pixels")
        image.draft("RGB", (2 * width, 2 * height))  # JPEG only: decodes at a half, a quarter or an eighth
        ImageOps.exif_transpose(image, in_place=True)
        small = eight_bits(image)
        small.thumbnail((width, height), reducing_gap=2.0)
        if profile := small.info.get("icc_profile"):  # as browsers show the original
            small = in_srgb(small, profile)
        buffer = io.BytesIO()
        # Quality and method: 28 ms and 15 kB for a photograph of 1344 x 768; method 4: 34 ms for the same size.
        small.save(buffer, "WEBP", quality=80, method=2)
    return "image/webp", buffer.getvalue()

"""Makes thumbnails for the contact sheet: `<folder>/<name>`, WebP, made once.

The name changes with the image's bytes. A picture that cannot be decoded has no thumbnail, and that is never an error:
the report shows the original instead.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.model import IMAGE_SUFFIXES

_THUMB = (640, 320)  # a row of the sheet is up to 320 pixels high, a panorama twice as wide
_PREVIEW = (1600, 1600)
_SHOWN = (*IMAGE_SUFFIXES, ".gif", ".avif", ".bmp")  # what every browser draws
_MOST_PIXELS = 64_000_000  # as for every image: behaviour, "which image"
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "MPO")
_FEW = 16  # below this a pool costs more than it saves: 0.4 s to start against 28 ms an image
_OURS = re.compile(r"[0-9a-f]{32}\.webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """One picture to be made small: it fits into `box` (width, height) and is never enlarged."""

    source: Path
    box: tuple[int, int] = _THUMB


def thumb_name(sha256: str) -> str:
    """Return the file name of the thumbnail of an image."""
    return f"{sha256[:32]}.webp"


def is_drawn(source: Path) -> bool:
    """Say whether browsers draw such a file as it is."""
    return source.suffix.lower() in _SHOWN


def thumb_of(source: Path) -> tuple[str, Thumb] | None:
    """Return name and order of the thumbnail of the picture that stands at `source`; None: there is none.

    The name changes with the file's place, size and time, so that an edited or exchanged picture gets a new one. What
    browsers cannot draw is only ever seen so, and larger.
    """
    try:
        stat = source.stat()
    except OSError:
        return None
    mark = f"{source}\0{stat.st_size}\0{stat.st_mtime_ns}".encode(errors="surrogateescape")
    box = _THUMB if is_drawn(source) else _PREVIEW
    return thumb_name(hashlib.sha256(mark).hexdigest()), Thumb(source=source, box=box)


def make_thumbs(
    folder: Path, thumbs: Mapping[str, Thumb], *, told: Callable[[int, int], None] | None = None
) -> set[str]:
    """Make those of `thumbs` (file name -> picture) that are missing; return the names that are there afterwards.

    `told` hears how many of how many are made. Thumbnails that nobody asks for any more are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = _names(folder)
    for name in there - thumbs.keys():
        if _OURS.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
    missing = [(thumb, folder / name) for name, thumb in thumbs.items() if name not in there]
    for number, _ in enumerate(_made(missing), 1):
        if told is not None:
            told(number, len(missing))
    return thumbs.keys() & _names(folder)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _made(jobs: Sequence[tuple[Thumb, Path]]) -> Iterator[bool]:
    import multiprocessing
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor

    from pipeline.pools import leave_with_parent

    if len(jobs) < _FEW:
        yield from map(make_thumb, jobs)
        return
    workers = min(os.cpu_count() or 1, 8)
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the threads of a live view
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=leave_with_parent) as pool:
            yield from pool.map(make_thumb, jobs, chunksize=8)
    except (BrokenExecutor, OSError):  # a child died, out of memory perhaps: the rest is shown from the originals
        return


def make_thumb(job: tuple[Thumb, Path]) -> bool:
    """Make one thumbnail under a temporary name and move it into place; False when the picture cannot be decoded."""
    import warnings

    thumb, target = job
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not _shrunk(thumb, part):
                return False
        part.replace(target)
    except Exception:  # the caller shows the original: decoders raise anything from SyntaxError to struct.error
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


def _shrunk(thumb: Thumb, part: Path) -> bool:
    """Decode, turn upright, shrink and write; False for a picture that is too large to decode."""
    from PIL import Image, ImageOps

    width, height = thumb.box
    with Image.open(thumb.source, formats=_FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            return False
        image.draft("RGB", (2 * width, 2 * height))  # JPEG only: decodes at a half, a quarter or an eighth
        ImageOps.exif_transpose(image, in_place=True)
        image.thumbnail(thumb.box, reducing_gap=2.0)
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        # Quality and method: 28 ms and 15 kB for a photograph of 1344 x 768; method 4 takes 34 ms for the same size.
        image.convert("RGBA" if has_alpha else "RGB").save(part, "WEBP", quality=80, method=2)
    return True

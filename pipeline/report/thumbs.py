"""Small pictures for the contact sheet.

In: image files and the SHA-256 of their bytes. Out: `<folder>/<first 32 hex digits>.webp`, made once. An image that
cannot be decoded has no thumbnail, and that is never an error: the report shows the original instead.
"""

import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path

_WIDTH, _HEIGHT = 640, 320  # a row of the sheet is up to 320 pixels high, a panorama twice as wide
_QUALITY = 80
_MOST_PIXELS = 64_000_000  # as for every image: behaviour, "which image"
_FORMATS = ("PNG", "JPEG", "WEBP")
_FEW = 16  # below this a pool costs more than it saves: 0.4 s to start against 40 ms an image
_OURS = re.compile(r"[0-9a-f]{32}\.webp")

Job = tuple[str, str]  # image file, thumbnail file


def thumb_name(sha256: str) -> str:
    """Return the file name of the thumbnail of an image."""
    return f"{sha256[:32]}.webp"


def make_thumbs(
    folder: Path, images: Mapping[str, Path], *, told: Callable[[int, int], None] | None = None
) -> set[str]:
    """Make what is missing of the thumbnails of `images` (sha256 -> file); return the digests that have one.

    `told` hears how many of how many are made. Thumbnails of images that are no longer there are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = {entry.name for entry in os.scandir(folder)}
    for name in there - {thumb_name(sha) for sha in images}:
        if _OURS.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
    missing = [
        (str(path), str(folder / thumb_name(sha))) for sha, path in images.items() if thumb_name(sha) not in there
    ]
    for number, _ in enumerate(_made(missing), 1):
        if told is not None:
            told(number, len(missing))
    there = {entry.name for entry in os.scandir(folder)}
    return {sha for sha in images if thumb_name(sha) in there}


def _made(jobs: list[Job]) -> Iterator[bool]:
    if len(jobs) < _FEW:
        yield from map(make_thumb, jobs)
        return
    workers = min(os.cpu_count() or 1, 8)
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the threads of a live view
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield from pool.map(make_thumb, jobs, chunksize=8)
    except (BrokenExecutor, OSError):  # a child died, out of memory perhaps: the rest is shown from the originals
        return


def make_thumb(job: Job) -> bool:
    """Make one thumbnail under a temporary name and move it into place; False when the image cannot be decoded."""
    import warnings

    from PIL import Image, ImageOps

    source, target = job
    part = Path(f"{target}.{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source, formats=_FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    return False
                image.draft("RGB", (2 * _WIDTH, 2 * _HEIGHT))
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((_WIDTH, _HEIGHT), reducing_gap=2.0)
                small = upright.convert(
                    "RGBA" if "A" in upright.getbands() or "transparency" in upright.info else "RGB"
                )
                small.save(part, "WEBP", quality=_QUALITY, method=3)
        part.replace(target)
    except (
        Exception
    ):  # the caller sees a tile without a thumbnail; decoders raise anything from SyntaxError to struct.error
        return False
    finally:
        part.unlink(missing_ok=True)
    return True

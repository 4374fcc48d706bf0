"""Bytes of an image -> what the ledger writes down of it. Only for images that come from disk; the header decides."""

import hashlib
import io
import warnings
from typing import Final

from pipeline.model import Image

FORMATS: Final = {"PNG": ("image/png", ".png"), "JPEG": ("image/jpeg", ".jpg"), "WEBP": ("image/webp", ".webp")}
SUFFIXES: Final = (".png", ".jpg", ".webp")  # what a final name can end in
IMAGE_SUFFIXES: Final = (*SUFFIXES, ".jpeg")
PNG_END: Final = b"IEND\xae\x42\x60\x82"
MAX_PIXELS: Final = 64 * 2**20


class NotAnImageError(ValueError):
    """These bytes are no image this program could have made."""


def look(data: bytes, *, decode: bool = False) -> Image:
    """Describe an image by its header; `decode` reads every pixel as well (35 ms for 2 MB).

    Raises NotAnImageError.
    """
    import PIL.Image  # 40 ms, and only needed where files are taken back

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as picture:
                mime, suffix = FORMATS[picture.format or ""]
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise NotAnImageError(f"{width} x {height} pixels are more than 64 million")
                if decode:
                    picture.load()
                    _check_end(data, suffix)
    except (OSError, SyntaxError, ValueError, KeyError, EOFError, PIL.Image.DecompressionBombError) as error:
        raise NotAnImageError(str(error)) from error
    sha256 = hashlib.sha256(data).hexdigest()
    return Image(data=data, sha256=sha256, mime=mime, suffix=suffix, width=width, height=height)


def _check_end(data: bytes, suffix: str) -> None:
    """Refuse what Pillow lets pass: a PNG without its end, a WebP shorter than it says."""
    if suffix == ".png" and PNG_END not in data[-4096:]:
        raise NotAnImageError("the end of the PNG is missing")
    if suffix == ".webp" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise NotAnImageError("the end of the WebP is missing")

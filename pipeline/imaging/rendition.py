"""An image in another kind, size, colour space: what a shop or an editor wants to be handed.

In: the bytes of an image. Out: bytes and suffix; the very same bytes where nothing is asked for. The picture is turned
upright where it is drawn anew. Raises NotAnImageError.
"""

import warnings
from io import BytesIO
from typing import Any, Final

from pipeline.imaging.formats import NotAnImageError
from pipeline.imaging.metadata import strip

SUFFIXES: Final = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
MIMES: Final = {"image/jpeg": "jpeg", "image/png": "png", "image/webp": "webp"}


def rendition(
    data: bytes, mime: str, *, kind: str | None, quality: int, max_side: int | None, is_srgb: bool, is_stripped: bool
) -> tuple[bytes, str]:
    """Return the image as asked; `kind` None: the one it has. It is never enlarged."""
    from PIL import Image, ImageCms, ImageOps

    wanted = kind or MIMES[mime]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as source:
                profile = source.info.get("icc_profile")
                is_small = max_side is None or max(source.size) <= max_side
                if wanted == MIMES[mime] and is_small and not (is_srgb and profile):
                    return (strip(data, mime) if is_stripped else data), SUFFIXES[wanted]
                picture = ImageOps.exif_transpose(source)
                if is_srgb and profile:
                    picture = _in_srgb(picture, profile, ImageCms)
                    profile = None
                if not is_small and max_side is not None:
                    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
                return _encoded(picture, wanted, quality, profile, is_stripped), SUFFIXES[wanted]
    except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError) as error:
        raise NotAnImageError(str(error)) from error


def _in_srgb(picture: Any, profile: bytes, cms: Any) -> Any:
    if picture.mode not in ("RGB", "RGBA", "L", "CMYK"):
        picture = picture.convert("RGB")
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        converted = cms.profileToProfile(picture, BytesIO(profile), cms.createProfile("sRGB"), outputMode=mode)
    except cms.PyCMSError:  # a profile that cannot be used: the values are taken for sRGB, as browsers do
        return picture.convert(mode)
    converted.info.pop("icc_profile", None)
    return converted


def _encoded(picture: Any, kind: str, quality: int, profile: bytes | None, is_stripped: bool) -> bytes:
    options: dict[str, Any] = {} if profile is None else {"icc_profile": profile}
    exif = picture.getexif()
    if exif and not is_stripped:
        options["exif"] = exif
    if kind == "jpeg":
        picture = _on_white(picture)
        options |= {"quality": quality, "subsampling": 0 if quality >= 90 else 2, "optimize": True}
    elif kind == "webp":
        options |= {"quality": quality}
    buffer = BytesIO()
    picture.save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def _on_white(picture: Any) -> Any:
    """JPEG has no transparency: what is seen through is white."""
    from PIL import Image

    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    ground = Image.new("RGBA", seen.size, "white")
    ground.alpha_composite(seen)
    return ground.convert("RGB")

"""Input images: opened, turned upright, cut to the wished ratio.

In: bytes of the types the API takes. Out: a Pillow picture of the wished size, or None for a type that Pillow cannot
open (HEIC); `UnreadableImage` for bytes that are broken.
"""

from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.simulator.pictures.order import UnreadableImage

_FORMATS = ("PNG", "JPEG", "WEBP")
_MOST_PIXELS = 64_000_000
_BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises for broken files


def opened(data: bytes, size: tuple[int, int]) -> Image.Image | None:
    """Return the picture at exactly this size: scaled, and cut evenly where the ratio differs."""
    if data[4:8] == b"ftyp":
        return None
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise UnreadableImage("too many pixels")
            image.draft("RGB", size)
            upright = ImageOps.exif_transpose(image)
            rgba = upright.convert("RGBA") if "A" in upright.getbands() or "transparency" in upright.info else None
            flat = upright.convert("RGB") if rgba is None else _on_white(rgba)
    except (*_BROKEN, UnidentifiedImageError) as error:
        raise UnreadableImage(str(error)) from error
    return ImageOps.fit(flat, size, Image.Resampling.BICUBIC)


def _on_white(picture: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", picture.size, (255, 255, 255))
    sheet.paste(picture, mask=picture.getchannel("A"))
    return sheet


def nearest_ratio(data: bytes, ratios: tuple[str, ...]) -> str:
    """Return the ratio that an input comes closest to, `1:1` when its size cannot be read."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # turned by a quarter
                width, height = height, width
    except (*_BROKEN, UnidentifiedImageError):
        return "1:1"
    return min(ratios, key=lambda ratio: abs(_value(ratio) - _scale(width / max(1, height))))


def _value(ratio: str) -> float:
    across, down = ratio.split(":")
    return _scale(int(across) / int(down))


def _scale(ratio: float) -> float:
    """Return a number in which 1:2 and 2:1 are equally far from 1:1."""
    return ratio - 1 if ratio >= 1 else 1 - 1 / max(ratio, 1e-6)

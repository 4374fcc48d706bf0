"""Flags an image that may be wrong: nearly one colour, another shape, too small, the input unchanged, a twin.

By its header and size in bytes; only where those make it suspicious by its pixels, which a child process decodes. A
flag has its reason and is an opinion: the image stays what it is.
"""

from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from pipeline.imaging.formats import FORMATS, opened
from pipeline.model import ImageChecks
from pipeline.settings import ASPECT, BLANK, MIN_SIDE

ASPECT_SHARE: Final = 0.03
# Bytes a pixel. Below the first, not even two colours can be told apart; below the second it may be one colour with
# noise. Measured: one colour 0.003, 0.006 and 0.001; photographs and drawings of 1 megapixel above 0.3, 0.1 and 0.04.
CERTAIN: Final = {"image/png": 0.004, "image/jpeg": 0.008, "image/webp": 0.0012}
SUSPICIOUS: Final = {"image/png": 0.15, "image/jpeg": 0.06, "image/webp": 0.025}
LEAST_SIDE: Final = 8  # pixels; relays stand in 1 x 1 for what they have not got
ONE_COLOUR: Final = 3.0  # standard deviation of a channel, of 255
SAME: Final = 2.0  # mean difference of grey values, of 255
TWINS: Final = 4  # bits of 256 in which two pictures may differ
SIDE: Final = 32  # of the small picture that is compared
_ORIENTATION: Final = 0x0112  # the EXIF tag; from 5 on, a picture lies on its side


class Header(NamedTuple):
    """What is known of an image without its pixels."""

    mime: str
    width: int
    height: int
    size_bytes: int

    @property
    def bytes_per_pixel(self) -> float:
        return self.size_bytes / max(1, self.width * self.height)


_DEVIATION: Final = Struct("<d")


class Pixels(NamedTuple):
    """What a child process saw. `deviation`: of the most varied channel; `small`: grey values of 32 x 32."""

    deviation: float
    small: bytes


def header_flags(header: Header, checks: ImageChecks, *, aspect_ratio: str | None) -> dict[str, str]:
    """Return what the header alone says: flag -> reason."""
    flags: dict[str, str] = {}
    names, min_side_px = checks.names, checks.min_side_px
    if BLANK in names and header.bytes_per_pixel < CERTAIN.get(header.mime, 0):
        flags[BLANK] = "nearly one colour"
    elif BLANK in names and max(header.width, header.height) < LEAST_SIDE:
        flags[BLANK] = f"{header.width} x {header.height}, a placeholder"
    if ASPECT in names and aspect_ratio is not None and _is_off(header, aspect_ratio):
        flags[ASPECT] = f"{header.width} x {header.height} is not {aspect_ratio}"
    if MIN_SIDE in names and min(header.width, header.height) < min_side_px:
        flags[MIN_SIDE] = f"{header.width} x {header.height}, the shorter side is below {min_side_px}"
    return flags


def _is_off(header: Header, aspect_ratio: str) -> bool:
    width, _, height = aspect_ratio.partition(":")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        return False
    wanted = int(width) / int(height)
    return abs(header.width / max(1, header.height) - wanted) > ASPECT_SHARE * wanted


def may_be_blank(header: Header) -> bool:
    """Say whether an image has so few bytes that its pixels must tell."""
    return header.bytes_per_pixel < SUSPICIOUS.get(header.mime, 0)


def may_be_input(header: Header, given: Header) -> bool:
    """Say whether an image is so like its input, in shape and bytes, that the pixels of both must tell."""
    ratio, other = header.width / max(1, header.height), given.width / max(1, given.height)
    is_shaped_so = abs(ratio - other) <= 0.01 * other
    return is_shaped_so and header.mime == given.mime and 0.75 < header.bytes_per_pixel / given.bytes_per_pixel < 1.33


def input_header(path: str) -> Header | None:
    """Read the header of an input image, upright as it is sent; None where it has none that is known. 0.1 ms."""
    try:
        with opened(path) as image:
            width, height = image.size[::-1] if image.getexif().get(_ORIENTATION) in range(5, 9) else image.size
            return Header(FORMATS[image.format or ""][0], width, height, Path(path).stat().st_size)
    except Exception:  # no opinion: decoders raise anything
        return None


def packed_pixels(data: bytes) -> tuple[str, bytes]:
    """Return what `unpacked_pixels` takes, as the child process of `decoder` hands it back. Raises as `pixels_of`."""
    pixels = pixels_of(data)
    return "application/octet-stream", _DEVIATION.pack(pixels.deviation) + pixels.small


def unpacked_pixels(packed: bytes) -> Pixels:
    (deviation,) = _DEVIATION.unpack_from(packed)
    return Pixels(deviation, packed[_DEVIATION.size :])


def pixels_of(data: bytes) -> Pixels:
    """Decode an image, upright. Raises whatever its decoder raises."""
    from PIL import ImageOps, ImageStat

    with opened(data) as image:
        image.draft("RGB", (256, 256))  # JPEG only: decodes at an eighth
        ImageOps.exif_transpose(image, in_place=True)
        picture = image.convert("RGB")
    deviation = max(ImageStat.Stat(picture.reduce(max(1, min(picture.size) // 256))).stddev)
    return Pixels(deviation, picture.convert("L").resize((SIDE, SIDE)).tobytes())


def is_one_colour(pixels: Pixels) -> bool:
    return pixels.deviation < ONE_COLOUR


def is_same(one: Pixels, other: Pixels) -> bool:
    """Say whether two pictures show the same, but for how they were compressed."""
    difference = sum(abs(a - b) for a, b in zip(one.small, other.small, strict=True))
    return difference / len(one.small) < SAME


def perceptual_hash(pixels: Pixels) -> int:
    """Return 256 bits of which few differ between nearly the same pictures: each cell beside its right neighbour."""
    bits = 0
    for y in range(0, SIDE, 2):
        for x in range(0, SIDE, 2):
            at = y * SIDE + x
            bits = bits << 1 | (pixels.small[at] < pixels.small[at + 1])
    return bits


def are_twins(one: int, other: int) -> bool:
    return (one ^ other).bit_count() <= TWINS

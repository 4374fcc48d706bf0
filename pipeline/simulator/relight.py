"""Image to image: the input's own pixels under another light, season or treatment; the composition stays."""

from io import BytesIO
from math import log
from random import Random

from PIL import Image, ImageChops, ImageFilter, ImageOps, ImageStat, UnidentifiedImageError

from pipeline.simulator.scenes import Mood, Rgb, rgb

Picture = Image.Image
_FORMATS = ("PNG", "JPEG", "WEBP")
_MOST_PIXELS = 64_000_000
_BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises for broken files


class UnreadableImage(Exception):  # noqa: N818 - what it is, not that it is an error
    """An input image whose bytes cannot be decoded."""


def opened(data: bytes, size: tuple[int, int]) -> Picture | None:
    """Return an input upright and at exactly this size, cut evenly; None for HEIC, which Pillow cannot open.

    Raises `UnreadableImage` for bytes that are broken.
    """
    if data[4:8] == b"ftyp":
        return None
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise UnreadableImage("too many pixels")
            image.draft("RGB", size)
            upright = ImageOps.exif_transpose(image)
            flat = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except (*_BROKEN, UnidentifiedImageError) as error:
        raise UnreadableImage(str(error)) from error
    if flat.mode == "RGBA":
        flat = Image.alpha_composite(Image.new("RGBA", flat.size, "white"), flat).convert("RGB")
    return ImageOps.fit(flat, size, Image.Resampling.BICUBIC)


def nearest_ratio(data: bytes, ratios: tuple[str, ...]) -> str:
    """Return the ratio that an input comes closest to, `1:1` when its size cannot be read."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # turned by a quarter
                width, height = height, width
    except (*_BROKEN, UnidentifiedImageError):
        return "1:1"
    return min(ratios, key=lambda ratio: abs(log(_value(ratio) * max(1, height) / max(1, width))))


def _value(ratio: str) -> float:
    across, down = ratio.split(":")
    return int(across) / int(down)


def relight(picture: Picture, mood: Mood, random: Random) -> Picture:
    """Return the picture in another mood: recoloured, graded, then lit from one side."""
    if mood.strokes:
        picture = _strokes(picture)
    if mood.matrix:
        picture = picture.convert("RGB", mood.matrix)
    picture = Image.blend(ImageOps.grayscale(picture).convert("RGB"), picture, mood.saturation)
    picture = _graded(picture, rgb(mood.low), rgb(mood.high), mood.gamma)
    if mood.tone:  # shadows and lights are tinted apart, by each pixel's own brightness
        tone = ImageOps.colorize(ImageOps.grayscale(picture), rgb(mood.shadows), rgb(mood.lights))
        picture = Image.blend(picture, ImageChops.soft_light(picture, tone), mood.tone)
    if mood.haze is not None:
        top, bottom = mood.haze
        veil = ImageOps.colorize(Image.linear_gradient("L").resize(picture.size), rgb(top), rgb(bottom))
        picture = ImageChops.screen(picture, veil)
    if mood.light is not None:
        side = mood.at[0] if random.random() < 0.5 else 1 - mood.at[0]
        picture = _lit(picture, (side, mood.at[1]), mood.reach, rgb(mood.light))
    return _vignette(_bloom(picture, mood.bloom), mood.vignette)


def tinted(picture: Picture, colour: Rgb) -> Picture:
    """Return the picture with a breath of a colour."""
    return Image.blend(picture, ImageChops.soft_light(picture, Image.new("RGB", picture.size, colour)), 0.55)


def toned(picture: Picture, reference: Picture) -> Picture:
    """Return the picture with the colours of a second input: its mean and spread, channel by channel."""
    here, there = ImageStat.Stat(picture.resize((64, 64))), ImageStat.Stat(reference.resize((64, 64)))
    tables: list[int] = []
    for channel in range(3):
        scale = min(1.6, max(0.6, there.stddev[channel] / max(1.0, here.stddev[channel])))
        shift = there.mean[channel] - here.mean[channel] * scale
        tables += [min(255, max(0, round(v * scale + shift))) for v in range(256)]
    return Image.blend(picture, picture.point(tables), 0.6)


def grain(picture: Picture, random: Random, amount: int = 3) -> Picture:
    """Return the picture with fine grain, which hides the steps of gradients and makes each file unique."""
    tile = Image.frombytes("L", (257, 251), random.randbytes(257 * 251))
    tile = tile.point([128 + round((v / 255 - 0.5) * 2 * amount) for v in range(256)])
    sheet = Image.new("L", picture.size)
    for x in range(0, picture.width, tile.width):
        for y in range(0, picture.height, tile.height):
            sheet.paste(tile, (x, y))
    return ImageChops.add(picture, Image.merge("RGB", [sheet] * 3), 1, -128)


def _graded(picture: Picture, low: Rgb, high: Rgb, gamma: float) -> Picture:
    """Map black to `low` and white to `high` on a curve, keeping the colours between."""
    tables: list[int] = []
    for dark, bright in zip(low, high, strict=True):
        tables += [round(dark + (bright - dark) * (v / 255) ** gamma) for v in range(256)]
    return picture.point(tables)


def _falloff(power: float) -> Picture:
    """Return a square mask, white in the middle and black from the inscribed circle on."""
    return Image.radial_gradient("L").point([round(255 * max(0.0, 1 - v / 181) ** power) for v in range(256)])


def _lit(picture: Picture, at: tuple[float, float], reach: float, light: Rgb) -> Picture:
    """Add light from one place of the picture, as parts of its width and height."""
    radius = round(reach * max(picture.size))
    glow = Image.new("RGB", picture.size)
    place = (round(at[0] * picture.width) - radius, round(at[1] * picture.height) - radius)
    mask = _falloff(1.7).point([v * 3 // 5 for v in range(256)]).resize((2 * radius + 1, 2 * radius + 1))
    glow.paste(light, (*place, place[0] + mask.width, place[1] + mask.height), mask)
    return ImageChops.screen(picture, glow)


def _vignette(picture: Picture, strength: float) -> Picture:
    mask = _falloff(0.9).resize(picture.size, Image.Resampling.BILINEAR, box=(36, 36, 220, 220))
    dark = picture.point([round(v * (1 - strength)) for v in range(256)] * 3)
    return Image.composite(picture, dark, mask.point([min(255, v * 2) for v in range(256)]))


def _bloom(picture: Picture, strength: float) -> Picture:
    """Let bright places glow over their edges."""
    small = picture.reduce(8).point([max(0, min(255, round((v - 150) * 2.2))) for v in range(256)] * 3)
    soft = small.filter(ImageFilter.GaussianBlur(max(1, small.width / 28))).resize(picture.size)
    return Image.blend(picture, ImageChops.screen(picture, soft), strength)


def _strokes(picture: Picture) -> Picture:
    """Lay the picture down in flat strokes of a brush."""
    small = picture.resize(tuple(max(8, side * 360 // max(picture.size)) for side in picture.size))
    strokes = small.filter(ImageFilter.ModeFilter(7)).filter(ImageFilter.SMOOTH_MORE)
    return Image.blend(strokes.resize(picture.size, Image.Resampling.BICUBIC), picture, 0.2)

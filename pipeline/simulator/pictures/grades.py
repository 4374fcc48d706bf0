"""Grades: what a darkroom does to a picture. Curves, split tones, added light, vignettes, bloom, borrowed colours.

In: a picture and numbers. Out: a new picture of the same size. It refuses to know prompts and moods.
"""

from random import Random

from PIL import Image, ImageChops, ImageFilter, ImageOps, ImageStat

from pipeline.simulator.pictures.canvas import Canvas, falloff
from pipeline.simulator.pictures.colours import Rgb, mix

Picture = Image.Image


def toned(picture: Picture, reference: Picture) -> Picture:
    """Return the picture with the colours of a second input: its mean and spread, channel by channel."""
    here, there = ImageStat.Stat(picture.resize((64, 64))), ImageStat.Stat(reference.resize((64, 64)))
    tables: list[int] = []
    for channel in range(3):
        scale = min(1.6, max(0.6, there.stddev[channel] / max(1.0, here.stddev[channel])))
        shift = there.mean[channel] - here.mean[channel] * scale
        tables += [min(255, max(0, round(v * scale + shift))) for v in range(256)]
    return Image.blend(picture, picture.point(tables), 0.6)


def graded(picture: Picture, low: Rgb, high: Rgb, *, gamma: float = 1.0, strength: float = 1.0) -> Picture:
    """Map black to `low` and white to `high` on a curve, keeping the colours between."""
    tables: list[int] = []
    for dark, bright in zip(low, high, strict=True):
        tables += [round(dark + (bright - dark) * (v / 255) ** gamma) for v in range(256)]
    graded = picture.point(tables)
    return graded if strength >= 1 else Image.blend(picture, graded, strength)


def split(picture: Picture, shadows: Rgb, lights: Rgb, strength: float) -> Picture:
    """Tint shadows and lights apart, by each pixel's own brightness."""
    tone = ImageOps.colorize(ImageOps.grayscale(picture), shadows, lights, mid=mix(shadows, lights, 0.5))
    return Image.blend(picture, ImageChops.soft_light(picture, tone), strength)


def lit(picture: Picture, at: tuple[float, float], reach: float, light: Rgb, strength: float) -> Picture:
    """Add light from one place of the picture, as parts of its width and height."""
    canvas = Canvas(picture.width, picture.height, Random(0))
    canvas.image = picture.copy()
    size = reach * max(picture.size)
    canvas.glow(at[0] * picture.width, at[1] * picture.height, (size, size), light, strength, power=1.7)
    return canvas.image


def vignette(picture: Picture, strength: float) -> Picture:
    mask = falloff(0.9).resize(picture.size, Image.Resampling.BILINEAR, box=(36, 36, 220, 220))
    dark = picture.point([round(v * (1 - strength)) for v in range(256)] * 3)
    return Image.composite(picture, dark, mask.point([min(255, v * 2) for v in range(256)]))


def bloom(picture: Picture, strength: float) -> Picture:
    """Let bright places glow over their edges."""
    small = picture.reduce(8).point([max(0, min(255, round((v - 150) * 2.2))) for v in range(256)] * 3)
    soft = small.filter(ImageFilter.GaussianBlur(max(1, small.width / 28)))
    return Image.blend(
        picture, ImageChops.screen(picture, soft.resize(picture.size, Image.Resampling.BICUBIC)), strength
    )


def coloured(picture: Picture, saturation: float) -> Picture:
    return Image.blend(ImageOps.grayscale(picture).convert("RGB"), picture, saturation)


def streaked(
    picture: Picture, random: Random, *, count: int, slope: float, size: tuple[float, float], opacity: float
) -> Picture:
    """Lay fine pale lines over it, all at once."""
    canvas = Canvas(*picture.size, random)
    canvas.image = picture
    wide, long = size[0] * canvas.unit, size[1] * canvas.unit
    lines = []
    for _ in range(count):
        x, y, length = random.random() * canvas.width, random.random() * canvas.height, long * random.uniform(0.5, 1.4)
        lines.append([(x, y), (x + wide, y), (x + wide - length * slope, y + length), (x - length * slope, y + length)])
    canvas.shapes(lines, (226, 234, 242), opacity)
    return canvas.image

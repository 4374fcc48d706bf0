"""Image to image: the input's own pixels under another light, season or treatment; the composition stays.

In: the decoded input, the order's size and the prompt. Out: a picture of that size. It refuses to know files.
"""

from collections.abc import Callable, Mapping
from random import Random

from PIL import Image, ImageChops, ImageFilter, ImageOps

from pipeline.simulator.pictures.canvas import Canvas, vertical
from pipeline.simulator.pictures.grades import Picture, bloom, coloured, graded, lit, split, streaked, vignette
from pipeline.simulator.pictures.lines import noise
from pipeline.simulator.pictures.words import Idea

_TREATMENTS: Mapping[str, str] = {
    word: treatment
    for treatment, words in {
        "sketch": "sketch pencil drawing charcoal lineart",
        "painting": "watercolour watercolor painting oil gouache impressionist painted",
        "sepia": "sepia antique",
        "mono": "monochrome noir blackandwhite greyscale grayscale",
        "neon": "neon cyberpunk synthwave",
        "flat": "poster posterize cartoon comic screenprint",
        "snow": "snow snowy winter",
        "autumn": "autumn autumnal fall",
        "spring": "spring blossom",
        "rain": "rain rainy",
        "fog": "fog foggy mist misty",
        "night": "night midnight moonlight moonlit",
        "storm": "storm stormy thunder",
        "dawn": "dawn sunrise morning",
        "dusk": "dusk twilight evening",
        "sunset": "sunset golden sundown warm",
        "day": "noon midday summer bright sunny daylight",
    }.items()
    for word in words.split()
}


def treatment(words: list[str]) -> str:
    """Return the treatment that the prompt names first in our order of strength; `day` when it names none."""
    named = [_TREATMENTS[word] for word in words if word in _TREATMENTS]
    return min(named, key=[*dict.fromkeys(_TREATMENTS.values())].index, default="day")


def relight(picture: Picture, words: list[str], idea: Idea, random: Random) -> Picture:
    """Return the picture, treated; colours of the prompt tint it a little."""
    treated = _HOW[treatment(words)](picture, random)
    if idea.colours:
        tone = Image.new("RGB", treated.size, idea.colours[0])
        treated = Image.blend(treated, ImageChops.soft_light(treated, tone), 0.55)
    return treated


def _dawn(picture: Picture, random: Random) -> Picture:
    warm = split(picture, (70, 54, 110), (255, 204, 160), 0.8)
    warm = graded(warm, (22, 14, 32), (255, 240, 218), gamma=1.0)
    haze = vertical([(0, (96, 62, 60)), (0.5, (110, 74, 54)), (1, (58, 40, 52))])(*warm.size)
    warm = Image.blend(warm, ImageChops.screen(warm, haze), 0.6)
    warm = lit(warm, (random.choice((0.12, 0.88)), 0.3), 0.7, (255, 176, 100), 0.6)
    return vignette(bloom(warm, 0.35), 0.25)


def _dusk(picture: Picture, random: Random) -> Picture:
    cool = graded(picture, (6, 8, 30), (224, 206, 226), gamma=1.32)
    cool = split(cool, (26, 34, 104), (255, 168, 118), 0.85)
    side = random.choice((0.06, 0.94))
    cool = lit(cool, (side, 0.62), 0.5, (255, 120, 66), 0.5)
    cool = lit(cool, (1 - side, 0.08), 0.6, (70, 76, 190), 0.42)
    return vignette(bloom(cool, 0.45), 0.55)


def _sunset(picture: Picture, random: Random) -> Picture:
    warm = split(graded(picture, (22, 8, 24), (255, 232, 190), gamma=1.06), (112, 40, 70), (255, 190, 88), 0.9)
    warm = lit(warm, (random.choice((0.2, 0.8)), 0.38), 0.6, (255, 150, 60), 0.7)
    return vignette(bloom(warm, 0.6), 0.35)


def _day(picture: Picture, random: Random) -> Picture:
    clear = Image.blend(picture, ImageOps.autocontrast(picture, cutoff=0.5, preserve_tone=True), 0.6)
    clear = graded(clear, (4, 6, 10), (255, 253, 246), gamma=0.9)
    clear = split(coloured(clear, 1.08), (52, 82, 120), (255, 240, 206), 0.3)
    return lit(clear, (random.choice((0.2, 0.8)), 0.0), 0.55, (255, 244, 214), 0.4)


def _night(picture: Picture, random: Random) -> Picture:
    dark = graded(coloured(picture, 0.55), (4, 6, 20), (142, 164, 214), gamma=1.7)
    dark = lit(dark, (random.uniform(0.2, 0.8), 0.1), 0.5, (110, 134, 200), 0.5)
    canvas = Canvas(*dark.size, random)
    canvas.image = dark
    for _ in range(60):
        size = canvas.unit * random.uniform(0.001, 0.0024)
        canvas.glow(
            random.random() * canvas.width,
            random.random() ** 1.8 * canvas.height * 0.5,
            (size * 4, size * 4),
            (200, 214, 255),
            0.9,
        )
    return vignette(bloom(canvas.image, 0.4), 0.5)


def _fog(picture: Picture, random: Random) -> Picture:
    pale = graded(coloured(picture, 0.5), (84, 94, 104), (234, 236, 234), gamma=1.05)
    veil = vertical([(0, (236, 238, 236)), (0.55, (222, 226, 226)), (1, (150, 160, 164))])(*pale.size)
    mask = Image.linear_gradient("L").resize(pale.size).point([max(0, round(190 - v * 0.62)) for v in range(256)])
    return lit(Image.composite(veil, pale, mask), (random.random(), 0.2), 0.5, (90, 90, 84), 0.6)


def _storm(picture: Picture, random: Random) -> Picture:
    grey = split(
        graded(coloured(picture, 0.45), (6, 8, 14), (206, 212, 216), gamma=1.35), (30, 44, 62), (206, 214, 206), 0.7
    )
    return vignette(lit(grey, (random.random(), 0.0), 0.5, (120, 130, 150), 0.5), 0.55)


def _rain(picture: Picture, random: Random) -> Picture:
    wet = _storm(picture, random).point([min(255, round(v * 1.12 + 8)) for v in range(256)] * 3)
    return streaked(wet, random, count=240, slope=0.16, size=(0.0012, 0.05), opacity=0.34)


def _snow(picture: Picture, random: Random) -> Picture:
    cold = split(
        graded(coloured(picture, 0.42), (26, 34, 52), (250, 252, 255), gamma=0.82),
        (70, 96, 140),
        (240, 246, 255),
        0.6,
    )
    canvas = Canvas(*cold.size, random)
    canvas.image = cold
    for _ in range(260):
        size = canvas.unit * random.uniform(0.002, 0.008) * (2.2 if random.random() < 0.08 else 1)
        canvas.soft(
            random.random() * canvas.width,
            random.random() * canvas.height,
            (size, size),
            (255, 255, 255),
            random.uniform(0.5, 0.95),
            power=0.8,
        )
    return canvas.image


def _turned_leaves(to: tuple[float, ...], saturation: float) -> Callable[[Picture, Random], Picture]:
    def treat(picture: Picture, random: Random) -> Picture:
        turned = coloured(picture.convert("RGB", to), saturation)
        return vignette(lit(turned, (random.choice((0.15, 0.85)), 0.2), 0.6, (255, 190, 110), 0.4), 0.25)

    return treat


def _painting(picture: Picture, random: Random) -> Picture:
    """Lay flat strokes with darker rims on paper."""
    small = picture.resize(
        (max(8, picture.width * 360 // max(picture.size)), max(8, picture.height * 360 // max(picture.size)))
    )
    strokes = small.filter(ImageFilter.ModeFilter(5)).filter(ImageFilter.SMOOTH_MORE)
    rims = ImageOps.invert(ImageOps.grayscale(strokes).filter(ImageFilter.CONTOUR).filter(ImageFilter.SMOOTH))
    size = picture.size
    strokes = Image.blend(strokes.resize(size, Image.Resampling.BICUBIC), picture, 0.25)
    ink = strokes.point([round(v * 0.72) for v in range(256)] * 3)
    inked = Image.composite(
        ink, strokes, rims.resize(size, Image.Resampling.BICUBIC).point([min(100, v) for v in range(256)])
    )
    washed = graded(coloured(inked, 1.25), (34, 32, 38), (255, 251, 242), gamma=0.86)
    pools = noise(random, (size[0] // 4, size[1] // 4), (7, 5), 4).resize(size, Image.Resampling.BICUBIC)
    pale = washed.point([min(255, round(v * 0.86 + 44)) for v in range(256)] * 3)
    return Image.composite(pale, washed, pools.point([max(0, min(200, (v - 90) * 2)) for v in range(256)]))


def _sketch(picture: Picture, _: Random) -> Picture:
    """Dodge the picture by its own blurred negative: what is left are pencil lines."""
    grey = ImageOps.grayscale(picture)
    blurred = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(max(2, picture.width / 120)))
    lines = ImageChops.add(grey, blurred).point([max(0, min(255, round((v - 60) * 1.3))) for v in range(256)])
    shaded = ImageChops.multiply(lines, grey.point([min(255, 150 + round(v * 0.6)) for v in range(256)]))
    return ImageOps.colorize(shaded, (44, 42, 50), (250, 246, 236))


def _mono(picture: Picture, _: Random) -> Picture:
    return vignette(
        graded(
            ImageOps.autocontrast(ImageOps.grayscale(picture), cutoff=1).convert("RGB"),
            (8, 8, 10),
            (250, 249, 246),
            gamma=1.12,
        ),
        0.4,
    )


def _sepia(picture: Picture, _: Random) -> Picture:
    return vignette(
        ImageOps.colorize(
            ImageOps.autocontrast(ImageOps.grayscale(picture)), (44, 28, 20), (250, 234, 204), mid=(164, 122, 84)
        ),
        0.4,
    )


def _neon(picture: Picture, random: Random) -> Picture:
    dark = graded(picture, (10, 2, 30), (214, 190, 255), gamma=1.4)
    dark = split(dark, (30, 10, 120), (255, 80, 200), 0.9)
    edges = ImageOps.grayscale(picture).filter(ImageFilter.FIND_EDGES).filter(ImageFilter.GaussianBlur(1.2))
    glow = ImageOps.colorize(edges.point([min(255, v * 3) for v in range(256)]), (0, 0, 0), (90, 240, 255))
    dark = ImageChops.screen(dark, glow)
    return vignette(bloom(lit(dark, (random.choice((0.1, 0.9)), 0.5), 0.5, (255, 40, 170), 0.5), 0.6), 0.5)


def _flat(picture: Picture, _: Random) -> Picture:
    """Reduce it to a dozen colours with clean edges."""
    small = picture.resize(
        (max(8, picture.width * 480 // max(picture.size)), max(8, picture.height * 480 // max(picture.size)))
    )
    calm = small.filter(ImageFilter.MedianFilter(3))
    few = calm.quantize(12, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    return few.resize(picture.size, Image.Resampling.BICUBIC)


_HOW: Mapping[str, Callable[[Picture, Random], Picture]] = {
    "dawn": _dawn,
    "dusk": _dusk,
    "sunset": _sunset,
    "day": _day,
    "night": _night,
    "fog": _fog,
    "storm": _storm,
    "rain": _rain,
    "snow": _snow,
    "autumn": _turned_leaves((1.08, 0.34, -0.1, 4, 0.2, 0.74, 0.02, -4, 0.02, 0.06, 0.72, -6), 1.12),
    "spring": _turned_leaves((0.94, 0.12, 0.08, 12, 0.02, 1.0, 0.06, 10, 0.08, 0.06, 0.92, 14), 1.06),
    "painting": _painting,
    "sketch": _sketch,
    "mono": _mono,
    "sepia": _sepia,
    "neon": _neon,
    "flat": _flat,
}

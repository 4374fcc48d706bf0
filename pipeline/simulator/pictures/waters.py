"""Water: a mirror of what stands above it, ripples, the road of light under the sun, foam on a beach.

In: a canvas whose upper part is finished, and the air. Out: paint from the water's edge down.
"""

from math import sin

from PIL import Image

from pipeline.simulator.pictures.canvas import Canvas, vertical
from pipeline.simulator.pictures.colours import Rgb, mix
from pipeline.simulator.pictures.lines import across, hills
from pipeline.simulator.pictures.skies import Air


def water(canvas: Canvas, air: Air, top: float, tint: Rgb | None, *, calm: float = 0.5) -> None:
    """Fill everything below `top` with water. `calm` 1 is a mirror, 0 the open sea."""
    line, room = round(top), canvas.height - round(top)
    if room < 4:
        return
    mirror = _mirror(canvas, line, room)
    deep = mix(air.stops[0], (16, 62, 92), 0.55) if not air.is_dark else (8, 16, 38)
    if tint is not None:
        deep = mix(deep, tint, 0.5)
    sea = vertical([(0, mix(deep, air.haze, 0.55)), (0.35, mix(deep, air.haze, 0.18)), (1, mix(deep, air.shade, 0.35))])
    canvas.image.paste(Image.blend(sea(canvas.width, room), mirror, 0.2 + 0.5 * calm), (0, line))
    _ripples(canvas, air, line, room)
    if air.has_sun:
        _road(canvas, air, line, room)
    canvas.soft(canvas.width / 2, top, (canvas.width, room * 0.06), air.haze, 0.35)


def _mirror(canvas: Canvas, line: int, room: int) -> Image.Image:
    """Turn the picture above the line upside down, waver it and blur it across."""
    reach = min(line, round(room * 1.25))
    above = canvas.image.crop((0, line - reach, canvas.width, line)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    small = above.resize((max(2, canvas.width // 3), max(2, room // 3)), Image.Resampling.BILINEAR)
    waved = Image.new("RGB", small.size)
    for y in range(small.height):
        depth = y / small.height
        shift = round(sin(y * (1.9 - depth)) * (0.5 + 3.5 * depth))
        waved.paste(small.crop((0, y, small.width, y + 1)), (shift, y))
        if shift:
            edge = small.width + shift if shift < 0 else 0
            waved.paste(small.crop((0, y, abs(shift), y + 1)), (edge, y))
    return waved.resize((canvas.width, room), Image.Resampling.BICUBIC)


def _ripples(canvas: Canvas, air: Air, line: int, room: int) -> None:
    """Draw short bright and dark strokes, longer and further apart towards the eye."""
    random = canvas.random
    for number in range(70):
        depth = (number / 70) ** 1.7
        y = line + room * (0.02 + 0.97 * depth)
        wide = canvas.unit * (0.02 + 0.16 * depth) * random.uniform(0.5, 1.4)
        x = random.random() * canvas.width
        bright = random.random() < 0.55
        colour = mix(air.stops[-1], (255, 255, 255), 0.25) if bright else air.shade
        canvas.soft(x, y, (wide, canvas.unit * (0.0018 + 0.006 * depth)), colour, 0.34 if bright else 0.3, power=0.8)


def _road(canvas: Canvas, air: Air, line: int, room: int) -> None:
    """Lay the broken road of light under sun or moon."""
    random, x = canvas.random, air.sun[0]
    light = mix(air.glow, (255, 255, 255), 0.3)
    canvas.glow(x, line + room * 0.1, (canvas.unit * 0.2, room * 0.75), air.glow, 0.35)
    for number in range(38):
        depth = (number / 38) ** 1.5
        y = line + room * (0.01 + 0.92 * depth)
        wide = canvas.unit * (0.018 + 0.075 * depth) * random.uniform(0.4, 1.2)
        offset = random.uniform(-1, 1) * canvas.unit * (0.008 + 0.07 * depth)
        canvas.soft(
            x + offset, y, (wide, canvas.unit * (0.0024 + 0.006 * depth)), light, 0.8 * (1 - 0.6 * depth), power=0.7
        )


def beach(canvas: Canvas, air: Air, top: float) -> None:
    """Lay a beach along the lower edge, with wet sand and a line of foam."""
    edge = across(hills(canvas.random, bumps=3), canvas.width, top - canvas.unit * 0.03, top + canvas.unit * 0.05)
    low = [(canvas.width, canvas.height), (0.0, canvas.height)]
    sand = air.seen((232, 206, 164), 0.0)
    wet = mix(sand, air.shade, 0.3)
    for lift, colour, opacity in ((0.018, (250, 250, 246), 0.75), (0.006, wet, 0.9)):
        canvas.shape(
            [*((x, y - canvas.unit * lift) for x, y in edge), *low],
            air.seen(colour, 0.0) if lift > 0.01 else colour,
            opacity,
        )
    canvas.shape(
        [*((x, y + canvas.unit * 0.025) for x, y in edge), *low], vertical([(0, sand), (1, mix(sand, air.shade, 0.18))])
    )

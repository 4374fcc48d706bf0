"""What floats or flies in a view: boats, hot-air balloons, birds, a planet.

In: a canvas, the air and the prompt's colours. Out: a few small things that give a landscape its scale.
"""

from collections.abc import Sequence
from math import cos, pi, sin

from PIL import Image

from pipeline.simulator.pictures.canvas import Canvas, Point, falloff, horizontal, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, even, lighter, mix
from pipeline.simulator.pictures.lines import curve, noise
from pipeline.simulator.pictures.skies import Air

_SAILS: Sequence[Rgb] = ((246, 240, 228), (222, 96, 72), (240, 196, 92))
_CLOTHS: Sequence[Rgb] = ((214, 76, 62), (240, 178, 70), (58, 120, 160), (236, 120, 90), (88, 150, 120))


def boats(canvas: Canvas, air: Air, colours: Sequence[Rgb]) -> None:
    """Set two sailing boats on the water with their reflections."""
    sails = [*colours, *_SAILS]
    for number, (x, depth, size) in enumerate(((0.3, 0.38, 0.15), (0.66, 0.14, 0.07))):
        y = air.horizon + (canvas.height - air.horizon) * depth
        high = canvas.unit * size * 1.6
        sail = air.seen(sails[number % len(sails)], 0.1)
        _boat(canvas, air, (canvas.width * x, y), high, sail)


def _boat(canvas: Canvas, air: Air, foot: Point, high: float, sail: Rgb) -> None:
    x, y = foot
    hull = air.seen((92, 58, 48), 0.05)
    canvas.soft(x, y + high * 0.2, (high * 0.3, high * 0.3), mix(sail, air.shade, 0.4), 0.4)
    canvas.soft(x, y + high * 0.04, (high * 0.5, high * 0.06), air.shade, 0.6)
    belly = [
        (x + high * 0.02, y - high),
        (x + high * 0.2, y - high * 0.62),
        (x + high * 0.3, y - high * 0.14),
        (x + high * 0.02, y - high * 0.12),
    ]
    canvas.shape(curve(belly, steps=6), horizontal([(0, lighter(sail, 0.2)), (1, darker(sail, 0.25))]))
    canvas.shape(
        [(x - high * 0.03, y - high * 0.88), (x - high * 0.26, y - high * 0.15), (x - high * 0.03, y - high * 0.12)],
        horizontal([(0, darker(sail, 0.12)), (1, lighter(sail, 0.3))]),
    )
    canvas.stroke([(x, y - high * 1.02), (x, y)], high * 0.016, hull)
    side = [
        (x - high * 0.36, y - high * 0.09),
        (x + high * 0.4, y - high * 0.1),
        (x + high * 0.28, y + high * 0.03),
        (x - high * 0.26, y + high * 0.03),
    ]
    canvas.shape(side, vertical([(0, lighter(hull, 0.2)), (1, darker(hull, 0.4))]))


def balloons(canvas: Canvas, air: Air, colours: Sequence[Rgb]) -> None:
    """Hang striped balloons in the sky, small ones far away."""
    cloths = [*colours, *_CLOTHS]
    for number, (x, y, size, depth) in enumerate(
        ((0.68, 0.3, 0.13, 0.0), (0.3, 0.46, 0.07, 0.25), (0.47, 0.16, 0.042, 0.45), (0.86, 0.56, 0.034, 0.5))
    ):
        cloth, other = cloths[number % len(cloths)], cloths[(number + 1) % len(cloths)]
        _balloon(
            canvas,
            (canvas.width * x, air.horizon * y * 1.5),
            canvas.unit * size,
            (air.seen(cloth, depth), air.seen(other, depth)),
        )


def _balloon(canvas: Canvas, middle: Point, radius: float, cloths: tuple[Rgb, Rgb]) -> None:
    x, y = middle
    edge = ((0, -1), (0.62, -0.8), (0.96, -0.2), (0.8, 0.42), (0.3, 1.06), (0.16, 1.22))
    for stripe in range(7):
        share = 1 - stripe / 3.5
        points = [(x + px * share * radius, y + py * radius) for px, py in edge]
        nexts = [(x + px * (share - 2 / 7) * radius, y + py * radius) for px, py in reversed(edge)]
        colour = cloths[stripe % 2]
        canvas.shape(
            [*curve(points, closed=False, steps=4), *curve(nexts, closed=False, steps=4)],
            mix(colour, darker(colour, 0.5), 0.75 * stripe / 7),
        )
    canvas.soft(x - radius * 0.3, y - radius * 0.4, (radius * 0.5, radius * 0.5), (255, 255, 250), 0.4)
    for side in (-0.12, 0.12):
        canvas.stroke(
            [(x + side * radius * 1.2, y + radius * 1.2), (x + side * radius * 0.9, y + radius * 1.5)],
            max(1.0, radius * 0.02),
            (70, 52, 44),
        )
    canvas.block(
        [(x - radius * 0.14, y + radius * 1.48), (x + radius * 0.14, y + radius * 1.7)], radius * 0.03, (112, 76, 50)
    )


def gulls(canvas: Canvas, air: Air) -> None:
    """Draw a few birds far up."""
    random = canvas.random
    x, y = canvas.width * random.uniform(0.3, 0.7), air.horizon * random.uniform(0.25, 0.5)
    colour = mix(air.shade, air.stops[1], 0.3) if not air.is_dark else (150, 160, 190)
    for _ in range(5):
        bx, by = x + random.uniform(-0.13, 0.13) * canvas.unit, y + random.uniform(-0.06, 0.06) * canvas.unit
        wing = canvas.unit * random.uniform(0.01, 0.019)
        points = curve(
            [
                (bx - wing, by - wing * 0.1),
                (bx - wing * 0.5, by - wing * 0.45),
                (bx, by),
                (bx + wing * 0.5, by - wing * 0.45),
                (bx + wing, by - wing * 0.1),
            ],
            closed=False,
            steps=4,
        )
        canvas.stroke(points, max(1.0, canvas.unit * 0.0026), colour, 0.85)


def _ring(canvas: Canvas, middle: Point, radius: float, colour: Rgb, *, is_front: bool) -> None:
    """Draw half of a tilted ring: the far half is hidden by the planet, the near one lies over it."""
    turn = 0.0 if is_front else pi
    for wide, opacity in ((1.95, 0.55), (1.72, 0.8), (1.5, 0.45)):
        arc = [turn + pi * step / 24 for step in range(25)]
        flat = [(wide * radius * cos(angle), wide * radius * 0.24 * sin(angle)) for angle in arc]
        points = [(middle[0] + px * 0.96 + py * 0.28, middle[1] - px * 0.28 + py * 0.96) for px, py in flat]
        canvas.stroke(points, radius * 0.07, colour, opacity)


def planet(canvas: Canvas, air: Air, colours: Sequence[Rgb]) -> None:
    """Hang a banded planet with a ring and a small moon into the sky."""
    x, y, radius = canvas.width * 0.6, air.horizon * 0.5, canvas.unit * 0.2
    one = colours[0] if colours else (214, 142, 96)
    other = colours[-1] if len(colours) > 1 else mix(one, (250, 226, 190), 0.6)
    canvas.glow(x, y, (radius * 2.2, radius * 2.2), one, 0.5)
    size = (round(radius * 2), round(radius * 2))
    bands = noise(canvas.random, size, (2, 9), 3)
    ramp = vertical(even([darker(one, 0.3), one, other, one, lighter(other, 0.3), darker(one, 0.2), other]))
    body = Image.composite(ramp(*size), Image.new("RGB", size, mix(one, other, 0.5)), bands)
    light = falloff(0.7).resize(size, Image.Resampling.BILINEAR, box=(64, 64, 256, 256))
    body = Image.composite(body, Image.new("RGB", size, (8, 8, 22)), light.point([min(255, v * 2) for v in range(256)]))
    _ring(canvas, (x, y), radius, lighter(other, 0.2), is_front=False)
    canvas.oval((x, y), (radius, radius), lambda wide, high: body.resize((wide, high)))
    _ring(canvas, (x, y), radius, lighter(other, 0.2), is_front=True)
    canvas.oval((x - radius * 1.7, y - radius * 0.9), (radius * 0.16, radius * 0.16), (206, 206, 214))
    canvas.oval((x - radius * 1.64, y - radius * 0.86), (radius * 0.14, radius * 0.14), (60, 62, 84), 0.6)

"""What people built, seen from afar: skylines and stacked houses.

In: a canvas and the air. Out: paint around the horizon, windows lit when it is dark.
"""

from collections.abc import Sequence

from pipeline.simulator.pictures.canvas import Canvas, Point, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, lighter, mix
from pipeline.simulator.pictures.lines import hills
from pipeline.simulator.pictures.skies import Air

_WALLS: Sequence[Rgb] = (
    (240, 226, 200),
    (232, 186, 142),
    (222, 148, 120),
    (244, 214, 150),
    (206, 216, 214),
    (236, 232, 226),
)
_LATE = frozenset({"night", "dusk", "aurora", "storm"})


def skyline(canvas: Canvas, air: Air, base: float, tint: Rgb | None) -> None:
    """Raise three rows of towers, the far ones pale."""
    wall = (92, 104, 132) if tint is None else mix((92, 104, 132), tint, 0.5)
    random = canvas.random
    for depth, tallest in ((0.72, 0.62), (0.45, 0.5), (0.14, 0.34)):
        x = -canvas.unit * 0.05
        while x < canvas.width:
            wide = canvas.unit * random.uniform(0.045, 0.11)
            middle = 1 - abs((x + wide / 2) / canvas.width - 0.5) * 1.1
            height = base * tallest * (0.3 + 0.7 * random.random()) * (0.45 + 0.55 * middle)
            _tower(canvas, air, (x, base), (wide, height), air.seen(wall, depth), has_windows=depth < 0.5)
            x += wide * random.uniform(0.75, 1.15)
        canvas.soft(canvas.width / 2, base, (canvas.width, base * 0.2), air.haze, 0.4)


def _tower(canvas: Canvas, air: Air, foot: Point, size: Point, colour: Rgb, *, has_windows: bool) -> None:
    x, base = foot
    wide, height = size
    lit, shaded = mix(colour, air.glow, 0.16), mix(colour, air.shade, 0.24)
    sides = (lit, shaded) if air.sun[0] < x else (shaded, lit)
    canvas.shape(
        [(x, base - height), (x + wide, base - height), (x + wide, base), (x, base)],
        vertical([(0, sides[0]), (1, mix(sides[0], air.haze, 0.3))]),
    )
    canvas.shape(
        [(x + wide * 0.62, base - height), (x + wide, base - height), (x + wide, base), (x + wide * 0.62, base)],
        vertical([(0, sides[1]), (1, mix(sides[1], air.haze, 0.3))]),
    )
    if canvas.random.random() < 0.25:
        canvas.stroke(
            [(x + wide * 0.4, base - height), (x + wide * 0.4, base - height * 1.14)], canvas.unit * 0.003, shaded
        )
    if has_windows:
        _windows(canvas, air, foot, size, colour)


def _windows(canvas: Canvas, air: Air, foot: Point, size: Point, wall: Rgb) -> None:
    """Dot a wall with windows: some lit in the evening, all a little brighter by day."""
    x, base = foot
    wide, height = size
    step = canvas.unit * 0.015
    late = air.light in _LATE
    row = base - height + step
    while row < base - step:
        for column in range(1, int(wide * 0.95 / step)):
            if late and canvas.random.random() < 0.45:
                colour = canvas.random.choice(((255, 214, 130), (255, 232, 176), (250, 190, 110)))
            elif late or canvas.random.random() < 0.4:
                continue
            else:
                colour = lighter(wall, 0.28)
            at = (round(x + column * step), round(row), round(x + column * step + step * 0.45), round(row + step * 0.6))
            canvas.image.paste(colour, at)
        row += step * 1.25


def houses(canvas: Canvas, air: Air, top: float, bottom: float, tint: Rgb | None) -> None:
    """Stack houses on a hillside between `top` and `bottom`, roof over roof."""
    random = canvas.random
    slope = hills(random, bumps=3)
    rows = 6
    for row in range(rows):
        near = row / (rows - 1)
        size = canvas.unit * (0.045 + 0.045 * near)
        x = -size * random.random()
        while x < canvas.width:
            lift = slope[min(64, max(0, round(x / canvas.width * 64)))] * (bottom - top) * 0.55 * (1 - near)
            base = top + (bottom - top) * (0.45 + 0.55 * near) - lift
            wide, high = size * random.uniform(0.8, 1.4), size * random.uniform(0.9, 1.6)
            wall = random.choice(_WALLS)
            if tint is not None and random.random() < 0.3:
                wall = mix(wall, tint, 0.7)
            _house(canvas, air, (x, base), (wide, high), air.seen(wall, 0.4 * (1 - near)))
            x += wide * random.uniform(0.9, 1.05)


def _house(canvas: Canvas, air: Air, foot: Point, size: Point, wall: Rgb) -> None:
    x, base = foot
    wide, high = size
    roof = air.seen((178, 84, 56), 0.12)
    far = canvas.unit * 0.1
    canvas.shape(
        [(x, base - high), (x + wide, base - high), (x + wide, base + far), (x, base + far)],
        vertical(
            [(0, wall), (min(1.0, high / (high + far)), mix(wall, air.shade, 0.3)), (1, mix(wall, air.shade, 0.4))]
        ),
    )
    canvas.shape(
        [
            (x - wide * 0.06, base - high),
            (x + wide * 0.18, base - high * 1.32),
            (x + wide * 0.82, base - high * 1.32),
            (x + wide * 1.06, base - high),
        ],
        vertical([(0, lighter(roof, 0.14)), (1, darker(roof, 0.15))]),
    )
    glass = (255, 214, 136) if air.light in _LATE and canvas.random.random() < 0.6 else mix(wall, (48, 62, 84), 0.65)
    for column in (0.22, 0.6):
        for row in (0.28, 0.66):
            at = (
                round(x + wide * column),
                round(base - high * (1 - row)),
                round(x + wide * (column + 0.17)),
                round(base - high * (1 - row) + high * 0.2),
            )
            if at[2] > at[0] and at[3] > at[1]:
                canvas.image.paste(glass, at)

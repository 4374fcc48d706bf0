"""The few things a place is known by: tower, bridge, pyramids, pagoda, windmill, lighthouse, cabin.

In: a canvas, the air, a name and the height of the ground. Out: one thing on the horizon, in that air.
"""

from math import pi, sin

from pipeline.simulator.pictures.canvas import Canvas, vertical
from pipeline.simulator.pictures.colours import darker, lighter, mix
from pipeline.simulator.pictures.skies import Air


def landmark(canvas: Canvas, air: Air, name: str, base: float) -> None:
    """Put one thing a place is known by on the horizon; names that have no drawing are left out."""
    draw = {
        "tower": _lattice,
        "bridge": _bridge,
        "pyramid": _pyramids,
        "pagoda": _pagoda,
        "windmill": _windmill,
        "lighthouse": _lighthouse,
        "cabin": _cabin,
    }.get(name)
    if draw is not None:
        draw(canvas, air, base)


def _lattice(canvas: Canvas, air: Air, base: float) -> None:
    x, high, iron = canvas.width * 0.5, base * 0.82, air.seen((96, 84, 82), 0.15)
    foot = high * 0.2
    right = [(x + foot * (1 - t) ** 2.6 + high * 0.006, base - high * t) for t in (0, 0.12, 0.25, 0.4, 0.6, 0.85, 1)]
    left = [(2 * x - px, py) for px, py in reversed(right)]
    arch = [
        (x + foot * 0.62 * sin(a * pi - pi / 2), base - high * 0.13 * sin(a * pi))
        for a in (0, 0.2, 0.4, 0.5, 0.6, 0.8, 1)
    ]
    canvas.shape([*right, *left, *arch], vertical([(0, lighter(iron, 0.16)), (1, iron)]))
    for t, wide in ((0.22, 0.6), (0.42, 0.34)):
        canvas.block(
            [(x - foot * wide, base - high * t), (x + foot * wide, base - high * t + high * 0.018)],
            1,
            darker(iron, 0.2),
        )


def _bridge(canvas: Canvas, air: Air, base: float) -> None:
    colour, unit = air.seen((176, 78, 62), 0.18), canvas.unit
    deck, towers = base - unit * 0.045, (canvas.width * 0.26, canvas.width * 0.74)
    top = base - unit * 0.3
    for start, end in ((-canvas.width * 0.22, towers[0]), towers, (towers[1], canvas.width * 1.22)):
        line = [
            (start + (end - start) * t, top + (deck - top) * (1 - (2 * t - 1) ** 2))
            for t in (step / 20 for step in range(21))
        ]
        canvas.stroke(line, unit * 0.006, colour)
        for x, y in line[1:-1]:
            canvas.stroke([(x, y), (x, deck)], unit * 0.0018, colour, 0.8)
    canvas.block([(-5, deck), (canvas.width + 5, deck + unit * 0.014)], 0, darker(colour, 0.2))
    for x in towers:
        canvas.block(
            [(x - unit * 0.012, top - unit * 0.02), (x + unit * 0.012, base + unit * 0.03)],
            unit * 0.004,
            vertical([(0, lighter(colour, 0.15)), (1, darker(colour, 0.2))]),
        )


def _pyramids(canvas: Canvas, air: Air, base: float) -> None:
    for x, size, depth in ((0.72, 0.26, 0.4), (0.3, 0.42, 0.25), (0.52, 0.2, 0.15)):
        wide, middle = canvas.unit * size, canvas.width * x
        stone = air.seen((214, 168, 110), depth)
        peak, ridge = (middle, base - wide * 0.62), (middle + wide * 0.12, base + canvas.unit * 0.01)
        lit, shaded = lighter(stone, 0.15), mix(stone, air.shade, 0.42)
        sides = (lit, shaded) if air.sun[0] < middle else (shaded, lit)
        canvas.shape([(middle - wide * 0.5, base), peak, ridge], sides[0])
        canvas.shape([ridge, peak, (middle + wide * 0.5, base)], sides[1])


def _pagoda(canvas: Canvas, air: Air, base: float) -> None:
    x, unit, red, roof = canvas.width * 0.62, canvas.unit, air.seen((164, 62, 48), 0.08), air.seen((58, 66, 78), 0.08)
    y = base
    for level in range(5):
        wide, high = unit * (0.11 - 0.015 * level), unit * 0.062
        canvas.block([(x - wide * 0.6, y - high), (x + wide * 0.6, y)], 1, vertical([(0, darker(red, 0.3)), (1, red)]))
        canvas.shape(
            [
                (x - wide * 1.15, y - high * 0.86),
                (x - wide * 0.55, y - high * 1.42),
                (x + wide * 0.55, y - high * 1.42),
                (x + wide * 1.15, y - high * 0.86),
                (x + wide * 0.6, y - high),
                (x - wide * 0.6, y - high),
            ],
            vertical([(0, lighter(roof, 0.18)), (1, roof)]),
        )
        y -= high * 1.25
    canvas.stroke([(x, y), (x, y - unit * 0.07)], unit * 0.006, roof)


def _windmill(canvas: Canvas, air: Air, base: float) -> None:
    x, unit, wall = canvas.width * 0.66, canvas.unit, air.seen((214, 196, 170), 0.1)
    top = base - unit * 0.2
    canvas.shape(
        [(x - unit * 0.055, base), (x - unit * 0.032, top), (x + unit * 0.032, top), (x + unit * 0.055, base)],
        vertical([(0, lighter(wall, 0.1)), (1, mix(wall, air.shade, 0.3))]),
    )
    canvas.oval((x, top), (unit * 0.034, unit * 0.03), air.seen((110, 62, 48), 0.1))
    for turn in (0.25, 0.75, 1.25, 1.75):
        dx, dy = sin(turn * pi) * unit * 0.15, sin((turn + 0.5) * pi) * unit * 0.15
        canvas.stroke([(x, top), (x + dx, top + dy)], unit * 0.005, air.seen((74, 58, 50), 0.05))
        canvas.shape(
            [
                (x + dx * 0.25, top + dy * 0.25),
                (x + dx, top + dy),
                (x + dx - dy * 0.16, top + dy + dx * 0.16),
                (x + dx * 0.25 - dy * 0.16, top + dy * 0.25 + dx * 0.16),
            ],
            air.seen((240, 232, 216), 0.05),
            0.9,
        )


def _lighthouse(canvas: Canvas, air: Air, base: float) -> None:
    x, unit = canvas.width * (0.74 if air.sun[0] < canvas.width / 2 else 0.26), canvas.unit
    rock = air.seen((84, 82, 88), 0.1)
    canvas.shape(
        [
            (x - unit * 0.2, base + unit * 0.02),
            (x - unit * 0.1, base - unit * 0.04),
            (x + unit * 0.06, base - unit * 0.06),
            (x + unit * 0.16, base - unit * 0.01),
            (x + unit * 0.24, base + unit * 0.02),
        ],
        vertical([(0, lighter(rock, 0.15)), (1, darker(rock, 0.3))]),
    )
    foot, top, white = base - unit * 0.04, base - unit * 0.34, air.seen((246, 242, 234), 0.05)
    for band in range(5):
        y0, y1 = foot + (top - foot) * band / 5, foot + (top - foot) * (band + 1) / 5
        w0, w1 = unit * (0.036 - 0.0032 * band), unit * (0.036 - 0.0032 * (band + 1))
        colour = white if band % 2 == 0 else air.seen((190, 54, 46), 0.05)
        canvas.shape([(x - w0, y0), (x - w1, y1), (x + w1, y1), (x + w0, y0)], colour)
        canvas.shape([(x + w0 * 0.25, y0), (x + w1 * 0.25, y1), (x + w1, y1), (x + w0, y0)], air.shade, 0.22)
    canvas.block(
        [(x - unit * 0.026, top - unit * 0.006), (x + unit * 0.026, top + unit * 0.004)], 1, darker(white, 0.5)
    )
    canvas.block([(x - unit * 0.014, top - unit * 0.036), (x + unit * 0.014, top - unit * 0.006)], 1, (255, 240, 190))
    canvas.shape(
        [(x - unit * 0.02, top - unit * 0.036), (x, top - unit * 0.058), (x + unit * 0.02, top - unit * 0.036)],
        air.seen((190, 54, 46), 0.05),
    )
    canvas.glow(x, top - unit * 0.02, (unit * 0.16, unit * 0.12), (255, 226, 150), 0.9)


def _cabin(canvas: Canvas, air: Air, base: float) -> None:
    x, unit, red = canvas.width * 0.3, canvas.unit, air.seen((158, 52, 44), 0.1)
    wide, high = unit * 0.09, unit * 0.06
    rock = air.seen((92, 96, 90), 0.15)
    isle = [
        (x - wide * 1.3, base + unit * 0.012),
        (x - wide * 0.5, base - unit * 0.014),
        (x + wide * 1.3, base - unit * 0.018),
    ]
    isle += [(x + wide * 2.4, base + unit * 0.012)]
    canvas.shape(isle, vertical([(0, lighter(rock, 0.15)), (1, darker(rock, 0.2))]))
    base -= unit * 0.01
    canvas.block(
        [(x, base - high), (x + wide, base + unit * 0.006)], 0, vertical([(0, red), (1, mix(red, air.shade, 0.3))])
    )
    canvas.shape(
        [
            (x - wide * 0.1, base - high),
            (x + wide * 0.12, base - high * 1.7),
            (x + wide * 0.88, base - high * 1.7),
            (x + wide * 1.1, base - high),
        ],
        air.seen((66, 62, 68), 0.1),
    )
    for column in (0.2, 0.62):
        canvas.block(
            [(x + wide * column, base - high * 0.7), (x + wide * (column + 0.17), base - high * 0.3)],
            0,
            (255, 222, 150),
        )

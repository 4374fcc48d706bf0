"""Compositions without a subject, for prompts in which nothing is recognised: waves, discs, folds, a sun over bars.

In: a canvas and the prompt's colours. Out: a finished picture that is calm and belongs to its prompt alone.
"""

from collections.abc import Sequence
from math import pi, sin

from pipeline.simulator.pictures.canvas import Canvas, Point, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, even, lighter, luma, mix
from pipeline.simulator.pictures.lines import curve

_PALETTES: tuple[tuple[Rgb, ...], ...] = (
    ((244, 232, 214), (232, 168, 124), (196, 92, 72), (92, 60, 84), (38, 42, 74)),
    ((238, 240, 232), (164, 200, 188), (74, 140, 140), (36, 84, 104), (22, 40, 66)),
    ((250, 240, 220), (246, 202, 110), (236, 138, 84), (186, 72, 92), (72, 42, 92)),
    ((236, 238, 246), (176, 188, 226), (112, 122, 190), (72, 66, 142), (32, 30, 78)),
    ((246, 238, 228), (214, 190, 162), (158, 150, 120), (94, 112, 98), (44, 62, 64)),
    ((252, 236, 232), (244, 182, 176), (222, 110, 132), (132, 62, 118), (50, 32, 78)),
)


def paint(canvas: Canvas, colours: Sequence[Rgb]) -> None:
    """Paint one of the compositions."""
    palette = _palette(canvas, colours)
    canvas.random.choice((_waves, _discs, _folds, _sunrise))(canvas, palette)


def _palette(canvas: Canvas, colours: Sequence[Rgb]) -> Sequence[Rgb]:
    """Return five colours from pale to deep, around the prompt's own when it has some."""
    chosen = canvas.random.choice(_PALETTES)
    if not colours:
        return chosen
    light, deep = max(colours, key=luma), min(colours, key=luma)
    if light == deep:
        return (lighter(light, 0.82), lighter(light, 0.4), light, darker(light, 0.35), darker(light, 0.65))
    return (lighter(light, 0.8), light, mix(light, deep, 0.5), deep, darker(deep, 0.45))


def _waves(canvas: Canvas, palette: Sequence[Rgb]) -> None:
    canvas.paint(vertical(even([palette[0], lighter(palette[1], 0.4)])))
    x = canvas.width * canvas.random.uniform(0.3, 0.7)
    canvas.glow(x, canvas.height * 0.3, (canvas.unit * 0.7, canvas.unit * 0.7), lighter(palette[1], 0.2), 0.6)
    canvas.oval(
        (x, canvas.height * 0.3),
        (canvas.unit * 0.13, canvas.unit * 0.13),
        vertical([(0, lighter(palette[2], 0.2)), (1, palette[1])]),
    )
    phase = canvas.random.uniform(0, 2 * pi)
    layers = 7
    for layer in range(layers):
        t = layer / (layers - 1)
        base = canvas.height * (0.4 + 0.52 * t)
        high = canvas.height * (0.09 - 0.03 * t)
        line = [
            (
                canvas.width * s / 60,
                base + high * sin(s / 60 * (4.4 + t * 2) + phase + layer * 1.7) + high * 0.4 * sin(s / 60 * 11 + layer),
            )
            for s in range(61)
        ]
        colour = _along(palette, 0.25 + 0.75 * t)
        canvas.shape(
            [(px, py - canvas.unit * 0.012) for px, py in line] + [(canvas.width, canvas.height), (0, canvas.height)],
            darker(colour, 0.3),
            0.16,
        )
        canvas.shape(
            [*line, (canvas.width, canvas.height), (0, canvas.height)],
            vertical([(0, lighter(colour, 0.14)), (1, darker(colour, 0.1))]),
        )


def _along(palette: Sequence[Rgb], t: float) -> Rgb:
    place = min(len(palette) - 2, int(t * (len(palette) - 1)))
    return mix(palette[place], palette[place + 1], t * (len(palette) - 1) - place)


def _discs(canvas: Canvas, palette: Sequence[Rgb]) -> None:
    canvas.paint(vertical(even([palette[4], mix(palette[4], palette[3], 0.6)])))
    for number in range(11):
        radius = canvas.unit * canvas.random.uniform(0.06, 0.34) * (1.1 - number * 0.05)
        x, y = canvas.random.uniform(0.05, 0.95) * canvas.width, canvas.random.uniform(0.08, 0.92) * canvas.height
        colour = palette[canvas.random.randrange(4)]
        canvas.soft(x + radius * 0.2, y + radius * 0.25, (radius * 1.3, radius * 1.3), darker(palette[4], 0.6), 0.5)
        canvas.oval(
            (x, y), (radius, radius), vertical([(0, lighter(colour, 0.2)), (1, mix(colour, palette[3], 0.45))]), 0.9
        )
        if number % 3 == 0:
            canvas.oval(
                (x, y),
                (radius * 0.62, radius * 0.62),
                vertical([(0, mix(colour, palette[3], 0.6)), (1, lighter(colour, 0.15))]),
                0.85,
            )


def _folds(canvas: Canvas, palette: Sequence[Rgb]) -> None:
    canvas.paint(palette[0])
    count, slope = 9, canvas.random.choice((-0.35, 0.35, 0.5, -0.5)) * canvas.height
    for band in range(count):
        left = canvas.width * (band - 1.2) / (count - 2.4)
        wide = canvas.width / (count - 2.4)
        bend = canvas.random.uniform(-0.2, 0.2) * wide
        colour = _along(palette, (band * 5 % count) / (count - 1))
        edge: list[Point] = [
            (left, -canvas.height * 0.05),
            (left + bend, canvas.height * 0.35),
            (left - bend + slope * 0.2, canvas.height * 0.7),
            (left + slope * 0.35, canvas.height * 1.05),
        ]
        right = [(x + wide * 1.5, y) for x, y in edge]
        canvas.shape(
            [*curve(edge, closed=False), *reversed(curve(right, closed=False))],
            vertical([(0, lighter(colour, 0.18)), (0.5, colour), (1, darker(colour, 0.2))]),
        )
        shade = [(x + wide * 0.2, y) for x, y in edge]
        canvas.shape([*curve(edge, closed=False), *reversed(curve(shade, closed=False))], darker(colour, 0.5), 0.3)


def _sunrise(canvas: Canvas, palette: Sequence[Rgb]) -> None:
    canvas.paint(vertical(even([palette[0], palette[1]])))
    x, y = canvas.width * 0.5, canvas.height * canvas.random.uniform(0.42, 0.52)
    for ring in range(6, 0, -1):
        radius = canvas.unit * (0.1 + 0.075 * ring)
        canvas.oval((x, y), (radius, radius), _along(palette, 0.2 + 0.06 * ring), 0.55)
    canvas.oval(
        (x, y), (canvas.unit * 0.2, canvas.unit * 0.2), vertical([(0, palette[2]), (1, lighter(palette[2], 0.35))])
    )
    bars = 6
    room = canvas.height - y
    for bar in range(bars):
        top, bottom = (
            y + room * (0.06 + 0.94 * (bar / bars) ** 1.2),
            y + room * (0.06 + 0.94 * ((bar + 1) / bars) ** 1.2),
        )
        share = 0.35 + 0.65 * bar / bars
        upper, lower = _along(palette, 0.4 + 0.5 * bar / bars), _along(palette, 0.5 + 0.5 * (bar + 1) / bars)
        canvas.cover(vertical([(0, upper), (1, lower)]), top, top + (bottom - top) * share)

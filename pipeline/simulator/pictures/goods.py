"""Fruit and household goods: from apple and lemon to lamp, chair, clock, camera and shoe.

In: a pen and a colour. Out: the thing, shaded, without its shadow.
"""

from collections.abc import Callable, Mapping
from math import cos, pi, sin

from pipeline.simulator.pictures.canvas import horizontal, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, lighter, mix
from pipeline.simulator.pictures.pen import Pen, flat, globe, tube

_WOOD: Rgb = (150, 104, 66)
_LEAF: Rgb = (92, 142, 70)


def _leaf(pen: Pen, x: float, y: float, size: float) -> None:
    pen.round(
        [(x, y), (x + size * 0.5, y - size * 0.4), (x + size, y - size * 0.3), (x + size * 0.6, y + size * 0.08)],
        flat(_LEAF, 0.35),
        steps=6,
    )


def _apple(pen: Pen, colour: Rgb) -> None:
    pen.round(
        [
            (0.5, 0.36),
            (0.66, 0.3),
            (0.84, 0.4),
            (0.88, 0.62),
            (0.76, 0.9),
            (0.6, 0.995),
            (0.5, 0.965),
            (0.4, 0.995),
            (0.24, 0.9),
            (0.12, 0.62),
            (0.16, 0.4),
            (0.34, 0.3),
        ],
        globe(colour),
    )
    pen.soft((0.5, 0.37), (0.13, 0.05), darker(colour, 0.6), 0.7)
    pen.stroke([(0.5, 0.39), (0.5, 0.28), (0.54, 0.19)], 0.026, (92, 66, 44))
    _leaf(pen, 0.52, 0.27, 0.24)
    pen.shine((0.32, 0.52), (0.09, 0.13), 0.6)


def _pear(pen: Pen, colour: Rgb) -> None:
    pen.turned(
        [(0.03, 0.2), (0.09, 0.26), (0.13, 0.42), (0.24, 0.6), (0.29, 0.78), (0.22, 0.95), (0.08, 0.995)], globe(colour)
    )
    pen.stroke([(0.5, 0.21), (0.51, 0.12), (0.55, 0.07)], 0.024, (92, 66, 44))
    _leaf(pen, 0.52, 0.15, 0.2)
    pen.shine((0.38, 0.68), (0.06, 0.12), 0.5)


def _orange(pen: Pen, colour: Rgb) -> None:
    pen.oval((0.5, 0.66), (0.35, 0.335), globe(colour))
    pen.soft((0.52, 0.36), (0.06, 0.03), darker(colour, 0.5), 0.5)
    _leaf(pen, 0.51, 0.35, 0.26)
    pen.shine((0.36, 0.52), (0.1, 0.09), 0.5)


def _lemon(pen: Pen, colour: Rgb) -> None:
    pen.round(
        [
            (0.1, 0.7),
            (0.2, 0.58),
            (0.4, 0.46),
            (0.66, 0.47),
            (0.83, 0.6),
            (0.93, 0.68),
            (0.84, 0.8),
            (0.66, 0.97),
            (0.4, 0.985),
            (0.2, 0.86),
        ],
        globe(colour),
        steps=8,
    )
    pen.shine((0.38, 0.6), (0.12, 0.07), 0.6)


def _cake(pen: Pen, colour: Rgb) -> None:
    pen.oval((0.5, 0.965), (0.46, 0.045), flat((232, 230, 226)))
    pen.turned([(0.36, 0.52), (0.36, 0.94)], tube(mix(colour, (230, 190, 140), 0.55), 0.4))
    pen.turned([(0.362, 0.7), (0.362, 0.76)], tube(lighter(colour, 0.5), 0.4))
    pen.turned([(0.366, 0.5), (0.37, 0.58)], tube(colour, 0.7))
    for drip in range(9):
        x = 0.16 + drip * 0.085
        pen.block(
            [(x - 0.032, 0.54), (x + 0.032, 0.62 + 0.05 * (drip * 7 % 3))], 0.032, darker(colour, 0.02 + 0.05 * drip)
        )
    pen.oval((0.5, 0.505), (0.37, 0.075), lighter(colour, 0.2))
    for place in range(7):
        angle = 2 * pi * place / 7
        pen.oval((0.5 + 0.27 * cos(angle), 0.49 + 0.05 * sin(angle)), (0.034, 0.03), globe((206, 48, 62)))
    pen.stroke([(0.5, 0.49), (0.5, 0.3)], 0.024, (246, 226, 170), smooth=False)
    x, y = pen.at((0.5, 0.25))
    pen.canvas.glow(x, y, (pen.size * 0.3, pen.size * 0.3), (255, 190, 90), 0.8)
    pen.oval((0.5, 0.255), (0.018, 0.04), (255, 236, 170))


def _lamp(pen: Pen, colour: Rgb) -> None:
    pen.oval((0.5, 0.965), (0.2, 0.035), flat(darker(_WOOD, 0.2)))
    pen.turned([(0.02, 0.45), (0.03, 0.6), (0.09, 0.76), (0.06, 0.88), (0.14, 0.96)], tube(_WOOD))
    x, y = pen.at((0.5, 0.4))
    pen.canvas.glow(x, y, (pen.size * 0.95, pen.size * 0.9), (255, 206, 130), 0.55)
    pen.shape(
        [(0.34, 0.1), (0.66, 0.1), (0.8, 0.48), (0.2, 0.48)],
        horizontal(
            [
                (0, darker(colour, 0.25)),
                (0.45, lighter(mix(colour, (255, 220, 150), 0.45), 0.35)),
                (1, darker(colour, 0.2)),
            ]
        ),
    )
    pen.oval((0.5, 0.48), (0.3, 0.026), (255, 240, 200), 0.85)


def _chair(pen: Pen, colour: Rgb) -> None:
    leg = flat(darker(_WOOD, 0.15))
    for top, low in (
        ((0.3, 0.68), (0.24, 0.95)),
        ((0.74, 0.66), (0.8, 0.93)),
        ((0.66, 0.74), (0.7, 1.0)),
        ((0.34, 0.74), (0.3, 1.0)),
    ):
        pen.stroke([top, low], 0.032, leg, smooth=False)
    pen.round(
        [(0.26, 0.1), (0.5, 0.06), (0.74, 0.1), (0.79, 0.34), (0.76, 0.6), (0.5, 0.63), (0.24, 0.6), (0.21, 0.34)],
        flat(colour, 0.2),
        steps=8,
    )
    pen.round(
        [(0.2, 0.6), (0.5, 0.55), (0.8, 0.6), (0.82, 0.7), (0.5, 0.76), (0.18, 0.7)],
        flat(lighter(colour, 0.1), 0.35),
        steps=8,
    )
    pen.shine((0.38, 0.28), (0.12, 0.16), 0.25)


def _book(pen: Pen, colour: Rgb) -> None:
    other = mix(colour, (236, 214, 176), 0.6)
    pen.block([(0.08, 0.84), (0.9, 0.985)], 0.02, flat(darker(other, 0.2)))
    pen.block([(0.12, 0.855), (0.93, 0.97)], 0.01, vertical([(0, (246, 238, 220)), (1, (214, 202, 180))]))
    pen.shape([(0.2, 0.24), (0.66, 0.16), (0.74, 0.8), (0.27, 0.86)], flat(colour, 0.3))
    pen.shape([(0.66, 0.16), (0.71, 0.18), (0.79, 0.8), (0.74, 0.8)], (240, 232, 214))
    pen.shape([(0.2, 0.24), (0.24, 0.233), (0.31, 0.855), (0.27, 0.86)], darker(colour, 0.35))
    ink = pen.line_on(colour)
    pen.shape([(0.34, 0.38), (0.6, 0.345), (0.606, 0.385), (0.346, 0.42)], ink, 0.9)
    pen.shape([(0.365, 0.47), (0.56, 0.444), (0.563, 0.466), (0.368, 0.492)], ink, 0.6)


def _clock(pen: Pen, colour: Rgb) -> None:
    for side in (-1, 1):
        pen.stroke([(0.5 + side * 0.22, 0.88), (0.5 + side * 0.3, 0.99)], 0.045, darker(colour, 0.3), smooth=False)
        pen.oval((0.5 + side * 0.2, 0.22), (0.12, 0.09), globe(colour))
    pen.oval((0.5, 0.6), (0.39, 0.39), globe(colour))
    pen.oval((0.5, 0.6), (0.32, 0.32), vertical([(0, (232, 228, 218)), (1, (252, 250, 244))]))
    for hour in range(12):
        dx, dy = sin(hour * pi / 6), -cos(hour * pi / 6)
        pen.stroke(
            [(0.5 + dx * 0.27, 0.6 + dy * 0.27), (0.5 + dx * 0.295, 0.6 + dy * 0.295)],
            0.014,
            (60, 60, 70),
            smooth=False,
        )
    for turn, length, wide in ((10.15 / 12, 0.17, 0.024), (9 / 60, 0.25, 0.016)):
        pen.stroke(
            [(0.5, 0.6), (0.5 + sin(turn * 2 * pi) * length, 0.6 - cos(turn * 2 * pi) * length)],
            wide,
            (44, 44, 54),
            smooth=False,
        )
    pen.oval((0.5, 0.6), (0.022, 0.022), colour)


def _camera(pen: Pen, colour: Rgb) -> None:
    pen.block([(0.36, 0.34), (0.64, 0.5)], 0.03, flat(darker(colour, 0.1)))
    pen.block([(0.08, 0.44), (0.92, 0.985)], 0.06, flat(colour, 0.35))
    pen.block([(0.08, 0.56), (0.92, 0.86)], 0.0, flat((52, 48, 50), 0.2))
    for radius, fill in ((0.25, (196, 198, 204)), (0.215, (38, 38, 44)), (0.15, (24, 28, 46))):
        pen.oval((0.5, 0.71), (radius, radius), flat(fill, 0.5))
    pen.oval((0.5, 0.71), (0.1, 0.1), globe((52, 74, 130)))
    pen.shine((0.46, 0.66), (0.045, 0.045), 0.85)
    pen.oval((0.2, 0.415), (0.06, 0.03), flat((196, 198, 204)))
    pen.oval((0.8, 0.5), (0.03, 0.03), (240, 220, 150))


def _headphones(pen: Pen, colour: Rgb) -> None:
    pen.stroke(
        [(0.18, 0.72), (0.17, 0.4), (0.32, 0.16), (0.5, 0.1), (0.68, 0.16), (0.83, 0.4), (0.82, 0.72)],
        0.06,
        darker(colour, 0.3),
    )
    pen.stroke([(0.175, 0.7), (0.165, 0.4), (0.315, 0.15), (0.5, 0.09), (0.68, 0.15)], 0.03, lighter(colour, 0.2))
    for side in (-1, 1):
        pen.round(
            [
                (0.5 + side * x, y)
                for x, y in (
                    (0.4, 0.56),
                    (0.3, 0.54),
                    (0.2, 0.62),
                    (0.18, 0.8),
                    (0.24, 0.96),
                    (0.34, 0.995),
                    (0.42, 0.9),
                    (0.44, 0.7),
                )
            ],
            globe(colour),
            steps=8,
        )
        pen.round(
            [(0.5 + side * x, y) for x, y in ((0.24, 0.6), (0.17, 0.66), (0.15, 0.8), (0.19, 0.94), (0.25, 0.96))],
            flat((46, 44, 50)),
            steps=6,
        )


def _shoe(pen: Pen, colour: Rgb) -> None:
    pen.round(
        [
            (0.08, 0.5),
            (0.16, 0.42),
            (0.34, 0.44),
            (0.44, 0.56),
            (0.66, 0.72),
            (0.92, 0.78),
            (0.96, 0.9),
            (0.5, 0.93),
            (0.07, 0.92),
            (0.05, 0.7),
        ],
        flat(colour, 0.4),
        steps=8,
    )
    pen.round(
        [(0.02, 0.88), (0.5, 0.88), (0.98, 0.86), (0.975, 0.97), (0.5, 0.995), (0.04, 0.99)],
        vertical([(0, (250, 248, 242)), (1, (196, 194, 190))]),
        steps=8,
    )
    pen.round([(0.1, 0.5), (0.2, 0.45), (0.33, 0.47), (0.3, 0.54), (0.14, 0.58)], darker(colour, 0.55), steps=6)
    for step in range(4):
        x, y = 0.37 + step * 0.075, 0.53 + step * 0.052
        pen.stroke([(x, y + 0.09), (x + 0.075, y)], 0.02, (250, 248, 242), smooth=False)
    pen.round([(0.2, 0.84), (0.3, 0.7), (0.44, 0.74), (0.62, 0.84), (0.4, 0.82)], lighter(colour, 0.55), 0.8, steps=6)


def _ball(pen: Pen, colour: Rgb) -> None:
    pen.oval((0.5, 0.62), (0.38, 0.38), globe(colour, 1.6))
    pen.shine((0.36, 0.46), (0.1, 0.09), 0.75)


GOODS: Mapping[str, Callable[[Pen, Rgb], None]] = {
    "apple": _apple,
    "pear": _pear,
    "orange": _orange,
    "lemon": _lemon,
    "cake": _cake,
    "lamp": _lamp,
    "chair": _chair,
    "book": _book,
    "clock": _clock,
    "camera": _camera,
    "headphones": _headphones,
    "shoe": _shoe,
    "ball": _ball,
}

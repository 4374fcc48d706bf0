"""Plants and animals: flower, plant, cat, dog, bird, owl, fish.

In: a pen and a colour. Out: the thing, shaded, without its shadow.
"""

from collections.abc import Callable, Mapping
from math import cos, pi, sin

from pipeline.simulator.pictures.canvas import Point, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, lighter, mix
from pipeline.simulator.pictures.pen import Pen, flat, globe, tube

_STEM: Rgb = (84, 132, 70)


def _flower(pen: Pen, colour: Rgb) -> None:
    for x, tip, size in ((0.34, (0.24, 0.3), 0.15), (0.66, (0.78, 0.34), 0.14), (0.5, (0.5, 0.2), 0.19)):
        pen.stroke([(0.5, 1.0), (x, 0.7), tip], 0.022, _STEM)
        _petals(pen, tip, size, colour)
    for side in (-1, 1):
        pen.round(
            [(0.5, 0.98), (0.5 + side * 0.16, 0.76), (0.5 + side * 0.3, 0.62), (0.5 + side * 0.22, 0.84)],
            flat(_STEM, 0.35),
            steps=8,
        )


def _petals(pen: Pen, middle: Point, size: float, colour: Rgb) -> None:
    x, y = middle
    for ring, (count, reach, wide) in enumerate(((9, 1.0, 0.44), (7, 0.66, 0.36))):
        for petal in range(count):
            angle = 2 * pi * petal / count + ring * 0.4
            dx, dy = cos(angle) * size * reach, sin(angle) * size * reach * 0.86
            px, py = -sin(angle) * size * wide * 0.6, cos(angle) * size * wide * 0.6
            shown = lighter(colour, 0.1 + 0.18 * ring) if dy < 0 else mix(colour, darker(colour, 0.3), 0.4)
            pen.round(
                [
                    (x, y),
                    (x + dx * 0.6 + px, y + dy * 0.6 + py),
                    (x + dx, y + dy),
                    (x + dx * 0.6 - px, y + dy * 0.6 - py),
                ],
                flat(shown, 0.16),
                steps=5,
            )
    pen.oval((x, y), (size * 0.26, size * 0.24), globe((240, 186, 70)))


def _plant(pen: Pen, colour: Rgb) -> None:
    for angle, reach in (
        (-1.25, 0.5),
        (1.25, 0.5),
        (-0.85, 0.62),
        (0.85, 0.6),
        (-0.42, 0.68),
        (0.42, 0.7),
        (0.0, 0.74),
    ):
        tip = (0.5 + sin(angle) * reach * 0.72, 0.72 - cos(angle) * reach)
        side = (cos(angle) * 0.07, sin(angle) * 0.07)
        middle = (0.5 + sin(angle) * reach * 0.42, 0.72 - cos(angle) * reach * 0.62)
        leaf = mix((70, 130, 78), (128, 172, 90), (angle + 1.25) / 2.5)
        pen.round(
            [(0.5, 0.74), (middle[0] - side[0], middle[1] - side[1]), tip, (middle[0] + side[0], middle[1] + side[1])],
            flat(leaf, 0.35),
            steps=8,
        )
        pen.stroke([(0.5, 0.72), middle, tip], 0.006, lighter(leaf, 0.3), 0.7)
    pen.shape([(0.3, 0.7), (0.7, 0.7), (0.645, 0.995), (0.355, 0.995)], tube(colour, 0.5))
    pen.block([(0.28, 0.66), (0.72, 0.74)], 0.015, tube(lighter(colour, 0.06), 0.5))


def _cat(pen: Pen, colour: Rgb) -> None:
    dark = darker(colour, 0.35)
    pen.stroke([(0.7, 0.94), (0.9, 0.93), (0.96, 0.76), (0.88, 0.64)], 0.075, dark)
    pen.round(
        [
            (0.5, 0.36),
            (0.66, 0.46),
            (0.76, 0.7),
            (0.78, 0.9),
            (0.72, 0.985),
            (0.5, 0.995),
            (0.28, 0.985),
            (0.22, 0.9),
            (0.24, 0.7),
            (0.34, 0.46),
        ],
        globe(colour, 0.4),
    )
    pen.soft((0.5, 0.68), (0.15, 0.24), lighter(colour, 0.55), 0.8)
    for side in (-1, 1):
        pen.oval((0.5 + side * 0.1, 0.965), (0.085, 0.035), globe(lighter(colour, 0.25), 0.3))
        pen.stroke([(0.5 + side * 0.07, 0.72), (0.5 + side * 0.08, 0.94)], 0.008, dark, 0.6)
        pen.shape(
            [(0.5 + side * 0.06, 0.14), (0.5 + side * 0.24, -0.01), (0.5 + side * 0.255, 0.26)], flat(colour, 0.1)
        )
        pen.shape(
            [(0.5 + side * 0.12, 0.13), (0.5 + side * 0.215, 0.055), (0.5 + side * 0.22, 0.2)], (226, 150, 146), 0.8
        )
    _cats_face(pen, colour)


def _cats_face(pen: Pen, colour: Rgb) -> None:
    pen.round(
        [(0.5, 0.09), (0.66, 0.12), (0.765, 0.27), (0.7, 0.42), (0.5, 0.48), (0.3, 0.42), (0.235, 0.27), (0.34, 0.12)],
        globe(colour, 0.5),
    )
    for stripe in (-0.07, 0.0, 0.07):
        pen.stroke([(0.5 + stripe, 0.12), (0.5 + stripe * 0.8, 0.2)], 0.018, darker(colour, 0.35), 0.7)
    pen.soft((0.5, 0.39), (0.13, 0.085), lighter(colour, 0.6), 0.9)
    for side in (-1, 1):
        pen.oval((0.5 + side * 0.115, 0.285), (0.052, 0.056), vertical([(0, (120, 150, 70)), (1, (214, 206, 110))]))
        pen.oval((0.5 + side * 0.115, 0.285), (0.02, 0.05), (22, 22, 26))
        pen.oval((0.5 + side * 0.115 - 0.014, 0.262), (0.013, 0.013), (255, 255, 255))
        for lift in (-0.015, 0.015, 0.045):
            pen.stroke(
                [(0.5 + side * 0.07, 0.39), (0.5 + side * 0.36, 0.37 + lift * 1.6)],
                0.005,
                (250, 248, 240),
                0.85,
                smooth=False,
            )
        pen.stroke([(0.5, 0.385), (0.5 + side * 0.03, 0.42), (0.5 + side * 0.07, 0.41)], 0.01, darker(colour, 0.6))
    pen.shape([(0.475, 0.355), (0.525, 0.355), (0.5, 0.385)], (206, 116, 116))


def _dog(pen: Pen, colour: Rgb) -> None:
    pen.stroke([(0.72, 0.86), (0.88, 0.78), (0.92, 0.62)], 0.06, colour)
    pen.round(
        [(0.5, 0.42), (0.68, 0.5), (0.76, 0.76), (0.76, 0.97), (0.5, 0.995), (0.24, 0.97), (0.24, 0.76), (0.32, 0.5)],
        globe(colour, 0.4),
    )
    pen.soft((0.5, 0.7), (0.15, 0.22), lighter(colour, 0.6), 0.85)
    for side in (-1, 1):
        pen.oval((0.5 + side * 0.12, 0.96), (0.09, 0.04), globe(lighter(colour, 0.3), 0.3))
    pen.round(
        [(0.5, 0.07), (0.68, 0.11), (0.74, 0.27), (0.66, 0.45), (0.5, 0.52), (0.34, 0.45), (0.26, 0.27), (0.32, 0.11)],
        globe(colour, 0.5),
    )
    for side in (-1, 1):
        pen.round(
            [(0.5 + side * x, y) for x, y in ((0.17, 0.09), (0.27, 0.11), (0.33, 0.3), (0.28, 0.42), (0.22, 0.3))],
            flat(darker(colour, 0.4), 0.2),
            steps=8,
        )
        pen.oval((0.5 + side * 0.1, 0.25), (0.034, 0.04), (32, 26, 26))
        pen.oval((0.5 + side * 0.1 - 0.01, 0.235), (0.011, 0.011), (255, 255, 255))
        pen.stroke([(0.5, 0.4), (0.5 + side * 0.04, 0.45), (0.5 + side * 0.09, 0.43)], 0.012, (50, 36, 34))
    pen.oval((0.5, 0.4), (0.14, 0.1), globe(lighter(colour, 0.5), 0.3), 0.9)
    pen.oval((0.5, 0.355), (0.055, 0.04), globe((44, 38, 40), 1.4))
    pen.round([(0.46, 0.45), (0.54, 0.45), (0.53, 0.52), (0.5, 0.54), (0.47, 0.52)], (220, 112, 118), steps=5)


def _bird(pen: Pen, colour: Rgb) -> None:
    for x in (0.46, 0.55):
        pen.stroke([(x, 0.84), (x - 0.01, 0.99)], 0.016, (150, 110, 70), smooth=False)
    pen.shape([(0.2, 0.68), (-0.02, 0.86), (0.1, 0.88), (0.34, 0.8)], flat(darker(colour, 0.35)))
    pen.round(
        [
            (0.66, 0.24),
            (0.8, 0.28),
            (0.86, 0.42),
            (0.8, 0.64),
            (0.64, 0.82),
            (0.42, 0.88),
            (0.2, 0.78),
            (0.2, 0.64),
            (0.4, 0.5),
            (0.54, 0.34),
        ],
        globe(colour, 0.5),
    )
    pen.soft((0.68, 0.64), (0.16, 0.18), lighter(mix(colour, (244, 170, 110), 0.5), 0.4), 0.9)
    pen.round(
        [(0.54, 0.5), (0.62, 0.6), (0.48, 0.76), (0.2, 0.82), (0.14, 0.78), (0.36, 0.58)],
        flat(darker(colour, 0.25), 0.3),
        steps=8,
    )
    pen.shape([(0.84, 0.37), (0.99, 0.42), (0.84, 0.455)], flat((236, 164, 70)))
    pen.oval((0.74, 0.37), (0.03, 0.03), (24, 22, 26))
    pen.oval((0.733, 0.36), (0.009, 0.009), (255, 255, 255))


def _owl(pen: Pen, colour: Rgb) -> None:
    pen.round(
        [(0.5, 0.08), (0.72, 0.12), (0.8, 0.4), (0.76, 0.8), (0.5, 0.995), (0.24, 0.8), (0.2, 0.4), (0.28, 0.12)],
        globe(colour, 0.4),
    )
    for row in range(4):
        for column in range(4 - row % 2):
            pen.round(
                [
                    (0.36 + column * 0.09 + row % 2 * 0.045 + dx, 0.56 + row * 0.09 + dy)
                    for dx, dy in ((-0.03, 0), (0.03, 0), (0, 0.06))
                ],
                lighter(colour, 0.45),
                0.8,
                steps=4,
            )
    for side in (-1, 1):
        pen.round(
            [(0.5 + side * x, y) for x, y in ((0.24, 0.42), (0.33, 0.6), (0.26, 0.86), (0.2, 0.64))],
            flat(darker(colour, 0.35)),
            steps=8,
        )
        pen.shape(
            [(0.5 + side * 0.1, 0.12), (0.5 + side * 0.26, 0.01), (0.5 + side * 0.25, 0.2)], flat(darker(colour, 0.2))
        )
        pen.oval((0.5 + side * 0.125, 0.3), (0.125, 0.125), lighter(colour, 0.65))
        pen.oval((0.5 + side * 0.12, 0.3), (0.08, 0.08), globe((240, 178, 60)))
        pen.oval((0.5 + side * 0.12, 0.3), (0.042, 0.042), (20, 20, 24))
        pen.oval((0.5 + side * 0.12 - 0.018, 0.28), (0.015, 0.015), (255, 255, 255))
    pen.shape([(0.465, 0.36), (0.535, 0.36), (0.5, 0.45)], flat((232, 160, 70)))


def _fish(pen: Pen, colour: Rgb) -> None:
    pen.round(
        [(0.3, 0.55), (0.06, 0.34), (0.02, 0.52), (0.05, 0.78), (0.3, 0.62)], flat(darker(colour, 0.12), 0.3), steps=8
    )
    pen.round([(0.4, 0.4), (0.56, 0.24), (0.7, 0.36)], flat(darker(colour, 0.2)), steps=8)
    pen.round(
        [(0.24, 0.58), (0.44, 0.38), (0.72, 0.36), (0.95, 0.56), (0.74, 0.76), (0.44, 0.78)],
        globe(colour, 1.2),
        steps=10,
    )
    for x in (0.42, 0.54, 0.66):
        for y in (0.5, 0.58, 0.66):
            pen.stroke([(x - 0.02, y - 0.03), (x + 0.015, y), (x - 0.02, y + 0.03)], 0.009, lighter(colour, 0.5), 0.6)
    pen.oval((0.82, 0.52), (0.045, 0.045), (250, 250, 246))
    pen.oval((0.828, 0.52), (0.024, 0.024), (24, 24, 30))


LIVING: Mapping[str, Callable[[Pen, Rgb], None]] = {
    "flower": _flower,
    "plant": _plant,
    "cat": _cat,
    "dog": _dog,
    "bird": _bird,
    "owl": _owl,
    "fish": _fish,
}

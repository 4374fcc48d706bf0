"""Machines with a character: robot, car, bicycle, rocket.

In: a pen and a colour. Out: the thing, shaded, without its shadow.
"""

from collections.abc import Callable, Mapping
from math import cos, pi, sin

from pipeline.simulator.pictures.canvas import vertical
from pipeline.simulator.pictures.colours import Rgb, darker, lighter
from pipeline.simulator.pictures.pen import Pen, flat, globe, tube


def _robot(pen: Pen, colour: Rgb) -> None:
    metal = (176, 184, 194)
    pen.stroke([(0.5, 0.12), (0.5, 0.02)], 0.02, metal, smooth=False)
    pen.oval((0.5, 0.02), (0.035, 0.035), globe((232, 84, 70)))
    for side in (-1, 1):
        pen.stroke([(0.5 + side * 0.26, 0.58), (0.5 + side * 0.38, 0.66), (0.5 + side * 0.36, 0.82)], 0.06, flat(metal))
        pen.block(
            [(0.5 + side * 0.12 - 0.07, 0.86), (0.5 + side * 0.12 + 0.07, 0.995)], 0.03, tube(darker(colour, 0.25))
        )
    pen.block([(0.26, 0.5), (0.74, 0.9)], 0.07, tube(colour, 0.6))
    pen.block([(0.22, 0.11), (0.78, 0.48)], 0.1, tube(lighter(colour, 0.12), 0.6))
    pen.block([(0.28, 0.17), (0.72, 0.42)], 0.07, vertical([(0, (24, 32, 52)), (1, (38, 54, 84))]))
    for side in (-1, 1):
        x, y = pen.at((0.5 + side * 0.1, 0.28))
        pen.canvas.glow(x, y, (pen.size * 0.1, pen.size * 0.1), (90, 220, 255), 0.8)
        pen.oval((0.5 + side * 0.1, 0.28), (0.04, 0.045), (170, 244, 255))
    pen.stroke([(0.43, 0.355), (0.5, 0.38), (0.57, 0.355)], 0.016, (170, 244, 255))
    for place, light in enumerate(((236, 96, 80), (244, 196, 84), (110, 200, 130))):
        pen.oval((0.4 + place * 0.1, 0.62), (0.028, 0.028), globe(light))


def _car(pen: Pen, colour: Rgb) -> None:
    pen.round([(0.22, 0.72), (0.3, 0.52), (0.46, 0.47), (0.62, 0.49), (0.74, 0.7)], flat(colour, 0.1), steps=8)
    pen.round([(0.28, 0.7), (0.34, 0.56), (0.46, 0.52), (0.48, 0.7)], flat((176, 214, 230)), steps=6)
    pen.round([(0.52, 0.7), (0.52, 0.52), (0.61, 0.53), (0.69, 0.7)], flat((150, 192, 214)), steps=6)
    pen.round(
        [(0.03, 0.74), (0.14, 0.68), (0.5, 0.67), (0.86, 0.69), (0.97, 0.76), (0.97, 0.9), (0.5, 0.92), (0.03, 0.9)],
        flat(colour, 0.4),
        steps=8,
    )
    pen.shape([(0.06, 0.77), (0.94, 0.77), (0.94, 0.785), (0.06, 0.785)], lighter(colour, 0.5), 0.7)
    for x in (0.24, 0.76):
        pen.oval((x, 0.9), (0.098, 0.098), (34, 34, 40))
        pen.oval((x, 0.9), (0.056, 0.056), globe((196, 200, 206)))
    pen.oval((0.95, 0.77), (0.025, 0.03), (255, 236, 170))


def _bicycle(pen: Pen, colour: Rgb) -> None:
    for x in (0.22, 0.78):
        pen.oval((x, 0.78), (0.215, 0.215), (44, 44, 50))
        pen.oval((x, 0.78), (0.188, 0.188), (226, 226, 224), 0.55)
        for spoke in range(8):
            dx, dy = cos(spoke * pi / 8) * 0.185, sin(spoke * pi / 8) * 0.185
            pen.stroke([(x - dx, 0.78 - dy), (x + dx, 0.78 + dy)], 0.004, (110, 112, 118), 0.8, smooth=False)
    for start, end in (
        ((0.22, 0.78), (0.38, 0.45)),
        ((0.38, 0.45), (0.68, 0.45)),
        ((0.68, 0.45), (0.46, 0.78)),
        ((0.46, 0.78), (0.36, 0.42)),
        ((0.22, 0.78), (0.46, 0.78)),
        ((0.66, 0.36), (0.78, 0.78)),
    ):
        pen.stroke([start, end], 0.03, flat(colour), smooth=False)
    pen.stroke([(0.66, 0.36), (0.72, 0.32), (0.79, 0.36)], 0.024, (50, 46, 48))
    pen.round([(0.28, 0.4), (0.36, 0.375), (0.44, 0.395), (0.36, 0.43)], (70, 50, 40), steps=5)


def _rocket(pen: Pen, colour: Rgb) -> None:
    x, y = pen.at((0.5, 0.95))
    pen.canvas.glow(x, y, (pen.size * 0.4, pen.size * 0.5), (255, 170, 70), 0.8)
    pen.round(
        [(0.42, 0.8), (0.58, 0.8), (0.56, 0.95), (0.5, 1.1), (0.44, 0.95)],
        vertical([(0, (255, 240, 190)), (0.5, (255, 176, 70)), (1, (226, 80, 50))]),
        steps=6,
    )
    for side in (-1, 1):
        pen.round(
            [(0.5 + side * x, y) for x, y in ((0.14, 0.56), (0.28, 0.72), (0.28, 0.88), (0.13, 0.78))],
            flat(darker(colour, 0.15)),
            steps=8,
        )
    pen.turned([(0.0, 0.02), (0.09, 0.16), (0.165, 0.36), (0.165, 0.62), (0.12, 0.81)], tube((236, 236, 240)))
    pen.turned([(0.0, 0.02), (0.075, 0.13), (0.12, 0.22)], tube(colour))
    pen.oval((0.5, 0.4), (0.085, 0.085), darker(colour, 0.1))
    pen.oval((0.5, 0.4), (0.06, 0.06), globe((110, 180, 224)))


MACHINES: Mapping[str, Callable[[Pen, Rgb], None]] = {
    "robot": _robot,
    "car": _car,
    "bicycle": _bicycle,
    "rocket": _rocket,
}

"""Things that hold something: mug, cup, teapot, bottle, glass, vase, bowl, candle, box, bag.

In: a pen and a colour. Out: the thing, shaded, without its shadow.
"""

from collections.abc import Callable, Mapping

from pipeline.simulator.pictures.canvas import horizontal, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, lighter, mix
from pipeline.simulator.pictures.pen import Pen, flat, tube

_COFFEE: Rgb = (70, 42, 28)


def _steam(pen: Pen, middle: float, top: float) -> None:
    for shift, high in ((-0.07, 0.3), (0.02, 0.38), (0.09, 0.27)):
        for step in range(9):
            t = step / 8
            x = middle + shift + 0.03 * (1 if step % 4 < 2 else -1) * t
            pen.soft((x, top - high * t), (0.03 + 0.03 * t, 0.05), (255, 255, 255), 0.17 * (1 - t))


def _mug(pen: Pen, colour: Rgb) -> None:
    pen.stroke([(0.7, 0.45), (0.88, 0.46), (0.93, 0.62), (0.84, 0.78), (0.68, 0.8)], 0.075, darker(colour, 0.32))
    pen.stroke([(0.7, 0.44), (0.87, 0.45), (0.915, 0.61), (0.83, 0.765), (0.68, 0.785)], 0.045, lighter(colour, 0.06))
    pen.turned([(0.27, 0.32), (0.272, 0.6), (0.268, 0.9), (0.25, 0.965), (0.2, 0.995)], tube(colour))
    pen.oval((0.5, 0.32), (0.27, 0.062), lighter(colour, 0.3))
    pen.oval((0.5, 0.322), (0.25, 0.052), vertical([(0, darker(colour, 0.55)), (1, darker(colour, 0.2))]))
    pen.oval(
        (0.5, 0.338),
        (0.236, 0.04),
        horizontal([(0, darker(_COFFEE, 0.3)), (0.4, lighter(_COFFEE, 0.22)), (1, _COFFEE)]),
    )
    pen.shine((0.345, 0.6), (0.035, 0.24), 0.4)
    _steam(pen, 0.5, 0.28)


def _cup(pen: Pen, colour: Rgb) -> None:
    pen.oval((0.5, 0.955), (0.44, 0.05), flat(darker(colour, 0.12)))
    pen.oval((0.5, 0.945), (0.42, 0.042), vertical([(0, darker(colour, 0.16)), (1, lighter(colour, 0.2))]))
    pen.stroke([(0.72, 0.58), (0.86, 0.56), (0.87, 0.7), (0.74, 0.78), (0.66, 0.79)], 0.045, darker(colour, 0.2))
    pen.turned([(0.29, 0.52), (0.284, 0.66), (0.23, 0.82), (0.13, 0.93), (0.12, 0.955)], tube(colour))
    pen.oval((0.5, 0.52), (0.29, 0.06), lighter(colour, 0.32))
    pen.oval((0.5, 0.523), (0.27, 0.05), darker(colour, 0.3))
    pen.oval((0.5, 0.533), (0.255, 0.042), horizontal([(0, (120, 62, 26)), (0.4, (206, 132, 66)), (1, (134, 72, 30))]))
    pen.shine((0.35, 0.66), (0.03, 0.1), 0.45)
    _steam(pen, 0.5, 0.48)


def _teapot(pen: Pen, colour: Rgb) -> None:
    pen.stroke([(0.2, 0.55), (0.04, 0.52), (0.02, 0.7), (0.16, 0.82)], 0.05, darker(colour, 0.25))
    pen.round(
        [(0.74, 0.66), (0.84, 0.6), (0.9, 0.46), (0.99, 0.44), (0.95, 0.55), (0.88, 0.74), (0.74, 0.84)],
        flat(darker(colour, 0.12), 0.35),
        steps=8,
    )
    pen.turned([(0.1, 0.42), (0.24, 0.5), (0.32, 0.68), (0.27, 0.88), (0.16, 0.985), (0.1, 0.995)], tube(colour))
    pen.turned([(0.02, 0.33), (0.06, 0.37), (0.12, 0.4), (0.155, 0.45), (0.15, 0.46)], tube(lighter(colour, 0.08)))
    pen.oval((0.5, 0.33), (0.04, 0.035), tube(darker(colour, 0.1)))
    pen.shine((0.36, 0.62), (0.05, 0.14), 0.5)


def _bottle(pen: Pen, colour: Rgb) -> None:
    pen.turned(
        [
            (0.062, 0.16),
            (0.062, 0.28),
            (0.09, 0.34),
            (0.17, 0.42),
            (0.185, 0.5),
            (0.185, 0.9),
            (0.18, 0.97),
            (0.15, 0.995),
        ],
        tube(colour),
    )
    pen.turned([(0.074, 0.03), (0.078, 0.06), (0.078, 0.15), (0.07, 0.165)], tube(mix(colour, (60, 50, 46), 0.75)))
    label = (244, 238, 224)
    pen.turned([(0.186, 0.56), (0.186, 0.82)], tube(label, 0.3))
    ink = darker(colour, 0.25)
    pen.block([(0.4, 0.63), (0.6, 0.645)], 0.005, ink, 0.85)
    pen.block([(0.43, 0.675), (0.57, 0.685)], 0.004, ink, 0.6)
    pen.oval((0.5, 0.745), (0.03, 0.03), ink, 0.75)
    pen.shine((0.39, 0.6), (0.018, 0.32), 0.6)


def _glass(pen: Pen, colour: Rgb) -> None:
    pen.turned([(0.22, 0.24), (0.2, 0.6), (0.17, 0.97), (0.16, 0.99)], tube((232, 240, 244)), 0.42)
    pen.turned([(0.208, 0.42), (0.19, 0.7), (0.165, 0.945)], tube(colour, 1.3), 0.9)
    pen.oval((0.5, 0.42), (0.208, 0.045), lighter(colour, 0.3), 0.95)
    for x, y, turn in ((0.42, 0.5, 0.02), (0.56, 0.56, -0.02), (0.47, 0.64, 0.01)):
        pen.shape([(x, y), (x + 0.1, y + turn), (x + 0.1 - turn, y + 0.1), (x - turn, y + 0.1)], (255, 255, 255), 0.28)
    pen.stroke([(0.58, 0.05), (0.5, 0.5)], 0.022, (240, 96, 88), smooth=False)
    pen.oval((0.5, 0.24), (0.22, 0.048), (255, 255, 255), 0.34)
    pen.shine((0.36, 0.6), (0.02, 0.3), 0.7)


def _vase(pen: Pen, colour: Rgb) -> None:
    for tip, mid in (((0.3, 0.02), (0.4, 0.2)), ((0.5, -0.08), (0.51, 0.18)), ((0.7, 0.04), (0.6, 0.2))):
        pen.stroke([(0.5, 0.42), mid, tip], 0.014, (84, 120, 72))
        for t in (0.25, 0.45, 0.65, 0.85):
            x, y = mid[0] + (tip[0] - mid[0]) * t, mid[1] + (tip[1] - mid[1]) * t
            pen.round(
                [(x, y), (x + 0.06, y - 0.05), (x + 0.1, y - 0.02), (x + 0.05, y + 0.01)], flat((104, 146, 92)), steps=5
            )
            pen.round(
                [(x, y), (x - 0.06, y - 0.04), (x - 0.1, y - 0.01), (x - 0.05, y + 0.015)], flat((88, 130, 80)), steps=5
            )
    pen.turned(
        [(0.1, 0.36), (0.085, 0.43), (0.16, 0.54), (0.235, 0.68), (0.2, 0.86), (0.12, 0.985), (0.1, 0.995)],
        tube(colour),
    )
    pen.oval((0.5, 0.362), (0.1, 0.022), darker(colour, 0.55))
    for y, wide in ((0.62, 0.222), (0.66, 0.233)):
        pen.turned([(wide, y), (wide + 0.004, y + 0.014)], tube(pen.line_on(colour)), 0.6)
    pen.shine((0.4, 0.64), (0.035, 0.14), 0.5)


def _bowl(pen: Pen, colour: Rgb) -> None:
    pen.turned([(0.42, 0.6), (0.4, 0.74), (0.28, 0.9), (0.16, 0.96), (0.15, 0.99)], tube(colour))
    pen.oval((0.5, 0.6), (0.42, 0.085), lighter(colour, 0.3))
    pen.oval((0.5, 0.604), (0.395, 0.072), vertical([(0, darker(colour, 0.45)), (1, darker(colour, 0.15))]))
    for x, y, shown, size in (
        (0.3, 0.58, (214, 72, 56), 0.075),
        (0.44, 0.555, (236, 178, 66), 0.085),
        (0.6, 0.56, (120, 160, 74), 0.08),
        (0.7, 0.59, (216, 84, 60), 0.065),
        (0.52, 0.6, (242, 214, 150), 0.07),
    ):
        pen.oval((x, y), (size, size * 0.72), flat(shown, 0.35))
    pen.turned([(0.42, 0.612), (0.4, 0.74), (0.34, 0.84)], tube(colour), 0.9)
    pen.shine((0.3, 0.73), (0.05, 0.07), 0.4)


def _candle(pen: Pen, colour: Rgb) -> None:
    pen.turned([(0.17, 0.42), (0.17, 0.98), (0.16, 0.995)], tube(colour, 0.6))
    pen.oval((0.5, 0.42), (0.17, 0.036), lighter(colour, 0.45))
    pen.soft((0.5, 0.45), (0.15, 0.1), (255, 214, 140), 0.6)
    pen.stroke([(0.5, 0.42), (0.503, 0.34)], 0.014, (50, 40, 36))
    x, y = pen.at((0.5, 0.26))
    pen.canvas.glow(x, y, (pen.size * 0.75, pen.size * 0.75), (255, 176, 80), 0.75)
    pen.round(
        [(0.5, 0.12), (0.54, 0.24), (0.53, 0.33), (0.5, 0.36), (0.47, 0.33), (0.46, 0.24)],
        vertical([(0, (255, 190, 90)), (0.6, (255, 240, 190)), (1, (250, 200, 120))]),
        steps=6,
    )


def _box(pen: Pen, colour: Rgb) -> None:
    pen.shape([(0.16, 0.42), (0.58, 0.5), (0.58, 1.0), (0.16, 0.9)], flat(colour, 0.15))
    pen.shape([(0.58, 0.5), (0.88, 0.4), (0.88, 0.86), (0.58, 1.0)], flat(darker(colour, 0.3)))
    pen.shape([(0.16, 0.42), (0.47, 0.33), (0.88, 0.4), (0.58, 0.5)], lighter(colour, 0.24))
    band = mix(colour, (250, 238, 206), 0.75) if sum(colour) < 520 else (190, 60, 58)
    pen.shape([(0.34, 0.455), (0.41, 0.468), (0.41, 0.96), (0.34, 0.943)], flat(band))
    pen.shape([(0.34, 0.455), (0.655, 0.36), (0.71, 0.369), (0.41, 0.468)], lighter(band, 0.2))
    for side in (-1, 1):
        pen.round(
            [(0.5, 0.4), (0.5 + side * 0.1, 0.28), (0.5 + side * 0.2, 0.27), (0.5 + side * 0.17, 0.37)],
            flat(band, 0.35),
            steps=6,
        )
    pen.oval((0.5, 0.385), (0.04, 0.034), flat(darker(band, 0.1)))


def _bag(pen: Pen, colour: Rgb) -> None:
    for shift in (0.03, 0.0):
        pen.stroke(
            [(0.34, 0.46), (0.36, 0.22), (0.5, 0.13 + shift), (0.64, 0.22), (0.66, 0.46)],
            0.034,
            darker(colour, 0.45 if shift else 0.2),
        )
    pen.round(
        [
            (0.2, 0.42),
            (0.5, 0.4),
            (0.8, 0.42),
            (0.87, 0.7),
            (0.88, 0.94),
            (0.8, 0.995),
            (0.5, 0.99),
            (0.2, 0.995),
            (0.12, 0.94),
            (0.13, 0.7),
        ],
        tube(colour, 0.4),
        steps=8,
    )
    pen.round(
        [(0.2, 0.43), (0.5, 0.41), (0.8, 0.43), (0.78, 0.6), (0.5, 0.68), (0.22, 0.6)],
        flat(lighter(colour, 0.05), 0.25),
        steps=8,
    )
    pen.block([(0.46, 0.62), (0.54, 0.72)], 0.015, flat((206, 170, 96)))
    pen.shine((0.3, 0.75), (0.06, 0.16), 0.25)


VESSELS: Mapping[str, Callable[[Pen, Rgb], None]] = {
    "mug": _mug,
    "cup": _cup,
    "teapot": _teapot,
    "bottle": _bottle,
    "glass": _glass,
    "vase": _vase,
    "bowl": _bowl,
    "candle": _candle,
    "box": _box,
    "bag": _bag,
}

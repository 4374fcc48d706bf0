"""Land: mountains with their sunny side, hills behind hills, forests, meadows, dunes.

In: a canvas and the air. Out: paint between the horizon and the lower edge, far things first. Colours of the prompt
give the land its hue.
"""

from collections.abc import Sequence
from math import sin

from pipeline.simulator.pictures.canvas import Canvas, Point, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, lighter, mix
from pipeline.simulator.pictures.lines import across, curve, hills, ridge
from pipeline.simulator.pictures.skies import Air

_GREEN: dict[str | None, Rgb] = {
    None: (76, 116, 74),
    "spring": (112, 156, 84),
    "summer": (84, 130, 66),
    "autumn": (176, 116, 52),
    "winter": (206, 216, 226),
}
_LEAVES: dict[str | None, Sequence[Rgb]] = {
    None: ((40, 84, 62), (54, 100, 66), (34, 72, 58)),
    "spring": ((232, 168, 186), (240, 196, 204), (126, 164, 88)),
    "summer": ((58, 112, 60), (78, 128, 62), (46, 96, 58)),
    "autumn": ((198, 96, 38), (222, 148, 46), (160, 58, 36), (206, 120, 40)),
    "winter": ((150, 168, 184), (206, 216, 226), (110, 132, 150)),
}


def ground(air: Air, tint: Rgb | None) -> Rgb:
    """Return the colour of grown land."""
    colour = _GREEN.get(air.season, _GREEN[None])
    return colour if tint is None else mix(colour, tint, 0.4)


def mountains(canvas: Canvas, air: Air, base: float, tint: Rgb | None) -> None:
    """Raise two chains of peaks behind each other, each with a lit and a shaded side, the near one with snow."""
    rock = (82, 92, 124) if tint is None else mix((82, 92, 124), tint, 0.35)
    for depth, top, peaks in ((0.62, 0.36, 5), (0.26, 0.16, 3)):
        colour = air.seen(rock, depth)
        step = canvas.width / peaks
        for peak in sorted(range(peaks), key=lambda place: place % 2):
            x = step * (peak + 0.5 + canvas.random.uniform(-0.3, 0.3))
            height = (base - base * top) * canvas.random.uniform(0.62, 1.0)
            _peak(canvas, air, (x, base), (step * canvas.random.uniform(0.85, 1.15), height), colour, snow=depth < 0.6)
        canvas.soft(canvas.width / 2, base, (canvas.width * 0.9, base * 0.16), air.haze, 0.55)


def _peak(canvas: Canvas, air: Air, foot: Point, size: Point, colour: Rgb, *, snow: bool) -> None:
    x, base = foot
    half, height = size
    left = [(x - half * t, base - height * (1 - t) ** 1.08 + _jag(canvas, height, t)) for t in _steps(9)]
    right = [(x + half * t, base - height * (1 - t) ** 1.08 + _jag(canvas, height, t)) for t in _steps(9)]
    spine = [(x + half * 0.5 * t * (0.6 * sin(t * 9) + 0.25), base - height * (1 - t)) for t in _steps(9)]
    is_left_lit = air.sun[0] < x
    lit, shaded = mix(colour, air.glow, 0.2), mix(colour, air.shade, 0.3)
    bottom = mix(colour, air.haze, 0.5)
    canvas.shape([*reversed(left), *right], vertical([(0, shaded if is_left_lit else lit), (1, bottom)]))
    side = left if is_left_lit else right
    other = [*reversed(side), *spine] if is_left_lit else [*spine, *reversed(side)]
    canvas.shape(other, vertical([(0, lit if is_left_lit else shaded), (1, bottom)]), 0.9)
    if snow:
        _snow(canvas, air, left, right, spine)


def _snow(canvas: Canvas, air: Air, left: Sequence[Point], right: Sequence[Point], spine: Sequence[Point]) -> None:
    edge = [left[3], (mix_points(left[2], spine[2], 0.4)), mix_points(left[3], spine[3], 0.75), spine[2]]
    edge += [mix_points(right[3], spine[3], 0.6), mix_points(right[2], spine[2], 0.4), right[3]]
    white = air.seen((250, 250, 252), 0.12)
    is_left_lit = air.sun[0] < spine[0][0]
    canvas.shape([left[0], left[1], left[2], *edge, right[2], right[1]], mix(white, air.shade, 0.28))
    lit_side = (
        [left[0], left[1], left[2], *edge[:4]] if is_left_lit else [right[0], spine[1], *edge[3:], right[2], right[1]]
    )
    canvas.shape(lit_side, mix(white, air.glow, 0.2), 0.95)


def mix_points(one: Point, other: Point, share: float) -> Point:
    """Return the point between two others."""
    return one[0] + (other[0] - one[0]) * share, one[1] + (other[1] - one[1]) * share


def _jag(canvas: Canvas, height: float, t: float) -> float:
    return canvas.random.uniform(-0.035, 0.035) * height * (1 if 0 < t < 1 else 0)


def _steps(count: int) -> list[float]:
    return [step / (count - 1) for step in range(count)]


def rolling(canvas: Canvas, air: Air, top: float, tint: Rgb | None, *, layers: int = 4, trees: bool = False) -> None:
    """Lay hills behind hills down to the lower edge, each nearer one darker and fuller."""
    colour = ground(air, tint)
    room = canvas.height - top
    for layer in range(layers):
        near = (layer + 1) / layers
        upper = top + room * (layer / layers) ** 1.2 * 0.9
        line = across(hills(canvas.random, bumps=5 - layer), canvas.width, upper - room * 0.07, upper + room * 0.07)
        shown = air.seen(darker(colour, 0.34 * near), (1 - near) * 0.72)
        foot = mix(shown, air.shade, 0.3)
        canvas.shape(
            [*line, (canvas.width, canvas.height), (0, canvas.height)],
            vertical([(0, lighter(shown, 0.07)), (0.8, foot), (1, foot)]),
        )
        if trees:
            _wood(canvas, air, line, near)


def _wood(canvas: Canvas, air: Air, line: Sequence[Point], near: float) -> None:
    """Plant a row of trees along a line, a few hues, each painted at once."""
    size = canvas.unit * (0.028 + 0.1 * near**2)
    leaves = [air.seen(colour, (1 - near) * 0.72) for colour in _LEAVES.get(air.season, _LEAVES[None])]
    is_leafy = air.season in ("autumn", "spring", "summer")
    trunks: list[Sequence[Point]] = []
    trees: dict[Rgb, list[Sequence[Point]]] = {colour: [] for colour in leaves}
    x = -size * canvas.random.random()
    while x < canvas.width + size:
        place = min(len(line) - 1, max(0, round(x / canvas.width * (len(line) - 1))))
        height = size * canvas.random.uniform(0.8, 1.7) * (1.0 if is_leafy else 1.3)
        foot = (x, line[place][1] + size * 0.25)
        trees[canvas.random.choice(leaves)].append(_crown(foot, height) if is_leafy else _conifer(foot, height))
        trunks.append(_trunk(foot, height))
        x += size * canvas.random.uniform(0.35, 0.8)
    if is_leafy:
        canvas.shapes(trunks, air.seen((64, 46, 42), (1 - near) * 0.72))
    for colour, shapes in trees.items():
        canvas.shapes(shapes, vertical([(0, lighter(colour, 0.2)), (0.5, colour), (1, mix(colour, air.shade, 0.4))]))


def _conifer(foot: Point, height: float) -> list[Point]:
    x, base = foot
    edge: list[Point] = []
    for level in range(5):
        wide = height * (0.045 + 0.19 * (level + 1) / 5)
        y = base - height * (1 - (level + 1) / 5.2)
        edge += [(x + wide, y + height * 0.025), (x + wide * 0.5, y - height * 0.015)]
    return [(x, base - height), *edge[:-1], *((2 * x - px, py) for px, py in reversed(edge[:-1]))]


def _trunk(foot: Point, height: float) -> list[Point]:
    x, base = foot
    wide = height * 0.03
    return [
        (x - wide, base),
        (x - wide * 0.5, base - height * 0.5),
        (x + wide * 0.5, base - height * 0.5),
        (x + wide, base),
    ]


def _crown(foot: Point, height: float) -> list[Point]:
    x, base = foot
    edge = ((-0.9, 0.42), (-1, 0.66), (-0.5, 0.94), (0.15, 1), (0.8, 0.84), (1, 0.56), (0.6, 0.36), (-0.3, 0.32))
    return curve([(x + height * 0.36 * px, base - height * py) for px, py in edge], steps=5)


def dunes(canvas: Canvas, air: Air, top: float, tint: Rgb | None) -> None:
    """Lay dunes: a bright windward side, and a shaded one that falls from the highest point in a long curve."""
    sand = (236, 176, 104) if tint is None else mix((236, 176, 104), tint, 0.35)
    room = canvas.height - top
    is_left_lit = air.sun[0] < canvas.width / 2
    for layer in range(4):
        near = (layer + 1) / 4
        upper = top + room * (layer / 4) ** 1.1 * 0.85
        crest = across(hills(canvas.random, bumps=3), canvas.width, upper - room * 0.12, upper + room * 0.1)
        shown = air.seen(sand, (1 - near) * 0.4)
        low = [(float(canvas.width), float(canvas.height)), (0.0, float(canvas.height))]
        canvas.shape(
            [*crest, *low], vertical([(0, lighter(mix(shown, air.glow, 0.25), 0.12)), (1, mix(shown, air.shade, 0.22))])
        )
        peak = min(range(8, len(crest) - 8), key=lambda place: crest[place][1])
        side = crest[peak:] if is_left_lit else crest[: peak + 1][::-1]
        end = side[-1]
        (x, y), depth = side[0], room * 0.4 * near
        sweep = [
            (x, y),
            (x + (end[0] - x) * 0.06, y + depth * 0.3),
            (x + (end[0] - x) * 0.34, y + depth * 0.56),
            (end[0], y + depth * 0.95),
        ]
        fall = [*side, *reversed(curve(sweep, closed=False, steps=8))]
        canvas.shape(fall, vertical([(0, mix(shown, air.shade, 0.55)), (1, mix(shown, air.shade, 0.34))]), 0.72)


def meadow(canvas: Canvas, air: Air, top: float, tint: Rgb | None) -> None:
    """Lay a field with rows of flowering bushes that run to the horizon."""
    rolling(canvas, air, top, None, layers=2)
    flower = darker(tint, 0.2) if tint is not None else (128, 88, 178)
    start, room = top + canvas.unit * 0.06, canvas.height - top
    for step in range(26):
        depth = (step / 25) ** 2
        y = start + room * depth * 1.02
        size = canvas.unit * (0.006 + 0.075 * depth)
        colour = air.seen(mix(flower, (255, 255, 255), 0.12 * canvas.random.random()), 0.45 * (1 - depth) ** 2)
        for row in range(-7, 8):
            x = canvas.width * (0.5 + row * (0.034 + 0.13 * depth)) + canvas.random.uniform(-0.2, 0.2) * size
            if -size < x < canvas.width + size:
                canvas.soft(
                    x, y + size * 0.7, (size * 1.3, size * 0.8), mix((52, 84, 52), air.shade, 0.3), 0.8, power=0.7
                )
                canvas.soft(x, y, (size, size * 0.85), colour, 0.95, power=0.5)
                canvas.soft(
                    x - size * 0.25, y - size * 0.3, (size * 0.5, size * 0.36), lighter(colour, 0.4), 0.7, power=0.9
                )


def silhouette(canvas: Canvas, air: Air, base: float, height: float, depth: float) -> None:
    """Draw one rough far ridge, for behind towns and seas."""
    line = across(ridge(canvas.random, rough=0.52), canvas.width, base - height, base)
    colour = air.seen((88, 98, 122), depth)
    canvas.shape(
        [*line, (canvas.width, base + 1), (0, base + 1)], vertical([(0, colour), (1, mix(colour, air.haze, 0.5))])
    )


def shore(canvas: Canvas, air: Air, base: float) -> None:
    """Draw a wooded far shore."""
    line = across(hills(canvas.random, bumps=5), canvas.width, base - canvas.unit * 0.06, base - canvas.unit * 0.01)
    colour = air.seen(ground(air, None), 0.35)
    canvas.shape([*line, (canvas.width, base + 1), (0, base + 1)], colour)
    _wood(canvas, air, line, 0.55)

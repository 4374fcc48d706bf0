"""Where a thing stands: a studio's seamless paper, a café at evening, a table, a window, a blurred landscape.

In: a canvas and an `Idea`. Out: a backdrop with a surface, and the height of the place to stand on.
"""

from dataclasses import replace
from random import Random

from PIL import Image, ImageFilter

from pipeline.simulator.pictures import landscapes
from pipeline.simulator.pictures.canvas import Canvas, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, lighter, mix
from pipeline.simulator.pictures.words import Idea

_PAPERS: tuple[Rgb, ...] = (
    (240, 214, 190), (206, 220, 206), (196, 216, 228), (238, 206, 204), (244, 234, 214), (216, 208, 232), (62, 92, 100),
    (236, 208, 140), (188, 206, 190), (226, 172, 142), (74, 72, 104), (150, 186, 190),
)  # fmt: skip
_WOODS: tuple[Rgb, ...] = ((168, 116, 76), (140, 92, 60), (188, 142, 98))


_ROAMING = frozenset({"cat", "dog", "bird", "owl", "fish", "car", "bicycle", "rocket", "robot"})


def backdrop(canvas: Canvas, idea: Idea, thing: Rgb) -> float:
    """Paint the place that fits, and return the y of where a thing's foot stands."""
    if idea.room in ("studio", None) and not idea.places and idea.light is None:
        paper = idea.colours[1] if len(idea.colours) > 1 else _paper(thing, canvas.random)
        return studio(canvas, (244, 243, 240) if idea.room == "studio" and len(idea.colours) < 2 else paper)
    if idea.room == "cafe":
        return _cafe(canvas)
    if idea.room == "window":
        return _window(canvas, idea)
    if idea.places or idea.room == "outdoors" or (idea.room is None and idea.things[0] in _ROAMING):
        return _outside(canvas, idea)
    return _table(canvas, idea)


def _paper(thing: Rgb, random: Random) -> Rgb:
    """Return a paper that the thing stands out from."""
    return max(random.sample(_PAPERS, 4), key=lambda paper: sum(abs(a - b) for a, b in zip(paper, thing, strict=True)))


def studio(canvas: Canvas, paper: Rgb) -> float:
    """Roll seamless paper from wall to floor, lit from the upper left."""
    floor = canvas.height * 0.7
    edge = darker(paper, 0.1)
    canvas.paint(
        vertical([(0, darker(paper, 0.12)), (0.55, paper), (0.72, lighter(edge, 0.05)), (1, darker(paper, 0.05))])
    )
    canvas.soft(canvas.width * 0.5, floor, (canvas.width * 0.9, canvas.height * 0.1), darker(paper, 0.16), 0.28)
    canvas.glow(
        canvas.width * 0.36, canvas.height * 0.3, (canvas.unit * 0.85, canvas.unit * 0.8), (70, 66, 58), 0.9, power=1.5
    )
    _corners(canvas, darker(paper, 0.55), 0.3)
    return canvas.height * 0.84


def _corners(canvas: Canvas, colour: Rgb, strength: float) -> None:
    """Darken the corners."""
    reach = (canvas.width * 0.62, canvas.height * 0.62)
    for x in (0.0, float(canvas.width)):
        for y in (0.0, float(canvas.height)):
            canvas.soft(x, y, reach, colour, strength, power=2.0)


def _cafe(canvas: Canvas) -> float:
    """Hang warm lights out of focus behind a wooden table."""
    random, unit = canvas.random, canvas.unit
    canvas.paint(vertical([(0, (46, 28, 26)), (0.4, (92, 56, 42)), (0.66, (60, 38, 32)), (1, (30, 20, 20))]))
    for _ in range(26):
        x, y = random.random() * canvas.width, random.random() ** 1.2 * canvas.height * 0.6
        size = unit * random.uniform(0.02, 0.075)
        light = random.choice(((255, 196, 110), (255, 226, 164), (250, 150, 90), (255, 210, 150)))
        canvas.glow(x, y, (size * 2.4, size * 2.4), light, 0.35)
        canvas.oval((x, y), (size, size), light, random.uniform(0.16, 0.5))
        canvas.oval((x, y), (size * 0.88, size * 0.88), light, 0.18)
    return _planks(canvas, canvas.height * 0.66, (134, 84, 54), (255, 190, 110))


def _planks(canvas: Canvas, top: float, wood: Rgb, light: Rgb) -> float:
    """Lay a table from `top` to the lower edge, with the grain of boards."""
    random, room = canvas.random, canvas.height - top
    canvas.cover(vertical([(0, lighter(wood, 0.18)), (0.06, wood), (1, darker(wood, 0.4))]), top, canvas.height)
    for number in range(70):
        depth = (number / 70) ** 1.6
        y = top + room * (0.02 + 0.98 * depth)
        x, wide = random.random() * canvas.width, canvas.width * random.uniform(0.1, 0.5)
        canvas.soft(
            x,
            y,
            (wide, canvas.unit * (0.0014 + 0.005 * depth)),
            random.choice((darker(wood, 0.4), lighter(wood, 0.2))),
            0.28,
            power=0.7,
        )
    for row in (0.16, 0.46):
        canvas.cover(darker(wood, 0.5), top + room * row, top + room * row + max(1.0, canvas.unit * 0.002))
    canvas.glow(
        canvas.width * 0.4, top + room * 0.3, (canvas.width * 0.6, room * 0.6), mix(light, (0, 0, 0), 0.55), 0.7
    )
    _corners(canvas, (16, 10, 14), 0.42)
    return top + room * 0.52


def _table(canvas: Canvas, idea: Idea) -> float:
    """Stand a table before a plain wall."""
    wall = (
        idea.colours[1]
        if len(idea.colours) > 1
        else canvas.random.choice(((214, 206, 192), (176, 190, 188), (222, 196, 176), (160, 176, 190)))
    )
    if idea.light in ("night", "dusk"):
        wall = darker(wall, 0.55)
    canvas.paint(vertical([(0, darker(wall, 0.12)), (0.6, lighter(wall, 0.16)), (1, wall)]))
    canvas.glow(canvas.width * 0.3, canvas.height * 0.2, (canvas.unit, canvas.unit * 0.8), (64, 54, 40), 1.0, power=1.5)
    return _planks(canvas, canvas.height * 0.64, canvas.random.choice(_WOODS), (255, 226, 180))


def _window(canvas: Canvas, idea: Idea) -> float:
    """Look through a window with four panes; the thing stands on its sill."""
    view = Canvas(canvas.width, round(canvas.height * 0.78), canvas.random)
    landscapes.paint(view, _without_things(idea))
    canvas.image.paste(_blurred(view, 0.006), (0, 0))
    frame, unit = (236, 230, 220), canvas.unit
    sill, wide = canvas.height * 0.74, unit * 0.035
    for x in (canvas.width * 0.06, canvas.width * 0.5, canvas.width * 0.94):
        canvas.block([(x - wide / 2, -5), (x + wide / 2, sill)], 0, vertical([(0, darker(frame, 0.1)), (1, frame)]))
    canvas.block([(-5, canvas.height * 0.34), (canvas.width + 5, canvas.height * 0.34 + wide * 0.8)], 0, frame)
    canvas.cover(vertical([(0, lighter(frame, 0.3)), (0.1, frame), (1, darker(frame, 0.3))]), sill, canvas.height)
    _corners(canvas, (30, 24, 30), 0.3)
    return sill + (canvas.height - sill) * 0.52


def _without_things(idea: Idea) -> Idea:
    """Return the idea of the view behind the things: their colours are not those of the sky."""
    return replace(idea, colours=idea.colours[len(idea.things) :])


def _outside(canvas: Canvas, idea: Idea) -> float:
    """Put a stone ledge before a landscape that is out of focus."""
    air = landscapes.paint(canvas, _without_things(idea))
    canvas.image.paste(_blurred(canvas, 0.011), (0, 0))
    if air.light == "space":
        return canvas.height * 0.86
    top = canvas.height * 0.72
    is_green = bool({"meadow", "forest", "hill"} & {*idea.places})
    stone = air.seen((116, 148, 84) if is_green else (176, 160, 142), 0.0)
    canvas.cover(
        vertical([(0, lighter(mix(stone, air.glow, 0.25), 0.2)), (0.08, stone), (1, mix(stone, air.shade, 0.5))]),
        top,
        canvas.height,
    )
    for _ in range(60):
        x, y = canvas.random.random() * canvas.width, top + canvas.random.random() * (canvas.height - top)
        canvas.soft(x, y, (canvas.unit * 0.05, canvas.unit * 0.008), mix(stone, air.shade, 0.5), 0.2)
    return top + (canvas.height - top) * 0.46


def _blurred(canvas: Canvas, share: float) -> Image.Image:
    small = canvas.image.reduce(3)
    return small.filter(ImageFilter.GaussianBlur(canvas.unit * share / 3)).resize(canvas.image.size)

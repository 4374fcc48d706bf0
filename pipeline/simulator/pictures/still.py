"""A still life: one to three things on a surface, in the prompt's colours.

In: a canvas and an `Idea` with things. Out: a finished picture.
"""

from collections.abc import Mapping

from pipeline.simulator.pictures import rooms
from pipeline.simulator.pictures.canvas import Canvas
from pipeline.simulator.pictures.colours import Rgb, darker
from pipeline.simulator.pictures.goods import GOODS
from pipeline.simulator.pictures.living import LIVING
from pipeline.simulator.pictures.machines import MACHINES
from pipeline.simulator.pictures.pen import Pen
from pipeline.simulator.pictures.vessels import VESSELS
from pipeline.simulator.pictures.words import Idea

_DRAWN = {**VESSELS, **GOODS, **LIVING, **MACHINES}
_OWN: Mapping[str, Rgb] = {
    "apple": (196, 44, 48), "orange": (236, 136, 40), "lemon": (246, 212, 74), "pear": (178, 190, 84),
    "cat": (218, 150, 84), "dog": (196, 148, 96), "bird": (84, 132, 186), "owl": (136, 102, 76), "fish": (236, 122, 54),
    "plant": (196, 110, 76), "flower": (222, 94, 118), "candle": (240, 226, 198), "glass": (244, 170, 70),
    "robot": (84, 146, 170), "box": (190, 140, 90), "bottle": (44, 92, 72), "cake": (232, 150, 164),
    "camera": (120, 84, 60),
}  # fmt: skip
_SMALL: Mapping[str, float] = {
    "apple": 0.74,
    "pear": 0.8,
    "orange": 0.72,
    "lemon": 0.74,
    "cup": 0.9,
    "candle": 0.9,
    "bird": 0.8,
}
_CHOICES: tuple[Rgb, ...] = (
    (196, 84, 62),
    (44, 98, 120),
    (222, 168, 74),
    (92, 122, 92),
    (236, 226, 208),
    (58, 70, 108),
)
_PLACES = {1: ((0.5, 1.0),), 2: ((0.35, 0.92), (0.66, 1.0)), 3: ((0.27, 0.84), (0.73, 0.86), (0.5, 1.0))}


def paint(canvas: Canvas, idea: Idea) -> None:
    """Paint the whole picture."""
    names = idea.things[:3]
    colours = [_colour(canvas, idea, place, name) for place, name in enumerate(names)]
    foot = rooms.backdrop(canvas, idea, colours[0])
    size = min(canvas.unit * 0.9, foot * 0.88)
    for (x, share), name, colour in zip(_PLACES[len(names)], names, colours, strict=True):
        side = size * share * (1.0 if len(names) == 1 else 0.76 * _SMALL.get(name, 1.0))
        pen = Pen(
            canvas,
            canvas.width * x if len(names) > 1 else canvas.width * 0.5,
            foot - (1 - share) * canvas.unit * 0.3,
            side,
        )
        if "space" not in idea.places:
            pen.shadow(0.36 if name in ("bottle", "candle", "vase", "glass", "lamp") else 0.44)
        _DRAWN[name](pen, colour)


def _colour(canvas: Canvas, idea: Idea, place: int, name: str) -> Rgb:
    if place < len(idea.colours):
        return idea.colours[place]
    if name in _OWN:
        return _OWN[name]
    return darker(idea.colours[0], 0.15) if idea.colours else canvas.random.choice(_CHOICES)

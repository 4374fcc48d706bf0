"""A landscape from its features: sky, what is far, land or town, water, and what floats in it.

In: a canvas and an `Idea`. Out: a finished view. The order is always far to near.
"""

from collections.abc import Mapping

from pipeline.simulator.pictures import afloat, landmarks, lands, skies, towns, waters
from pipeline.simulator.pictures.canvas import Canvas
from pipeline.simulator.pictures.colours import Rgb
from pipeline.simulator.pictures.skies import Air
from pipeline.simulator.pictures.words import Idea

_OF_SEASON: Mapping[str | None, tuple[str, ...]] = {"autumn": ("forest",), "spring": ("forest",), "summer": ("sea",)}
_WET = frozenset({"sea", "lake"})


def paint(canvas: Canvas, idea: Idea) -> Air:
    """Paint the whole view."""
    places = idea.places or _OF_SEASON.get(idea.season, ("mountain", "lake"))
    if "city" in places and not {"desert", "forest", "meadow"} & {*places}:
        places = (*places, "lake")  # a skyline wants its river
    wet = bool(_WET & {*places}) or "boat" in idea.afar
    base = 0.6 if not wet else 0.58
    horizon = canvas.height * (base if canvas.height >= canvas.width * 0.8 else base + 0.05)
    light = idea.light or ("sunset" if "desert" in places else "day")
    if "space" in places:
        light, horizon = "space", float(canvas.height)
    air = skies.sky(canvas, light, idea.season, idea.colours, horizon)
    tint = idea.colours[-1] if idea.colours else None
    if "space" not in places:
        _land(canvas, air, places, tint, wet=wet)
    for name in idea.afar:
        landmarks.landmark(canvas, air, name, horizon)
    if wet:
        waters.water(canvas, air, horizon, tint, calm=0.75 if "lake" in places else 0.4)
    _near(canvas, air, idea, wet=wet)
    return air


def _land(canvas: Canvas, air: Air, places: tuple[str, ...], tint: Rgb | None, *, wet: bool) -> None:
    horizon, unit = air.horizon, canvas.unit
    if "mountain" in places:
        lands.mountains(canvas, air, horizon + (0 if wet else unit * 0.06), tint)
    elif wet and "town" not in places and "city" not in places:
        lands.silhouette(canvas, air, horizon, unit * 0.1, 0.62)
    if "city" in places:
        towns.skyline(canvas, air, horizon + (0 if wet else unit * 0.12), tint)
    if "desert" in places:
        lands.dunes(canvas, air, horizon, tint)
    elif "meadow" in places:
        lands.meadow(canvas, air, horizon, tint)
    elif not wet and "city" not in places:
        lands.rolling(canvas, air, horizon, tint, trees=bool({"forest", "hill", "mountain"} & {*places}))
    if "town" in places:
        low = horizon + (unit * 0.02 if wet else unit * 0.3)
        towns.houses(canvas, air, horizon - unit * (0.3 if wet else 0.02), low, tint)
    elif wet and "forest" in places:
        lands.shore(canvas, air, horizon)


def _near(canvas: Canvas, air: Air, idea: Idea, *, wet: bool) -> None:
    """Put things into the foreground."""
    if "boat" in idea.afar:
        afloat.boats(canvas, air, idea.colours)
    if "balloon" in idea.afar:
        afloat.balloons(canvas, air, idea.colours)
    if "space" in idea.places:
        afloat.planet(canvas, air, idea.colours)
    if wet and "sea" in idea.places and "town" not in idea.places and "city" not in idea.places:
        waters.beach(canvas, air, canvas.height - canvas.unit * 0.12)
    if wet or "gull" in idea.afar or air.light in ("dawn", "sunset"):
        afloat.gulls(canvas, air)

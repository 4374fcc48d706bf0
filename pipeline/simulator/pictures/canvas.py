"""The canvas: gradients, glows and smooth shapes on one picture, quick enough for a megapixel in a tenth of a second.

In: pixels as floats, colours, points. Out: paint on `Canvas.image`. Soft things are rendered small and scaled up; edges
are drawn larger and reduced. It refuses to know what the shapes mean.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil, floor
from random import Random

from PIL import Image, ImageChops, ImageDraw

from pipeline.simulator.pictures.colours import Rgb, ramp

Point = tuple[float, float]
Fill = Rgb | Callable[[int, int], Image.Image]
_STEPS = 12  # pixels for each stop of a gradient before it is scaled up
_BIG = 300_000  # pixels above which edges are drawn twice as large instead of three times


def vertical(stops: Sequence[tuple[float, Rgb]]) -> Callable[[int, int], Image.Image]:
    """Return a fill that runs through the stops from top to bottom."""

    def fill(width: int, height: int) -> Image.Image:
        column = Image.new("RGB", (1, _STEPS * len(stops)))
        column.putdata(ramp(stops, column.height))
        return column.resize((width, height), Image.Resampling.BILINEAR)

    return fill


def horizontal(stops: Sequence[tuple[float, Rgb]]) -> Callable[[int, int], Image.Image]:
    """Return a fill that runs through the stops from left to right."""

    def fill(width: int, height: int) -> Image.Image:
        row = Image.new("RGB", (_STEPS * len(stops), 1))
        row.putdata(ramp(stops, row.width))
        return row.resize((width, height), Image.Resampling.BILINEAR)

    return fill


@lru_cache(maxsize=64)
def falloff(power: float, size: int = 256) -> Image.Image:
    """Return a square mask, white in the middle and black from the inscribed circle on."""
    table = [round(255 * max(0.0, 1 - v / 181) ** power) for v in range(256)]  # Pillow reaches 181 at the circle
    mask = Image.radial_gradient("L").point(table)
    return mask if size == 256 else mask.resize((size, size), Image.Resampling.BOX)


@lru_cache(maxsize=512)
def _times(percent: int) -> list[int]:
    return [round(v * percent / 100) for v in range(256)]


def faded(mask: Image.Image, opacity: float) -> Image.Image:
    """Return a mask that covers less, to the nearest percent."""
    return mask if opacity >= 1 else mask.point(_times(round(opacity * 100)))


class Canvas:
    """One picture under way. `unit` is the shorter side: sizes that should not follow the ratio are parts of it."""

    def __init__(self, width: int, height: int, random: Random) -> None:
        self.image = Image.new("RGB", (width, height))
        self.width, self.height = width, height
        self.unit = float(min(width, height))
        self.random = random

    def paint(self, fill: Fill) -> None:
        """Cover everything."""
        self.cover(fill, 0, self.height)

    def cover(self, fill: Fill, top: float, bottom: float) -> None:
        """Cover a horizontal band."""
        box = (0, floor(top), self.width, ceil(bottom))
        if box[3] <= box[1]:
            return
        self.image.paste(fill(self.width, box[3] - box[1]) if callable(fill) else fill, box)

    def shape(self, points: Sequence[Point], fill: Fill, opacity: float = 1.0) -> None:
        """Fill a polygon with smooth edges."""
        box = self._box(points)
        if box is not None:
            self.stamp(self._edged(box, lambda pen, at: pen.polygon(at(points), fill=255)), box, fill, opacity)

    def shapes(self, polygons: Sequence[Sequence[Point]], fill: Fill, opacity: float = 1.0) -> None:
        """Fill many polygons with one fill over all of them; quicker than one by one."""
        box = self._box([point for points in polygons for point in points]) if polygons else None
        if box is None:
            return

        def draw(pen: ImageDraw.ImageDraw, at: Callable[[Sequence[Point]], list[Point]]) -> None:
            for points in polygons:
                pen.polygon(at(points), fill=255)

        self.stamp(self._edged(box, draw), box, fill, opacity)

    def oval(self, middle: Point, radii: Point, fill: Fill, opacity: float = 1.0) -> None:
        """Fill an ellipse around its middle."""
        (x, y), (across, down) = middle, radii
        corners = [(x - across, y - down), (x + across, y + down)]
        box = self._box(corners)
        if box is not None:
            self.stamp(self._edged(box, lambda pen, at: pen.ellipse(at(corners), fill=255)), box, fill, opacity)

    def block(self, corners: Sequence[Point], radius: float, fill: Fill, opacity: float = 1.0) -> None:
        """Fill a rectangle with rounded corners."""
        box = self._box(corners)
        if box is None:
            return

        def draw(pen: ImageDraw.ImageDraw, at: Callable[[Sequence[Point]], list[Point]]) -> None:
            flat = at(corners)
            scale = (flat[1][0] - flat[0][0]) / max(1e-6, corners[1][0] - corners[0][0])
            pen.rounded_rectangle(flat, radius * scale, fill=255)

        self.stamp(self._edged(box, draw), box, fill, opacity)

    def stroke(self, points: Sequence[Point], width: float, fill: Fill, opacity: float = 1.0) -> None:
        """Draw a line with round ends."""
        pad = width
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        box = self._box([(min(xs) - pad, min(ys) - pad), (max(xs) + pad, max(ys) + pad)])
        if box is None:
            return

        def draw(pen: ImageDraw.ImageDraw, at: Callable[[Sequence[Point]], list[Point]]) -> None:
            flat = at(points)
            wide = at([(width, 0.0), (0.0, 0.0)])
            thick = max(1.0, wide[0][0] - wide[1][0])
            pen.line(flat, fill=255, width=round(thick), joint="curve")
            for x, y in (flat[0], flat[-1]):
                pen.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=255)

        self.stamp(self._edged(box, draw), box, fill, opacity)

    def stamp(self, mask: Image.Image, box: tuple[int, int, int, int], fill: Fill, opacity: float = 1.0) -> None:
        """Paint through a mask of the box's size."""
        mask = faded(mask, opacity)
        if callable(fill):
            self.image.paste(fill(box[2] - box[0], box[3] - box[1]), box[:2], mask)
        else:
            self.image.paste(fill, box, mask)

    def soft(self, x: float, y: float, radii: Point, fill: Rgb, opacity: float = 1.0, *, power: float = 1.6) -> None:
        """Paint a blurred ellipse: a shadow, mist, a cheek."""
        box, mask = self._blob(x, y, radii, power)
        if box is not None:
            self.image.paste(fill, box, faded(mask, opacity))

    def glow(self, x: float, y: float, radii: Point, light: Rgb, strength: float = 1.0, *, power: float = 2.2) -> None:
        """Add light that is strongest in the middle."""
        box, mask = self._blob(x, y, radii, power)
        if box is None:
            return
        lit = Image.merge("RGB", [faded(mask, part / 255 * strength) for part in light])
        self.image.paste(ImageChops.screen(self.image.crop(box), lit), box)

    def _blob(
        self, x: float, y: float, radii: Point, power: float
    ) -> tuple[tuple[int, int, int, int], Image.Image] | tuple[None, Image.Image]:
        """Return the visible part of a radial mask and where it lies."""
        source = falloff(power, 256 if max(radii) > 60 else 64)
        left, top, right, bottom = x - radii[0], y - radii[1], x + radii[0], y + radii[1]
        box = self._clip(left, top, right, bottom)
        if box is None:
            return None, source
        across, down = source.width / (right - left), source.height / (bottom - top)
        part = (
            max(0.0, (box[0] - left) * across),
            max(0.0, (box[1] - top) * down),
            min(float(source.width), (box[2] - left) * across),
            min(float(source.height), (box[3] - top) * down),
        )
        return box, source.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR, box=part)

    def _clip(self, left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int] | None:
        box = (max(0, floor(left)), max(0, floor(top)), min(self.width, ceil(right)), min(self.height, ceil(bottom)))
        return box if box[0] < box[2] and box[1] < box[3] else None

    def _box(self, points: Sequence[Point]) -> tuple[int, int, int, int] | None:
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        return self._clip(min(xs) - 1, min(ys) - 1, max(xs) + 1, max(ys) + 1)

    def _edged(
        self,
        box: tuple[int, int, int, int],
        draw: Callable[[ImageDraw.ImageDraw, Callable[[Sequence[Point]], list[Point]]], None],
    ) -> Image.Image:
        """Return a mask with smooth edges: drawn larger by `draw`, then reduced."""
        width, height = box[2] - box[0], box[3] - box[1]
        scale = 2 if width * height > _BIG else 3
        mask = Image.new("L", (width * scale, height * scale))
        draw(
            ImageDraw.Draw(mask),
            lambda points: [((x - box[0]) * scale, (y - box[1]) * scale) for x, y in points],
        )
        return mask.reduce(scale)

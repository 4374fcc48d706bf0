"""A pen for objects: shapes in the unit square of a thing that stands on a surface, shaded as round, tubular or flat.

In: a canvas, where the thing stands and how large it is. Out: paint. (0, 0) is the upper left of the thing's square,
(1, 1) its lower right; the surface is at y = 1. Light comes from the upper left.
"""

from collections.abc import Sequence

from PIL import Image

from pipeline.simulator.pictures.canvas import Canvas, Fill, Point, falloff, horizontal, vertical
from pipeline.simulator.pictures.colours import Rgb, darker, lighter, luma, mix
from pipeline.simulator.pictures.lines import curve


def tube(colour: Rgb, gloss: float = 1.0) -> Fill:
    """Return the shading of an upright cylinder, with a highlight left and reflected light at the right edge."""
    shine = mix(colour, (255, 252, 244), 0.42 * gloss)
    stops = (
        (0, darker(colour, 0.3)),
        (0.1, darker(colour, 0.05)),
        (0.2, lighter(colour, 0.12)),
        (0.27, shine),
        (0.35, lighter(colour, 0.1)),
    )
    return horizontal([*stops, (0.55, colour), (0.86, darker(colour, 0.42)), (1, darker(colour, 0.28))])


def globe(colour: Rgb, gloss: float = 1.0) -> Fill:
    """Return the shading of a ball."""

    def fill(width: int, height: int) -> Image.Image:
        light = falloff(0.85).resize((width, height), Image.Resampling.BILINEAR, box=(96, 104, 244, 252))
        dark, bright = darker(colour, 0.5), lighter(colour, 0.2 + 0.14 * gloss)
        return Image.merge(
            "RGB", [light.point(_between(low, mid, high)) for low, mid, high in zip(dark, colour, bright, strict=True)]
        )

    return fill


def _between(low: int, mid: int, high: int) -> list[int]:
    return [
        round(low + (mid - low) * v / 110) if v < 110 else round(mid + (high - mid) * (v - 110) / 145)
        for v in range(256)
    ]


def flat(colour: Rgb, drop: float = 0.25) -> Fill:
    """Return the shading of a face that turns away downwards."""
    return vertical([(0, lighter(colour, 0.14)), (1, darker(colour, drop))])


class Pen:
    """Draws one thing. `size` is the side of its square in pixels; (x, y) is the middle of its foot."""

    def __init__(self, canvas: Canvas, x: float, y: float, size: float) -> None:
        self.canvas = canvas
        self.left, self.top, self.size = x - size / 2, y - size, size

    def at(self, point: Point) -> Point:
        """Return the canvas position of a point of the square."""
        return self.left + point[0] * self.size, self.top + point[1] * self.size

    def shape(self, points: Sequence[Point], fill: Fill, opacity: float = 1.0) -> None:
        """Fill a polygon."""
        self.canvas.shape([self.at(point) for point in points], fill, opacity)

    def round(self, points: Sequence[Point], fill: Fill, opacity: float = 1.0, steps: int = 10) -> None:
        """Fill a smooth outline through the points."""
        self.shape(curve(points, steps=steps), fill, opacity)

    def turned(self, profile: Sequence[Point], fill: Fill, opacity: float = 1.0, middle: float = 0.5) -> None:
        """Fill a body of revolution: `profile` is its right edge as (radius, y), from the top down."""
        line = curve(profile, closed=False, steps=8)
        self.shape([*((middle + r, y) for r, y in line), *((middle - r, y) for r, y in reversed(line))], fill, opacity)

    def oval(self, middle: Point, radii: Point, fill: Fill, opacity: float = 1.0) -> None:
        """Fill an ellipse."""
        x, y = self.at(middle)
        self.canvas.oval((x, y), (radii[0] * self.size, radii[1] * self.size), fill, opacity)

    def block(self, corners: Sequence[Point], radius: float, fill: Fill, opacity: float = 1.0) -> None:
        """Fill a rectangle with rounded corners."""
        self.canvas.block([self.at(corner) for corner in corners], radius * self.size, fill, opacity)

    def stroke(
        self, points: Sequence[Point], width: float, fill: Fill, opacity: float = 1.0, *, smooth: bool = True
    ) -> None:
        """Draw a line."""
        line = curve(points, closed=False) if smooth else points
        self.canvas.stroke([self.at(point) for point in line], width * self.size, fill, opacity)

    def soft(self, middle: Point, radii: Point, colour: Rgb, opacity: float) -> None:
        """Paint a blurred ellipse."""
        x, y = self.at(middle)
        self.canvas.soft(x, y, (radii[0] * self.size, radii[1] * self.size), colour, opacity)

    def shine(self, middle: Point, radii: Point, opacity: float = 0.55) -> None:
        """Paint a highlight."""
        self.soft(middle, radii, (255, 254, 248), opacity)

    def shadow(self, wide: float = 0.5, strength: float = 0.55, colour: Rgb = (20, 18, 30)) -> None:
        """Lay the shadow of the thing on its surface: a dark seam under it, a long soft one to the right."""
        self.soft((0.5 + wide * 0.5, 1.0), (wide * 1.5, 0.085), colour, strength * 0.75)
        self.soft((0.5 + wide * 0.12, 1.0), (wide * 1.08, 0.05), colour, strength)

    def line_on(self, colour: Rgb) -> Rgb:
        """Return a colour for details on a body: dark on light, light on dark."""
        return darker(colour, 0.4) if luma(colour) > 90 else lighter(colour, 0.35)

"""Lines of nature: smooth curves through points, ridges, hills, and noise for clouds and grain.

In: a random generator and proportions. Out: points and masks. Nothing is painted here.
"""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

from PIL import Image, ImageChops

from pipeline.simulator.pictures.canvas import Point


def curve(points: Sequence[Point], *, closed: bool = True, steps: int = 10) -> list[Point]:
    """Return a smooth line through the points (Catmull-Rom)."""
    count = len(points)
    found: list[Point] = []
    for start in range(count if closed else count - 1):
        around = [_at(points, start + offset, closed=closed) for offset in (-1, 0, 1, 2)]
        found.extend(_between(around, step / steps) for step in range(steps))
    if not closed:
        found.append(points[-1])
    return found


def _at(points: Sequence[Point], place: int, *, closed: bool) -> Point:
    return points[place % len(points)] if closed else points[min(max(place, 0), len(points) - 1)]


def _between(around: Sequence[Point], t: float) -> Point:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = around
    return (
        0.5 * (2 * bx + (cx - ax) * t + (2 * ax - 5 * bx + 4 * cx - dx) * t**2 + (3 * bx - ax - 3 * cx + dx) * t**3),
        0.5 * (2 * by + (cy - ay) * t + (2 * ay - 5 * by + 4 * cy - dy) * t**2 + (3 * by - ay - 3 * cy + dy) * t**3),
    )


def ridge(random: Random, *, rough: float = 0.5, depth: int = 7) -> list[float]:
    """Return the heights (0 to 1) of a mountain line by displacing midpoints; 2 ** depth + 1 of them."""
    heights = [random.uniform(0.2, 0.8), random.uniform(0.2, 0.8)]
    spread = 0.5
    for _ in range(depth):
        finer: list[float] = []
        for one, other in pairwise(heights):
            finer += [one, (one + other) / 2 + random.uniform(-spread, spread) * 0.7]
        heights = [*finer, heights[-1]]
        spread *= rough
    low, high = min(heights), max(heights)
    return [(height - low) / max(1e-6, high - low) for height in heights]


def hills(random: Random, *, bumps: int = 4) -> list[float]:
    """Return the heights (0 to 1) of a gentle line; 65 of them."""
    points = [(float(place), random.uniform(0.0, 1.0)) for place in range(bumps + 1)]
    line = curve(points, closed=False, steps=-(-64 // bumps))
    return [min(1.1, max(-0.1, y)) for _, y in line]


def across(heights: Sequence[float], width: float, top: float, bottom: float) -> list[Point]:
    """Lay heights over the width: 1 is at `top`, 0 at `bottom`."""
    last = len(heights) - 1
    return [(place / last * width, bottom + (top - bottom) * height) for place, height in enumerate(heights)]


def noise(random: Random, size: tuple[int, int], cells: tuple[int, int], octaves: int = 3) -> Image.Image:
    """Return smooth noise as a mask: random cells, scaled up, finer ones added at half strength."""
    total: Image.Image | None = None
    for octave in range(octaves):
        wide, high = cells[0] * 2**octave, cells[1] * 2**octave
        layer = Image.frombytes("L", (wide, high), random.randbytes(wide * high))
        layer = layer.resize(size, Image.Resampling.BICUBIC)
        total = layer if total is None else Image.blend(total, layer, 0.5**octave / (1 + 0.5**octave))
    return total if total is not None else Image.new("L", size, 128)


def grain(image: Image.Image, random: Random, amount: int = 3) -> Image.Image:
    """Return the picture with fine grain, which hides the steps of long gradients."""
    tile = Image.frombytes("L", (257, 251), random.randbytes(257 * 251))
    tile = tile.point([128 + round((v / 255 - 0.5) * 2 * amount) for v in range(256)])
    sheet = Image.new("L", image.size)
    for x in range(0, image.width, tile.width):
        for y in range(0, image.height, tile.height):
            sheet.paste(tile, (x, y))
    return ImageChops.add(image, Image.merge("RGB", [sheet] * 3), 1, -128)

"""Lettering: a title set like on a printed poster, in a margin under the picture.

In: a finished picture, a title and a line under it. Out: a framed poster of the same size. The font is Pillow's own, so
that every machine sets the same letters.
"""

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from pipeline.simulator.pictures.colours import Rgb, luma, mix


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _width(text: str, size: int, gap: float) -> float:
    return sum(_font(size).getlength(letter) + gap for letter in text) - gap


def spaced(
    image: Image.Image, text: str, middle: tuple[float, float], *, size: int, gap: float, colour: Rgb, weight: int = 0
) -> None:
    """Set one line of letters with space between them, centred on `middle`."""
    pen = ImageDraw.Draw(image)
    x = middle[0] - _width(text, size, gap) / 2
    for letter in text:
        pen.text(
            (x, middle[1]), letter, font=_font(size), fill=colour, anchor="lm", stroke_width=weight, stroke_fill=colour
        )
        x += _font(size).getlength(letter) + gap


def fitted(text: str, room: float, largest: int) -> tuple[int, float]:
    """Return the size and the space between letters with which a line fits the room."""
    size = largest
    while size > 8 and _width(text, size, size * 0.16) > room:
        size = round(size * 0.93) if size > 14 else size - 1
    return size, size * 0.16


def window(size: tuple[int, int]) -> tuple[int, int]:
    """Return how large the picture on a poster of this size is."""
    margin, foot = _margins(size)
    return max(16, size[0] - 2 * margin), max(16, size[1] - margin - foot)


def _margins(size: tuple[int, int]) -> tuple[int, int]:
    return round(min(size) * 0.045), round(min(size) * 0.2)


def poster(picture: Image.Image, size: tuple[int, int], lines: tuple[str, str], paper: Rgb, ink: Rgb) -> Image.Image:
    """Print a picture of `window(size)` on paper with its title and the line under it."""
    title, subtitle = lines[0].upper(), lines[1].upper()
    unit, middle = min(size), size[0] / 2
    margin, foot = _margins(size)
    if luma(ink) > 150:
        ink = mix(ink, (20, 20, 34), 0.6)
    sheet = Image.new("RGB", size, paper)
    sheet.paste(picture, (margin, margin))
    large, gap = fitted(title, (size[0] - 2 * margin) * 0.86, round(unit * 0.095))
    spaced(
        sheet,
        title,
        (middle, size[1] - foot * (0.6 if subtitle else 0.5)),
        size=large,
        gap=gap,
        colour=ink,
        weight=round(large * 0.022),
    )
    if subtitle:
        small, thin = fitted(subtitle, (size[0] - 2 * margin) * 0.6, round(unit * 0.026))
        below = size[1] - foot * 0.26
        spaced(sheet, subtitle, (middle, below), size=small, gap=thin * 2, colour=mix(ink, paper, 0.3))
        half, rule = _width(subtitle, small, thin * 2) / 2 + unit * 0.03, unit * 0.07
        pen = ImageDraw.Draw(sheet)
        for start in (middle - half - rule, middle + half):
            pen.line(
                [(start, below), (start + rule, below)], fill=mix(ink, paper, 0.4), width=max(1, round(unit * 0.0018))
            )
    return sheet

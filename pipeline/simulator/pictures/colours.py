"""Colours: names that prompts use, and how to mix, lighten and order them.

In: names and RGB triples. Out: RGB triples. It refuses to know what is painted with them.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

Rgb = tuple[int, int, int]

NAMED: Mapping[str, Rgb] = {
    "red": (196, 44, 48),
    "crimson": (168, 24, 52),
    "scarlet": (214, 48, 36),
    "burgundy": (112, 26, 46),
    "maroon": (110, 30, 38),
    "terracotta": (192, 96, 66),
    "rust": (168, 78, 40),
    "copper": (184, 108, 66),
    "bronze": (150, 104, 58),
    "orange": (232, 126, 38),
    "amber": (240, 166, 44),
    "peach": (246, 190, 152),
    "coral": (240, 116, 94),
    "salmon": (240, 140, 118),
    "gold": (212, 164, 62),
    "golden": (212, 164, 62),
    "yellow": (244, 202, 58),
    "mustard": (208, 160, 46),
    "lemon": (248, 222, 88),
    "olive": (118, 122, 56),
    "lime": (160, 202, 66),
    "green": (62, 138, 84),
    "emerald": (22, 124, 92),
    "mint": (164, 218, 192),
    "sage": (154, 172, 142),
    "teal": (26, 122, 126),
    "turquoise": (54, 178, 178),
    "cyan": (60, 186, 208),
    "blue": (44, 98, 176),
    "azure": (60, 142, 214),
    "navy": (28, 44, 88),
    "indigo": (62, 54, 130),
    "cobalt": (30, 72, 170),
    "violet": (120, 82, 168),
    "purple": (112, 62, 146),
    "lavender": (178, 164, 214),
    "lilac": (196, 170, 212),
    "magenta": (194, 50, 132),
    "pink": (236, 142, 170),
    "rose": (222, 118, 138),
    "fuchsia": (208, 48, 144),
    "brown": (118, 80, 54),
    "chocolate": (84, 52, 38),
    "tan": (204, 172, 132),
    "beige": (226, 210, 182),
    "cream": (244, 234, 212),
    "ivory": (246, 240, 224),
    "white": (242, 241, 238),
    "silver": (190, 194, 200),
    "grey": (136, 140, 146),
    "gray": (136, 140, 146),
    "charcoal": (58, 62, 68),
    "black": (36, 36, 40),
}


def mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    """Return `one` with `share` (0 to 1) of `other`."""
    return (
        round(one[0] + (other[0] - one[0]) * share),
        round(one[1] + (other[1] - one[1]) * share),
        round(one[2] + (other[2] - one[2]) * share),
    )


def lighter(colour: Rgb, share: float = 0.3) -> Rgb:
    """Return the colour nearer to a warm white."""
    return mix(colour, (255, 250, 240), share)


def darker(colour: Rgb, share: float = 0.3) -> Rgb:
    """Return the colour nearer to a cool black."""
    return mix(colour, (14, 16, 30), share)


def luma(colour: Rgb) -> float:
    """Return how bright a colour looks, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def ramp(stops: Sequence[tuple[float, Rgb]], steps: int) -> list[Rgb]:
    """Return `steps` colours along stops at positions from 0 to 1."""
    found: list[Rgb] = []
    for (low, one), (high, other) in pairwise([(-1e-9, stops[0][1]), *stops, (1.0 + 1e-9, stops[-1][1])]):
        while len(found) < steps and len(found) / max(1, steps - 1) <= high:
            found.append(mix(one, other, (len(found) / max(1, steps - 1) - low) / max(1e-9, high - low)))
    return found


def even(colours: Sequence[Rgb]) -> list[tuple[float, Rgb]]:
    """Return the colours as stops at equal distances."""
    return [(place / max(1, len(colours) - 1), colour) for place, colour in enumerate(colours)]

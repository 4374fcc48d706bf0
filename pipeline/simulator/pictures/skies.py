"""Skies: the light of an hour, sun or moon, clouds, stars, northern lights.

In: a canvas, the hour, the season and the prompt's colours. Out: paint above the horizon, and the `Air` that everything
below it is seen through. It refuses to know what stands below.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from PIL import Image, ImageChops

from pipeline.simulator.pictures.canvas import Canvas, Point, vertical
from pipeline.simulator.pictures.colours import Rgb, even, mix
from pipeline.simulator.pictures.lines import noise

_STOPS: Mapping[str, Sequence[Rgb]] = {
    "dawn": ((72, 98, 152), (150, 146, 184), (236, 178, 168), (255, 212, 164), (255, 232, 196)),
    "day": ((46, 116, 192), (104, 168, 222), (172, 212, 238), (226, 240, 244)),
    "sunset": ((58, 52, 110), (150, 76, 120), (232, 112, 84), (252, 168, 84), (255, 214, 140)),
    "dusk": ((20, 26, 66), (58, 48, 108), (136, 70, 122), (222, 112, 112), (250, 172, 122)),
    "night": ((6, 10, 30), (12, 22, 56), (26, 42, 88), (52, 74, 122)),
    "storm": ((38, 44, 56), (70, 78, 90), (112, 120, 128), (168, 170, 166)),
    "fog": ((176, 190, 200), (204, 212, 216), (228, 230, 228), (238, 236, 230)),
    "space": ((5, 6, 18), (12, 12, 38), (24, 20, 62), (44, 28, 84)),
    "aurora": ((4, 10, 26), (8, 24, 48), (16, 52, 72), (44, 90, 100)),
}
_SEASON: Mapping[str, Sequence[Rgb]] = {
    "autumn": ((96, 136, 168), (176, 188, 182), (238, 212, 168), (252, 226, 178)),
    "winter": ((122, 158, 196), (178, 202, 224), (216, 226, 236), (240, 238, 238)),
    "spring": ((92, 158, 212), (156, 200, 232), (222, 226, 238), (248, 226, 228)),
    "summer": ((30, 118, 200), (86, 170, 226), (164, 216, 236), (250, 240, 208)),
}
_SUN: Mapping[str, Rgb] = {
    "dawn": (255, 226, 170),
    "day": (255, 250, 224),
    "sunset": (255, 206, 120),
    "dusk": (255, 186, 130),
}
DARK = frozenset({"night", "aurora", "space"})


@dataclass(frozen=True)
class Air:
    """How far things look: the hour, the horizon's height in pixels, where the light stands."""

    light: str
    season: str | None
    stops: tuple[Rgb, ...]
    horizon: float
    sun: Point
    has_sun: bool

    @property
    def is_dark(self) -> bool:
        return self.light in DARK

    @cached_property
    def haze(self) -> Rgb:
        """What far things fade into."""
        return self.stops[-1] if not self.is_dark else mix(self.stops[-1], self.stops[-2], 0.5)

    @cached_property
    def far(self) -> Rgb:
        """What land takes on with distance: the haze, cooled by the sky above it."""
        return mix(self.haze, self.stops[1], 0.68)

    @cached_property
    def glow(self) -> Rgb:
        """The colour of the light itself."""
        return _SUN.get(self.light, (214, 226, 250))

    @cached_property
    def shade(self) -> Rgb:
        """What near things fall into on the side away from the light."""
        return mix(self.stops[0], (12, 14, 30), 0.72 if self.light not in ("day", "fog") else 0.6)

    def seen(self, colour: Rgb, depth: float) -> Rgb:
        """Return a thing's colour at a distance (0 near, 1 far), in this light."""
        lit = mix(colour, self.shade, 0.62) if self.is_dark else mix(colour, self.glow, 0.08)
        if self.light == "sunset":
            lit = mix(mix(colour, self.glow, 0.24), self.shade, 0.22)
        elif self.light in ("dusk", "storm"):
            lit = mix(lit, self.shade, 0.42)
        return mix(lit, self.far, depth)


def sky(canvas: Canvas, light: str, season: str | None, colours: Sequence[Rgb], horizon: float) -> Air:
    """Paint the sky over the whole canvas; colours of the prompt tint its upper part."""
    stops = list(_SEASON[season] if season is not None and light == "day" else _STOPS[light])
    if colours:
        stops[0] = mix(stops[0], colours[0], 0.45)
        stops[1] = mix(stops[1], colours[-1], 0.22)
    random = canvas.random
    high = {"dawn": 0.82, "sunset": 0.86, "dusk": 0.97, "day": 0.42, "night": 0.34, "aurora": 0.3}.get(light, 0.5)
    sun = (canvas.width * random.choice((0.28, 0.36, 0.64, 0.72)), horizon * high)
    air = Air(light, season, tuple(stops), horizon, sun, light in _SUN or light == "night")
    canvas.cover(vertical(even(stops)), 0, horizon + 1)
    canvas.cover(
        vertical([(0, mix(air.far, air.shade, 0.15)), (1, mix(air.far, air.shade, 0.6))]), horizon, canvas.height
    )
    if air.is_dark:
        _stars(canvas, horizon)
    if light == "aurora":
        _northern_lights(canvas, horizon)
    if air.has_sun:
        _disc(canvas, air)
    _clouds(canvas, air)
    return air


def _disc(canvas: Canvas, air: Air) -> None:
    x, y = air.sun
    unit = canvas.unit
    if air.light == "night":
        canvas.glow(x, y, (unit * 0.5, unit * 0.5), (120, 140, 200), 0.5)
        canvas.oval((x, y), (unit * 0.052, unit * 0.052), (244, 240, 222))
        for dx, dy, size in ((-0.016, -0.012, 0.011), (0.014, 0.01, 0.014), (0.006, -0.024, 0.007)):
            canvas.soft(x + dx * unit, y + dy * unit, (size * unit, size * unit), (206, 204, 196), 0.8)
        return
    reach = 1.25 if air.light != "day" else 0.7
    canvas.glow(x, y, (unit * reach, unit * reach * 0.8), air.glow, 0.5, power=2.6)
    canvas.glow(x, y, (unit * 0.32, unit * 0.3), air.glow, 0.6)
    size = 0.062 if air.light != "day" else 0.045
    canvas.oval((x, y), (unit * size, unit * size), mix(air.glow, (255, 255, 246), 0.55))


def _stars(canvas: Canvas, horizon: float) -> None:
    random, pixels = canvas.random, canvas.image.load()
    for _ in range(int(220 * canvas.width / canvas.unit)):
        x, y = random.random() * canvas.width, random.random() ** 1.4 * horizon
        if random.random() < 0.12:
            size = canvas.unit * random.uniform(0.0012, 0.0026)
            canvas.glow(x, y, (size * 5, size * 5), (190, 206, 255), 0.6)
            canvas.oval((x, y), (size, size), (250, 250, 244))
        elif pixels is not None and int(y) < canvas.height:
            value = random.randint(110, 230)
            pixels[int(x), int(y)] = (value, value, min(255, value + 16))


def _northern_lights(canvas: Canvas, horizon: float) -> None:
    """Hang curtains of light: columns of noise, brightest at their lower edge."""
    random = canvas.random
    wide, high = 96, 48
    for colour, strength in (((60, 240, 160), 0.9), ((120, 90, 220), 0.5)):
        curtain = noise(random, (wide, 1), (9, 1)).resize((wide, high))
        shape = Image.new("L", (wide, high))
        shape.putdata(
            [
                round(255 * max(0.0, (row / high) ** 2 * (1 - row / high) * 4))
                for row in range(high)
                for _ in range(wide)
            ]
        )
        mask = Image.composite(
            curtain.point([max(0, min(255, (v - 96) * 3)) for v in range(256)]), Image.new("L", (wide, high)), shape
        )
        size = (canvas.width, round(horizon * 0.9))
        lit = mask.resize(size, Image.Resampling.BICUBIC).point([round(v * strength) for v in range(256)])
        top = round(horizon * random.uniform(-0.1, 0.1))
        canvas.stamp(
            lit.crop((0, max(0, -top), size[0], size[1])),
            (0, max(0, top), size[0], max(0, top) + size[1] - max(0, -top)),
            colour,
        )


def _clouds(canvas: Canvas, air: Air) -> None:
    """Lay bands of cloud: stretched noise, lit from the side of the sun."""
    cover = {"storm": 0.35, "fog": 0.6, "day": 0.55, "night": 0.72, "aurora": 0.9, "space": 2.0}.get(air.light, 0.56)
    small = (max(8, canvas.width // 6), max(8, round(air.horizon) // 6))
    cells = (max(2, round(4 * canvas.width / canvas.unit)), 7)
    field = noise(canvas.random, small, cells, 4)
    threshold = cover * 255
    mask = field.point([round(max(0.0, min(1.0, (v - threshold) / 85)) * 205) for v in range(256)])
    if air.light not in ("storm", "fog"):
        gaps = noise(canvas.random, small, (max(1, cells[0] // 2), 2), 2)
        mask = ImageChops.multiply(mask, gaps.point([max(0, min(255, (v - 70) * 2)) for v in range(256)]))
    fade = (
        Image.linear_gradient("L")
        .resize(small)
        .point([round(255 * min(1.0, 1.6 - v / 200)) if v < 240 else 90 for v in range(256)])
    )
    mask = Image.composite(mask, Image.new("L", small), fade)
    size = (canvas.width, max(1, round(air.horizon)))
    warm = mix(air.glow, (255, 255, 255), 0.45)
    dark = mix(air.stops[0], air.stops[-1], 0.45)
    lit, under = (
        (dark, mix(dark, air.shade, 0.35))
        if air.is_dark or air.light == "storm"
        else (warm, mix(warm, air.stops[1], 0.5))
    )
    canvas.stamp(mask.resize(size, Image.Resampling.BICUBIC), (0, 0, *size), vertical([(0.0, lit), (1.0, under)]), 0.85)

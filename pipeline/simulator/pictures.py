"""Draws a picture that fits a prompt: a shipped scene, or things in a room, cropped, coloured, lit and titled.

The same order always gives the same bytes. The choice is made in `scenes`. Image to image keeps the composition: the
input's own pixels under another light, season or treatment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from io import BytesIO
from math import log
from random import Random
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps, ImageStat, UnidentifiedImageError

from pipeline.simulator.scenes import MIDDLE, Idea, Layer, Mood, Rgb, index, layer, rgb, scene, understand

_MOST_PIXELS = 1_500_000  # larger pictures are made at this size and scaled up
_PLACES = {1: ((0.5, 1.0),), 2: ((0.35, 0.92), (0.66, 1.0)), 3: ((0.27, 0.84), (0.73, 0.86), (0.5, 1.0))}
_BOX = (1.7, 1.3, 0.8, 1.18)  # of a thing's layer, in sides of the thing: width, height, x and y of its foot
_SAVED: Mapping[str, dict[str, Any]] = {
    "image/png": {"format": "PNG", "compress_level": 1},  # time counts more than bytes here
    "image/webp": {"format": "WEBP", "quality": 88, "method": 1},
    "image/jpeg": {"format": "JPEG", "quality": 90},
}
_PAPER, _INK = (246, 240, 224), (16, 18, 36)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One picture."""

    prompt: str
    seed: int
    width: int
    height: int
    mime: str  # image/png | image/jpeg | image/webp
    inputs: tuple[bytes, ...] = ()

    def digest(self) -> bytes:
        """Return 32 bytes that differ for every other order."""
        hasher = sha256(repr((self.prompt, self.seed, self.width, self.height, self.mime)).encode("utf-8", "replace"))
        for data in self.inputs:
            hasher.update(sha256(data).digest())
        return hasher.digest()


def draw(order: Order) -> bytes:
    """Make one picture of exactly the order's width and height. Raises `UnreadableImage` for a broken input."""
    scale = min(1.0, (_MOST_PIXELS / (order.width * order.height)) ** 0.5)
    size = (max(16, round(order.width * scale)), max(16, round(order.height * scale)))
    random = Random(order.digest())
    image = grain(_made(order, size, random), random)
    if image.size != (order.width, order.height):
        image = image.resize((order.width, order.height), Image.Resampling.BICUBIC)
    out = BytesIO()
    image.save(out, **_SAVED[order.mime])
    return out.getvalue()


def _made(order: Order, size: tuple[int, int], random: Random) -> Image.Image:
    idea = understand(order.prompt)
    given = [picture for data in order.inputs if (picture := opened(data, size)) is not None]
    if given:
        first = toned(given[0], given[1]) if len(given) > 1 else given[0]
        treated = relight(first, index().moods[idea.mood or "day"], random)
        return tinted(treated, idea.colours[0]) if idea.colours else treated
    inside = _window(size) if idea.is_poster else size
    picture = _still(idea, inside, random) if idea.things else _view(idea, idea.colours, inside, random)
    if order.seed % 2:  # the variants of a prompt are told apart at a glance
        picture = ImageOps.mirror(picture)
    return _poster(picture, size, idea.title.upper(), idea.subtitle.upper()) if idea.is_poster else picture


def _view(idea: Idea, colours: Sequence[Rgb], size: tuple[int, int], random: Random) -> Image.Image:
    """Return a scene that fits the prompt, in its mood and colours."""
    known = index()
    name = random.choice(idea.scenes or [name for name, entry in known.scenes.items() if entry.grey])
    entry = known.scenes[name]
    picture = ImageOps.fit(scene(name), size, Image.Resampling.BICUBIC, centering=entry.focus)
    if entry.grey:
        pale, middle, deep = _palette(colours) if colours else map(rgb, random.choice(known.palettes))
        return ImageOps.colorize(ImageOps.grayscale(picture), deep, pale, middle)
    if idea.mood is not None and idea.mood != entry.mood:
        picture = relight(picture, known.moods[idea.mood], random)
    return tinted(picture, colours[0]) if colours else picture


def _palette(colours: Sequence[Rgb]) -> tuple[Rgb, Rgb, Rgb]:
    """Return a pale, a middle and a deep colour around those of the prompt."""
    light, deep = max(colours, key=_luma), min(colours, key=_luma)
    if light == deep:
        return _mix(light, (255, 250, 240), 0.8), light, _mix(light, (14, 16, 30), 0.65)
    return _mix(light, (255, 250, 240), 0.5), _mix(light, deep, 0.5), _mix(deep, (14, 16, 30), 0.4)


def _still(idea: Idea, size: tuple[int, int], random: Random) -> Image.Image:
    """Return one to three things in a room, in the prompt's colours."""
    known, names = index(), idea.things[:3]
    colours = [*idea.colours[: len(names)]]
    colours += [rgb(known.things[name].colour or random.choice(known.papers)) for name in names[len(colours) :]]
    name_of_room = _room(idea)
    room = known.rooms[name_of_room]
    picture = _furnished(idea, name_of_room, colours[0], size, random)
    unit, foot = min(size), room.foot * size[1]
    for (x, share), name, colour in zip(_PLACES[len(names)], names, colours, strict=True):
        scale = share if len(names) == 1 else share * 0.76 * known.things[name].scale
        at = (size[0] * x, foot - (1 - share) * unit * 0.3)
        _stand(picture, layer("things", name), colour, at, min(unit * 0.9, foot * 0.88) * scale)
    return picture


def _stand(picture: Image.Image, whole: Layer, colour: Rgb, foot: tuple[float, float], side: float) -> None:
    """Lay a thing over the picture; `side` is that of the square it is painted in."""
    wide, high = round(_BOX[0] * side), round(_BOX[1] * side)
    left, top = round(foot[0] - _BOX[2] * side), round(foot[1] - _BOX[3] * side)
    over = _changed(whole, lambda panel: panel.resize((wide, high)))
    picture.paste(_over(picture.crop((left, top, left + wide, top + high)), over, colour), (left, top))


def _room(idea: Idea) -> str:
    """Return where the things stand: where the prompt says, before a view, or on seamless paper."""
    own = index().things[idea.things[0]].room
    if idea.room is not None or own is not None:
        return idea.room or own or "studio"
    if idea.mood is not None:
        return "table"
    return "ledge" if any(not index().scenes[name].grey for name in idea.scenes) else "studio"


def _furnished(idea: Idea, name: str, thing: Rgb, size: tuple[int, int], random: Random) -> Image.Image:
    """Return the empty room; its colour is the first of the prompt that no thing has."""
    known, spare = index(), idea.colours[len(idea.things) :]
    room, behind = known.rooms[name], Image.new("RGB", size)
    if room.view:
        views = tuple(name for name in idea.scenes if not known.scenes[name].grey) or ("fjord", "forest", "village")
        small = _view(replace(idea, scenes=views), (), (size[0] // 3 + 1, size[1] // 3 + 1), random)
        behind = small.filter(ImageFilter.GaussianBlur(min(size) * 0.003)).resize(size)
    colour = rgb(room.colour or known.papers[0])
    if name == "studio" and idea.room is None:  # paper from which the thing stands out
        papers = [rgb(paper) for paper in random.sample(known.papers, 4)]
        colour = max(papers, key=lambda paper: sum(abs(a - b) for a, b in zip(paper, thing, strict=True)))
    crop = partial(ImageOps.fit, size=size, method=Image.Resampling.BILINEAR, centering=(0.5, room.foot))
    fitted = _changed(layer("rooms", name), crop)
    picture = _over(behind, fitted, spare[0] if spare else colour)
    if idea.mood is not None and not room.view:
        picture = relight(picture, known.moods[idea.mood], random)
    return picture


def _changed(whole: Layer, change: Callable[[Image.Image], Image.Image]) -> Layer:
    return Layer(light=change(whole.light), cover=change(whole.cover), share=change(whole.share))


def _over(behind: Image.Image, over: Layer, colour: Rgb) -> Image.Image:
    """Lay a layer in a colour over a picture of the same size."""
    shown = ImageChops.multiply(behind, Image.merge("RGB", [ImageChops.invert(over.cover)] * 3))
    bands = []
    for band, level, wished in zip(over.light.split(), shown.split(), colour, strict=True):
        change = over.share.point([v * abs(wished - MIDDLE) // 255 for v in range(256)])
        coloured = ImageChops.add(band, change) if wished >= MIDDLE else ImageChops.subtract(band, change)
        bands.append(ImageChops.add(coloured, level))
    return Image.merge("RGB", bands)


def _mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _luma(colour: Rgb) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # Pillow's own: every machine sets the same letters


def _width(text: str, size: int, gap: float) -> float:
    return sum(_font(size).getlength(letter) + gap for letter in text) - gap


def _fitted(text: str, room: float, largest: int) -> int:
    """Return the size of letters, spaced by 16 %, with which a line fits the room."""
    size = largest
    while size > 8 and _width(text, size, size * 0.16) > room:
        size -= max(1, size // 14)
    return size


def _margins(size: tuple[int, int]) -> tuple[int, int]:
    return round(min(size) * 0.045), round(min(size) * 0.2)


def _window(size: tuple[int, int]) -> tuple[int, int]:
    """Return how large the picture on a poster of this size is."""
    margin, foot = _margins(size)
    return max(16, size[0] - 2 * margin), max(16, size[1] - margin - foot)


def _poster(picture: Image.Image, size: tuple[int, int], title: str, subtitle: str) -> Image.Image:
    """Print a picture of `_window(size)` on paper with its title and the line under it."""
    unit, (margin, foot) = min(size), _margins(size)
    red, green, blue = ImageStat.Stat(picture.crop((0, 0, picture.width, max(1, picture.height // 3)))).mean
    ink = _mix((round(red), round(green), round(blue)), _INK, 0.7)
    sheet = Image.new("RGB", size, _PAPER)
    sheet.paste(picture, (margin, margin))
    large = _fitted(title, (size[0] - 2 * margin) * 0.86, round(unit * 0.095))
    height = size[1] - foot * (0.6 if subtitle else 0.5)
    _set(sheet, title, height, size=large, gap=large * 0.16, colour=ink, weight=round(large * 0.022))
    if subtitle:
        small = _fitted(subtitle, (size[0] - 2 * margin) * 0.6, round(unit * 0.026))
        _set(sheet, subtitle, size[1] - foot * 0.26, size=small, gap=small * 0.32, colour=_mix(ink, _PAPER, 0.3))
    return sheet


def _set(sheet: Image.Image, text: str, height: float, *, size: int, gap: float, colour: Rgb, weight: int = 0) -> None:
    """Set one centred line of spaced letters."""
    pen, x = ImageDraw.Draw(sheet), (sheet.width - _width(text, size, gap)) / 2
    for letter in text:
        pen.text((x, height), letter, font=_font(size), fill=colour, anchor="lm", stroke_width=weight)
        x += _font(size).getlength(letter) + gap


Picture = Image.Image
_FORMATS = ("PNG", "JPEG", "WEBP")
_MOST_INPUT_PIXELS = 64_000_000
_BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises for broken files


class UnreadableImage(Exception):  # noqa: N818 - what it is, not that it is an error
    """An input image whose bytes cannot be decoded."""


def opened(data: bytes, size: tuple[int, int]) -> Picture | None:
    """Return an input upright and at exactly this size, cut evenly; None for HEIC, which Pillow cannot open.

    Raises `UnreadableImage` for bytes that are broken.
    """
    if data[4:8] == b"ftyp":
        return None
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_INPUT_PIXELS:
                raise UnreadableImage("too many pixels")
            image.draft("RGB", size)
            upright = ImageOps.exif_transpose(image)
            flat = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except (*_BROKEN, UnidentifiedImageError) as error:
        raise UnreadableImage(str(error)) from error
    if flat.mode == "RGBA":
        flat = Image.alpha_composite(Image.new("RGBA", flat.size, "white"), flat).convert("RGB")
    return ImageOps.fit(flat, size, Image.Resampling.BICUBIC)


def nearest_ratio(data: bytes, ratios: tuple[str, ...]) -> str:
    """Return the ratio that an input comes closest to, `1:1` when its size cannot be read."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # turned by a quarter
                width, height = height, width
    except (*_BROKEN, UnidentifiedImageError):
        return "1:1"
    return min(ratios, key=lambda ratio: abs(log(_value(ratio) * max(1, height) / max(1, width))))


def _value(ratio: str) -> float:
    across, down = ratio.split(":")
    return int(across) / int(down)


def relight(picture: Picture, mood: Mood, random: Random) -> Picture:
    """Return the picture in another mood: recoloured, graded, then lit from one side."""
    if mood.strokes:
        picture = _strokes(picture)
    if mood.matrix:
        picture = picture.convert("RGB", mood.matrix)
    picture = Image.blend(ImageOps.grayscale(picture).convert("RGB"), picture, mood.saturation)
    picture = _graded(picture, rgb(mood.low), rgb(mood.high), mood.gamma)
    if mood.tone:  # shadows and lights are tinted apart, by each pixel's own brightness
        tone = ImageOps.colorize(ImageOps.grayscale(picture), rgb(mood.shadows), rgb(mood.lights))
        picture = Image.blend(picture, ImageChops.soft_light(picture, tone), mood.tone)
    if mood.haze is not None:
        top, bottom = mood.haze
        veil = ImageOps.colorize(Image.linear_gradient("L").resize(picture.size), rgb(top), rgb(bottom))
        picture = ImageChops.screen(picture, veil)
    if mood.light is not None:
        side = mood.at[0] if random.random() < 0.5 else 1 - mood.at[0]
        picture = _lit(picture, (side, mood.at[1]), mood.reach, rgb(mood.light))
    return _vignette(_bloom(picture, mood.bloom), mood.vignette)


def tinted(picture: Picture, colour: Rgb) -> Picture:
    """Return the picture with a breath of a colour."""
    return Image.blend(picture, ImageChops.soft_light(picture, Image.new("RGB", picture.size, colour)), 0.55)


def toned(picture: Picture, reference: Picture) -> Picture:
    """Return the picture with the colours of a second input: its mean and spread, channel by channel."""
    here, there = ImageStat.Stat(picture.resize((64, 64))), ImageStat.Stat(reference.resize((64, 64)))
    tables: list[int] = []
    for channel in range(3):
        scale = min(1.6, max(0.6, there.stddev[channel] / max(1.0, here.stddev[channel])))
        shift = there.mean[channel] - here.mean[channel] * scale
        tables += [min(255, max(0, round(v * scale + shift))) for v in range(256)]
    return Image.blend(picture, picture.point(tables), 0.6)


def grain(picture: Picture, random: Random, amount: int = 3) -> Picture:
    """Return the picture with fine grain, which hides the steps of gradients and makes each file unique."""
    tile = Image.frombytes("L", (257, 251), random.randbytes(257 * 251))
    tile = tile.point([128 + round((v / 255 - 0.5) * 2 * amount) for v in range(256)])
    sheet = Image.new("L", picture.size)
    for x in range(0, picture.width, tile.width):
        for y in range(0, picture.height, tile.height):
            sheet.paste(tile, (x, y))
    return ImageChops.add(picture, Image.merge("RGB", [sheet] * 3), 1, -128)


def _graded(picture: Picture, low: Rgb, high: Rgb, gamma: float) -> Picture:
    """Map black to `low` and white to `high` on a curve, keeping the colours between."""
    tables: list[int] = []
    for dark, bright in zip(low, high, strict=True):
        tables += [round(dark + (bright - dark) * (v / 255) ** gamma) for v in range(256)]
    return picture.point(tables)


def _falloff(power: float) -> Picture:
    """Return a square mask, white in the middle and black from the inscribed circle on."""
    return Image.radial_gradient("L").point([round(255 * max(0.0, 1 - v / 181) ** power) for v in range(256)])


def _lit(picture: Picture, at: tuple[float, float], reach: float, light: Rgb) -> Picture:
    """Add light from one place of the picture, as parts of its width and height."""
    radius = round(reach * max(picture.size))
    glow = Image.new("RGB", picture.size)
    place = (round(at[0] * picture.width) - radius, round(at[1] * picture.height) - radius)
    mask = _falloff(1.7).point([v * 3 // 5 for v in range(256)]).resize((2 * radius + 1, 2 * radius + 1))
    glow.paste(light, (*place, place[0] + mask.width, place[1] + mask.height), mask)
    return ImageChops.screen(picture, glow)


def _vignette(picture: Picture, strength: float) -> Picture:
    mask = _falloff(0.9).resize(picture.size, Image.Resampling.BILINEAR, box=(36, 36, 220, 220))
    dark = picture.point([round(v * (1 - strength)) for v in range(256)] * 3)
    return Image.composite(picture, dark, mask.point([min(255, v * 2) for v in range(256)]))


def _bloom(picture: Picture, strength: float) -> Picture:
    """Let bright places glow over their edges."""
    small = picture.reduce(8).point([max(0, min(255, round((v - 150) * 2.2))) for v in range(256)] * 3)
    soft = small.filter(ImageFilter.GaussianBlur(max(1, small.width / 28))).resize(picture.size)
    return Image.blend(picture, ImageChops.screen(picture, soft), strength)


def _strokes(picture: Picture) -> Picture:
    """Lay the picture down in flat strokes of a brush."""
    small = picture.resize(tuple(max(8, side * 360 // max(picture.size)) for side in picture.size))
    strokes = small.filter(ImageFilter.ModeFilter(7)).filter(ImageFilter.SMOOTH_MORE)
    return Image.blend(strokes.resize(picture.size, Image.Resampling.BICUBIC), picture, 0.2)

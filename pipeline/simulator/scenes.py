"""Chooses scenes, rooms, things, colours and moods by the words of a prompt, and lights pictures in a mood.

`assets/index.yaml` lists what there is and the words of each. A word that no entry has is ignored.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from random import Random
from typing import NamedTuple

import msgspec
from PIL import Image, ImageChops, ImageColor, ImageOps

Picture = Image.Image
Rgb = tuple[int, int, int]
MIDDLE = 160  # the grey that layers show until they are coloured
_ASSETS = files("pipeline.simulator").joinpath("assets")


class Worded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of the index, and the words of a prompt that choose it."""

    words: str


class Scene(Worded, frozen=True):
    """A view. Its mood is the light that it is painted in."""

    mood: str = "day"
    focus: tuple[float, float] = (0.5, 0.5)
    grey: bool = False


class Room(Worded, frozen=True):
    """Where things stand: `foot` is the height of their feet; with `view` a scene is seen behind it."""

    foot: float
    colour: str | None = None
    view: bool = False


class Thing(Worded, frozen=True):
    """Something that stands in a room."""

    colour: str | None = None
    scale: float = 1.0
    room: str | None = None


class Mood(Worded, frozen=True):
    """A light, season or treatment; `relight` says what each number does."""

    matrix: tuple[float, ...] = ()
    saturation: float = 1.0
    low: str = "#000000"
    high: str = "#ffffff"
    gamma: float = 1.0
    shadows: str = "#000000"
    lights: str = "#ffffff"
    tone: float = 0.0
    light: str | None = None
    at: tuple[float, float] = (0.5, 0.5)
    reach: float = 0.6


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `index.yaml`."""

    colours: Mapping[str, str]
    palettes: tuple[tuple[str, str, str], ...]
    papers: tuple[str, ...]
    poster: str
    untitled: str
    scenes: Mapping[str, Scene]
    rooms: Mapping[str, Room]
    things: Mapping[str, Thing]
    moods: Mapping[str, Mood]


class Layer(NamedTuple):
    """A room or a thing: its light, how much it covers of what is behind it, and its share of the wished colour."""

    light: Picture
    cover: Picture
    share: Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Idea:
    """What was understood of a prompt. Tuples are in its order, without repeats; names are those of the index."""

    colours: tuple[Rgb, ...]
    things: tuple[str, ...]
    scenes: tuple[str, ...]  # those that fit best; empty: nothing was recognised
    mood: str | None
    room: str | None
    is_poster: bool
    title: str


@lru_cache(maxsize=1)
def index() -> Index:
    """Read the index once."""
    return msgspec.yaml.decode(_ASSETS.joinpath("index.yaml").read_bytes(), type=Index)


@lru_cache(maxsize=12)
def scene(name: str) -> Picture:
    """Return a view; it is shared, so it is not drawn on."""
    return Image.open(BytesIO(_ASSETS.joinpath("scenes", f"{name}.webp").read_bytes())).convert("RGB")


@lru_cache(maxsize=12)
def layer(folder: str, name: str) -> Layer:
    """Return a room or a thing: `folder` is `rooms` or `things`."""
    image = Image.open(BytesIO(_ASSETS.joinpath(folder, f"{name}.webp").read_bytes())).convert("RGB")
    wide, high = image.width // 3, image.height
    light, cover, share = (image.crop((wide * third, 0, wide * (third + 1), high)) for third in range(3))
    return Layer(light=light, cover=cover.getchannel("G"), share=share.getchannel("G"))


def rgb(text: str) -> Rgb:
    """Return the colour that `#rrggbb` writes."""
    red, green, blue, *_ = ImageColor.getrgb(text)
    return red, green, blue


def understand(prompt: str) -> Idea:
    """Read a prompt."""
    words, known = re.findall(r"[\w'-]+", prompt.casefold()), index()
    mood = min(_named(words, known.moods), key=[*known.moods].index, default=None)
    title = _title(prompt)
    return Idea(
        colours=tuple(dict.fromkeys(rgb(known.colours[word]) for word in words if word in known.colours)),
        things=_named(words, known.things),
        scenes=_best(words, known.scenes, mood),
        mood=mood,
        room=next(iter(_named(words, known.rooms)), None),
        is_poster=any(word in known.poster.split() for word in words) and title != "",
        title=title,
    )


def _matches(words: Iterable[str], entry: Worded) -> list[int]:
    """Return the places of the words that choose this entry."""
    own = frozenset(entry.words.split())
    forms = ((w, w.removesuffix("'s"), w.removesuffix("s"), w.removesuffix("es")) for w in words)
    return [place for place, each in enumerate(forms) if not own.isdisjoint(each)]


def _named(words: list[str], entries: Mapping[str, Worded]) -> tuple[str, ...]:
    first = {name: places[0] for name, entry in entries.items() if (places := _matches(words, entry))}
    return tuple(sorted(first, key=lambda name: first[name]))


def _best(words: list[str], scenes: Mapping[str, Scene], mood: str | None) -> tuple[str, ...]:
    """Return the scenes with the most matching words; the mood counts for half a word."""
    scores = {name: 2 * len(_matches(words, entry)) + (entry.mood == mood) for name, entry in scenes.items()}
    most = max(scores.values())
    return tuple(name for name, score in scores.items() if score == most) if most else ()


def _title(prompt: str) -> str:
    """Return quoted words, else the first names (capitals inside a sentence), else key words."""
    quoted = re.search(r"[\"“”']([^\"“”']{2,32})[\"“”']", prompt)
    if quoted is not None:
        return quoted[1].strip()
    names = re.findall(r"(?<![.!?]\s)(?<!^)\b[A-ZÀ-Þ][\w’'-]+(?:\s+[A-ZÀ-Þ][\w’'-]+)*", prompt)
    if names:
        return str(names[0])
    skipped = {*index().untitled.split(), *index().colours}
    words = [word for word in re.findall(r"[^\W\d_]{3,}", prompt) if word.casefold() not in skipped]
    return " ".join(words[:2])


def relight(picture: Picture, mood: Mood, random: Random) -> Picture:
    """Return the picture in another mood: recoloured, graded, then lit from one side."""
    if mood.matrix:
        picture = picture.convert("RGB", mood.matrix)
    picture = Image.blend(ImageOps.grayscale(picture).convert("RGB"), picture, mood.saturation)
    picture = _graded(picture, rgb(mood.low), rgb(mood.high), mood.gamma)
    if mood.tone:  # shadows and lights are tinted apart, by each pixel's own brightness
        tone = ImageOps.colorize(ImageOps.grayscale(picture), rgb(mood.shadows), rgb(mood.lights))
        picture = Image.blend(picture, ImageChops.soft_light(picture, tone), mood.tone)
    if mood.light is not None:
        side = mood.at[0] if random.random() < 0.5 else 1 - mood.at[0]
        picture = _lit(picture, (side, mood.at[1]), mood.reach, rgb(mood.light))
    return picture


def tinted(picture: Picture, colour: Rgb) -> Picture:
    """Return the picture with a breath of a colour."""
    return Image.blend(picture, ImageChops.soft_light(picture, Image.new("RGB", picture.size, colour)), 0.55)


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


def _lit(picture: Picture, at: tuple[float, float], reach: float, light: Rgb) -> Picture:
    """Add light from one place of the picture, as parts of its width and height."""
    radius = round(reach * max(picture.size))
    glow = Image.new("RGB", picture.size)
    place = (round(at[0] * picture.width) - radius, round(at[1] * picture.height) - radius)
    fading = Image.radial_gradient("L").point([round(153 * max(0.0, 1 - v / 181) ** 1.7) for v in range(256)])
    mask = fading.resize((2 * radius + 1, 2 * radius + 1))
    glow.paste(light, (*place, place[0] + mask.width, place[1] + mask.height), mask)
    return ImageChops.screen(picture, glow)

"""Draws pictures that fit a prompt off the event loop: a shipped scene, or things in a room; or tiny ones at no cost.

The same order always gives the same bytes. The choice is made in `scenes`. Image to image keeps the composition: the
input's own pixels under another light, season or treatment. Threads, not processes: a picture takes a tenth of a
second, most of it in Pillow, which releases the lock; processes would outlive a killed parent.
"""

import asyncio
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from io import BytesIO
from math import log
from random import Random
from typing import Any

import pybase64
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps, ImageStat, UnidentifiedImageError

from pipeline.provider.catalogue import DEFAULT_SIZE
from pipeline.simulator import scenes
from pipeline.simulator.profile import Profile
from pipeline.simulator.responses import EncodedImage, Rendered
from pipeline.simulator.rules import Dice, without_words
from pipeline.simulator.scenes import Layer, Picture, Rgb
from pipeline.simulator.validation import Ask

_MOST_PIXELS = 1_500_000  # larger pictures are made at this size and scaled up
_PLACES = {1: ((0.5, 1.0),), 2: ((0.35, 0.92), (0.66, 1.0)), 3: ((0.27, 0.84), (0.73, 0.86), (0.5, 1.0))}
_BOX = (1.7, 1.3, 0.8, 1.18)  # of a thing's layer, in sides of the thing: width, height, x and y of its foot
_SAVED: Mapping[str, dict[str, Any]] = {
    "image/png": {"format": "PNG", "compress_level": 1},  # time counts more than bytes here
    "image/webp": {"format": "WEBP", "quality": 88, "method": 1},
    "image/jpeg": {"format": "JPEG", "quality": 90},
}
_PAPER, _INK = (246, 240, 224), (16, 18, 36)
_SPACING = 0.16  # between letters of a title, of their size


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
    image = scenes.grain(_made(order, size, random), random)
    if image.size != (order.width, order.height):
        image = image.resize((order.width, order.height), Image.Resampling.BICUBIC)
    out = BytesIO()
    image.save(out, **_SAVED[order.mime])
    return out.getvalue()


def _made(order: Order, size: tuple[int, int], random: Random) -> Image.Image:
    idea = scenes.understand(order.prompt)
    given = [picture for data in order.inputs if (picture := opened(data, size)) is not None]
    if given:
        treated = scenes.relight(given[0], scenes.index().moods[idea.mood or "day"], random)
        return scenes.tinted(treated, idea.colours[0]) if idea.colours else treated
    inside = _window(size) if idea.is_poster else size
    picture = _still(idea, inside, random) if idea.things else _view(idea, idea.colours, inside, random)
    if order.seed % 2:  # the variants of a prompt are told apart at a glance
        picture = ImageOps.mirror(picture)
    return _poster(picture, size, idea.title.upper()) if idea.is_poster else picture


def _view(idea: scenes.Idea, colours: Sequence[Rgb], size: tuple[int, int], random: Random) -> Image.Image:
    """Return a scene that fits the prompt, in its mood and colours."""
    known = scenes.index()
    name = random.choice(idea.scenes or [name for name, entry in known.scenes.items() if entry.grey])
    entry = known.scenes[name]
    picture = ImageOps.fit(scenes.scene(name), size, Image.Resampling.BICUBIC, centering=entry.focus)
    if entry.grey:
        pale, middle, deep = _palette(colours) if colours else map(scenes.rgb, random.choice(known.palettes))
        return ImageOps.colorize(ImageOps.grayscale(picture), deep, pale, middle)
    if idea.mood is not None and idea.mood != entry.mood:
        picture = scenes.relight(picture, known.moods[idea.mood], random)
    return scenes.tinted(picture, colours[0]) if colours else picture


def _palette(colours: Sequence[Rgb]) -> tuple[Rgb, Rgb, Rgb]:
    """Return a pale, a middle and a deep colour around those of the prompt."""
    light, deep = max(colours, key=_luma), min(colours, key=_luma)
    if light == deep:
        return _mix(light, (255, 250, 240), 0.8), light, _mix(light, (14, 16, 30), 0.65)
    return _mix(light, (255, 250, 240), 0.5), _mix(light, deep, 0.5), _mix(deep, (14, 16, 30), 0.4)


def _still(idea: scenes.Idea, size: tuple[int, int], random: Random) -> Image.Image:
    """Return one to three things in a room, in the prompt's colours."""
    known, names = scenes.index(), idea.things[:3]
    colours = [*idea.colours[: len(names)]]
    colours += [scenes.rgb(known.things[name].colour or random.choice(known.papers)) for name in names[len(colours) :]]
    name_of_room = _room(idea)
    room = known.rooms[name_of_room]
    picture = _furnished(idea, name_of_room, colours[0], size, random)
    unit, foot = min(size), room.foot * size[1]
    for (x, share), name, colour in zip(_PLACES[len(names)], names, colours, strict=True):
        scale = share if len(names) == 1 else share * 0.76 * known.things[name].scale
        at = (size[0] * x, foot - (1 - share) * unit * 0.3)
        _stand(picture, scenes.layer("things", name), colour, at, min(unit * 0.9, foot * 0.88) * scale)
    return picture


def _stand(picture: Image.Image, whole: Layer, colour: Rgb, foot: tuple[float, float], side: float) -> None:
    """Lay a thing over the picture; `side` is that of the square it is painted in."""
    wide, high = round(_BOX[0] * side), round(_BOX[1] * side)
    left, top = round(foot[0] - _BOX[2] * side), round(foot[1] - _BOX[3] * side)
    over = _changed(whole, lambda panel: panel.resize((wide, high)))
    picture.paste(_over(picture.crop((left, top, left + wide, top + high)), over, colour), (left, top))


def _room(idea: scenes.Idea) -> str:
    """Return where the things stand: where the prompt says, before a view, or on seamless paper."""
    own = scenes.index().things[idea.things[0]].room
    if idea.room is not None or own is not None:
        return idea.room or own or "studio"
    if idea.mood is not None:
        return "table"
    return "ledge" if any(not scenes.index().scenes[name].grey for name in idea.scenes) else "studio"


def _furnished(idea: scenes.Idea, name: str, thing: Rgb, size: tuple[int, int], random: Random) -> Image.Image:
    """Return the empty room; its colour is the first of the prompt that no thing has."""
    known, spare = scenes.index(), idea.colours[len(idea.things) :]
    room, behind = known.rooms[name], Image.new("RGB", size)
    if room.view:
        views = tuple(name for name in idea.scenes if not known.scenes[name].grey) or ("fjord", "forest", "village")
        small = _view(replace(idea, scenes=views), (), (size[0] // 3 + 1, size[1] // 3 + 1), random)
        behind = small.filter(ImageFilter.GaussianBlur(min(size) * 0.003)).resize(size)
    colour = scenes.rgb(room.colour or known.papers[0])
    if name == "studio" and idea.room is None:  # paper from which the thing stands out
        papers = [scenes.rgb(paper) for paper in random.sample(known.papers, 4)]
        colour = max(papers, key=lambda paper: sum(abs(a - b) for a, b in zip(paper, thing, strict=True)))
    crop = partial(ImageOps.fit, size=size, method=Image.Resampling.BILINEAR, centering=(0.5, room.foot))
    fitted = _changed(scenes.layer("rooms", name), crop)
    picture = _over(behind, fitted, spare[0] if spare else colour)
    if idea.mood is not None and not room.view:
        picture = scenes.relight(picture, known.moods[idea.mood], random)
    return picture


def _changed(whole: Layer, change: Callable[[Image.Image], Image.Image]) -> Layer:
    return Layer(*map(change, whole))


def _over(behind: Image.Image, over: Layer, colour: Rgb) -> Image.Image:
    """Lay a layer in a colour over a picture of the same size."""
    shown = ImageChops.multiply(behind, Image.merge("RGB", [ImageChops.invert(over.cover)] * 3))
    bands = []
    for band, level, wished in zip(over.light.split(), shown.split(), colour, strict=True):
        change = over.share.point([v * abs(wished - scenes.MIDDLE) // 255 for v in range(256)])
        coloured = ImageChops.add(band, change) if wished >= scenes.MIDDLE else ImageChops.subtract(band, change)
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


def _width(text: str, size: int) -> float:
    return sum(_font(size).getlength(letter) + size * _SPACING for letter in text) - size * _SPACING


def _fitted(text: str, room: float, largest: int) -> int:
    """Return the size of letters with which a line fits the room."""
    size = largest
    while size > 8 and _width(text, size) > room:
        size -= max(1, size // 14)
    return size


def _margins(size: tuple[int, int]) -> tuple[int, int]:
    return round(min(size) * 0.045), round(min(size) * 0.2)


def _window(size: tuple[int, int]) -> tuple[int, int]:
    """Return how large the picture on a poster of this size is."""
    margin, foot = _margins(size)
    return max(16, size[0] - 2 * margin), max(16, size[1] - margin - foot)


def _poster(picture: Image.Image, size: tuple[int, int], title: str) -> Image.Image:
    """Print a picture of `_window(size)` on paper with its title, in spaced letters."""
    unit, (margin, foot) = min(size), _margins(size)
    red, green, blue = ImageStat.Stat(picture.crop((0, 0, picture.width, max(1, picture.height // 3)))).mean
    sheet = Image.new("RGB", size, _PAPER)
    sheet.paste(picture, (margin, margin))
    large = _fitted(title, (size[0] - 2 * margin) * 0.86, round(unit * 0.095))
    pen, x = ImageDraw.Draw(sheet), (sheet.width - _width(title, large)) / 2
    style: dict[str, Any] = {"fill": _mix((round(red), round(green), round(blue)), _INK, 0.7), "anchor": "lm"}
    for letter in title:
        pen.text((x, size[1] - foot * 0.5), letter, font=_font(large), stroke_width=round(large * 0.022), **style)
        x += _font(large).getlength(letter) + large * _SPACING
    return sheet


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


_MARK_BYTES = 36
_COMMENT_MOST = 65_533  # of one JPEG segment, its length field included
_DRAFT_EDGE = 256  # pixels of the longer side of a thought draft


class Renderer:
    """Makes pictures by a profile; a context manager."""

    def __init__(self, profile: Profile) -> None:
        self._is_tiny = profile.picture == "tiny"
        self._tiny_bytes = profile.picture_bytes
        self._dice = Dice(profile.seed, "studio")
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="renderer")

    async def render(self, ask: Ask, seed: int, fault: str) -> Rendered:
        """Make the pictures of one answer. Raises `UnreadableImage` for an input that cannot be decoded."""
        ratio = ask.ratio or (nearest_ratio(ask.images[0], ask.model.family.ratios) if ask.images else "1:1")
        orders = self._orders(ask, seed, ratio, fault)
        images = [await self._image(order) for order in orders]
        drafts: Sequence[EncodedImage] = ()
        if fault == "drafts" or ask.show_thoughts:
            drafts = [await self._image(self._draft(orders[-1], step)) for step in range(2)]
        return Rendered(images=tuple(images), drafts=tuple(drafts), ratio=ratio)

    def close(self) -> None:
        """End the workers; what they are drawing is finished first."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _orders(self, ask: Ask, seed: int, ratio: str, fault: str) -> list[Order]:
        width, height = ask.model.family.pixels[ask.size or DEFAULT_SIZE][ratio]
        if fault == "wrong_size":
            width, height = width // 2, height // 2
        mime = self._dice.choice(ask.model.mimes, ask.digest, seed)
        count = self._dice.whole(2, 3, "several", ask.digest) if fault == "several_images" else 1
        prompt = without_words(ask.prompt)
        return [
            Order(prompt=prompt, seed=seed + 1000 * earlier, width=width, height=height, mime=mime, inputs=ask.images)
            for earlier in reversed(range(count))
        ]

    def _draft(self, final: Order, step: int) -> Order:
        scale = _DRAFT_EDGE / max(final.width, final.height)
        width, height = round(final.width * scale), round(final.height * scale)
        return replace(final, width=width, height=height, seed=final.seed + 1000 * (step + 1))

    async def _image(self, order: Order) -> EncodedImage:
        if self._is_tiny:
            return tiny(order.width, order.height, order.mime, self._tiny_bytes, order.digest())
        return await asyncio.get_running_loop().run_in_executor(self._pool, _encoded, order)


def _encoded(order: Order) -> EncodedImage:
    data = draw(order)
    return EncodedImage(base64=pybase64.b64encode(data), sha256=sha256(data).hexdigest(), mime=order.mime)


def tiny(width: int, height: int, mime: str, size_bytes: int, mark: bytes) -> EncodedImage:
    """Make one picture; the same mark makes the same bytes. Types other than PNG are made as JPEG."""
    mime = "image/png" if mime == "image/png" else "image/jpeg"
    head64, hashed, tail = _blank(width, height, mime, size_bytes)
    mark = mark[:_MARK_BYTES].ljust(_MARK_BYTES, b"\0")
    rest = (_chunk(b"maRk", mark) if mime == "image/png" else _comment(mark)) + tail
    hasher = hashed.copy()
    hasher.update(rest)
    return EncodedImage(base64=head64 + pybase64.b64encode(rest), sha256=hasher.hexdigest(), mime=mime)


@lru_cache(maxsize=64)
def _blank(width: int, height: int, mime: str, size_bytes: int):  # type: ignore[no-untyped-def]  # hashlib's class has no public name
    """Return the head's Base64, its hash and the tail; the mark goes between. The head's length divides by three."""
    buffer = BytesIO()
    if mime == "image/png":
        Image.new("1", (width, height), 1).save(buffer, "PNG", optimize=True)
        head, tail = buffer.getvalue()[:33], buffer.getvalue()[33:]  # signature and IHDR
    else:
        Image.new("L", (width, height), 208).save(buffer, "JPEG", quality=20, optimize=True)
        head, tail = buffer.getvalue()[:2], buffer.getvalue()[2:]  # SOI
    missing = max(0, size_bytes - len(head) - len(tail) - _MARK_BYTES - 40)
    head += _filler(mime, missing, len(head))
    return pybase64.b64encode(head), sha256(head), tail


def _filler(mime: str, missing: int, before: int) -> bytes:
    """Return segments of about `missing` bytes which end on a multiple of three, `before` bytes counted."""
    if mime == "image/png":
        overhead = 12
        return _chunk(b"fiLl", b"\x5a" * (missing + -(before + missing + overhead) % 3))
    whole, rest = divmod(missing, _COMMENT_MOST)
    filler = _comment(b"\x5a" * (_COMMENT_MOST - 2)) * whole
    overhead = 4
    return filler + _comment(b"\x5a" * (rest + -(before + len(filler) + rest + overhead) % 3))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def _comment(data: bytes) -> bytes:
    return b"\xff\xfe" + (len(data) + 2).to_bytes(2) + data

"""Which composition fits a prompt, and its way to bytes.

In: an `Order`. Out: an encoded picture of exactly its width and height.
"""

from io import BytesIO
from random import Random

from PIL import Image, ImageStat

from pipeline.simulator.pictures import abstracts, landscapes, lettering, still
from pipeline.simulator.pictures.canvas import Canvas
from pipeline.simulator.pictures.colours import NAMED, Rgb, mix
from pipeline.simulator.pictures.grades import toned
from pipeline.simulator.pictures.inputs import opened
from pipeline.simulator.pictures.lines import grain
from pipeline.simulator.pictures.order import Order
from pipeline.simulator.pictures.relight import relight
from pipeline.simulator.pictures.words import Idea, understand, words_of

_MOST_PIXELS = 1_500_000  # larger pictures are painted at this size and scaled up


def draw(order: Order) -> bytes:
    """Draw one picture. Raises `UnreadableImage` for a broken input."""
    scale = min(1.0, (_MOST_PIXELS / (order.width * order.height)) ** 0.5)
    size = (max(16, round(order.width * scale)), max(16, round(order.height * scale)))
    random = Random(order.digest())
    image = grain(_painted(order, size, random), random)
    if image.size != (order.width, order.height):
        image = image.resize((order.width, order.height), Image.Resampling.BICUBIC)
    return encode(image, order.mime)


def _painted(order: Order, size: tuple[int, int], random: Random) -> Image.Image:
    idea = understand(order.prompt)
    given = [picture for data in order.inputs if (picture := opened(data, size)) is not None]
    if not given:
        return _invented(idea, size, random)
    first = toned(given[0], given[1]) if len(given) > 1 else given[0]
    return relight(first, words_of(order.prompt), idea, random)


def _invented(idea: Idea, size: tuple[int, int], random: Random) -> Image.Image:
    is_poster = idea.style == "poster" and idea.title != ""
    canvas = Canvas(*(lettering.window(size) if is_poster else size), random)
    if idea.things and idea.style != "abstract":
        still.paint(canvas, idea)
    elif idea.style != "abstract" and (idea.places or idea.afar or idea.light or idea.season):
        landscapes.paint(canvas, idea)
    else:
        abstracts.paint(canvas, idea.colours)
    if not is_poster:
        return canvas.image
    return lettering.poster(canvas.image, size, (idea.title, idea.subtitle), NAMED["ivory"], _ink(canvas.image))


def _ink(picture: Image.Image) -> Rgb:
    """Return a dark colour that belongs to the upper third of a picture."""
    red, green, blue = ImageStat.Stat(picture.crop((0, 0, picture.width, max(1, picture.height // 3)))).mean
    return mix((round(red), round(green), round(blue)), (16, 18, 36), 0.7)


def encode(image: Image.Image, mime: str) -> bytes:
    """Return the file; PNG is packed lightly, because time counts more than bytes here."""
    out = BytesIO()
    if mime == "image/png":
        image.save(out, "PNG", compress_level=1)
    elif mime == "image/webp":
        image.save(out, "WEBP", quality=88, method=1)
    else:
        image.save(out, "JPEG", quality=90)
    return out.getvalue()

"""Images that arrive as text: `data:` URIs and bare Base64 in words, and bytes that were encoded twice.

In: text or bytes of an answer without an inline image. Out: whole images, proven by `image.inspect`. What is found here
was paid for, so every way to wrap Base64 that relays and markdown use is tried before it is given up: line breaks,
literal `\\n`, quote marks, percent signs. Pure computation.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote

from pipeline.provider.body import unbase64
from pipeline.provider.image import UNKNOWN, BrokenImageError, inspect, sniff

_MOST_PLACES = 16  # in one text; more is no answer of an image model
_LAYERS = 3  # of Base64 in Base64
_HEAD = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]{1,60}){0,4};base64,", re.IGNORECASE)
_MAGIC = re.compile(r"(?<![A-Za-z0-9+/,])(?:iVBORw0KGgo|/9j/|UklGR)")  # PNG, JPEG and WebP begin so in Base64
_RUN = re.compile(r"(?:[A-Za-z0-9+/=_\s-]++|%(?:2[BF]|3D|0[AD]|20))*+", re.IGNORECASE)
_QUOTE_MARK = re.compile(r"\n[ \t]*>+")
_LINK = re.compile(
    r"!\[[^\]\n]{0,300}\]\(\s*<?(?P<markdown>https?://[^\s)>]+)"
    r"|<img\b[^>]{0,500}?\bsrc\s*=\s*[\"']?(?P<html>https?://[^\s\"'>]+)"
    r"|\[[^\]\n]{0,100}(?:image|picture|download|view|图)[^\]\n]{0,100}\]\(\s*<?(?P<named>https?://[^\s)>]+)"
    r"|(?P<bare>https?://[^\s\"'<>()\]]+\.(?:png|jpe?g|webp|gif|avif)(?:\?[^\s\"'<>()\]]*)?)",
    re.IGNORECASE,
)
_ONLY_LINK = re.compile(r"\s*<?(https?://[^\s<>]+)>?\s*")


def images_in(text: str) -> list[bytes]:
    """Return the whole images that a text holds, in their order."""
    flat = text.replace("\\r", "").replace("\\n", "\n").replace("\\/", "/")
    flat = _QUOTE_MARK.sub("\n", flat)
    places = {found.end() for found in _HEAD.finditer(flat)} | {found.start() for found in _MAGIC.finditer(flat)}
    found = (_image_at(flat, place) for place in sorted(places)[:_MOST_PLACES])
    return [data for data in found if data is not None]


def links_in(text: str) -> list[str]:
    """Return the addresses of images that a text names: markdown, HTML, a name that ends like one, nothing but one."""
    only = _ONLY_LINK.fullmatch(text)
    if only is not None:
        return [only[1]]
    return [found[found.lastgroup] for found in _LINK.finditer(text) if found.lastgroup is not None]


def decoded_again(data: bytes) -> bytes:
    """Return bytes that are no image, but Base64 of one, decoded; all others as they are."""
    inner = data
    for _ in range(_LAYERS):
        if sniff(inner) != UNKNOWN:
            return inner
        try:
            inner = unbase64(inner.strip())
        except ValueError:
            return data
    return inner if sniff(inner) != UNKNOWN else data


def _image_at(text: str, place: int) -> bytes | None:
    run = _RUN.match(text, place)
    assert run is not None  # it matches nothing at least
    for encoded in _ways(unquote(run[0]) if "%" in run[0] else run[0]):
        try:
            data = decoded_again(unbase64(encoded.encode("ascii")))
            inspect(data)
        except (BrokenImageError, ValueError):
            continue
        return data
    return None


def _ways(run: str) -> Iterator[str]:
    """Yield what of a run may be the image, strictest first: the words behind it look like Base64 too."""
    pieces = run.split()
    if not pieces:
        return
    yield pieces[0]
    width = len(pieces[0])
    full = next((n for n, piece in enumerate(pieces) if len(piece) != width), len(pieces))
    yield "".join(pieces[:full])
    yield "".join(pieces[: full + 1])
    padded = next((n for n, piece in enumerate(pieces) if piece.endswith("=")), None)
    if padded is not None:
        yield "".join(pieces[: padded + 1])
    yield "".join(pieces)

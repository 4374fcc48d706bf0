r"""Parses the bytes of an answer to a tree of JSON and the binary data inside it, without copying what is large.

A `Document` is the tree with every long string under a `data` key cut out and kept as a view of the body: 0.3 ms for a
2.7 MB answer. A stream of events (`data: {...}`) or of JSON lines, which some relays send to a plain request, is the
list of what it carries.

Images that arrive as text are found too: `data:` URIs and bare Base64 in words, and bytes that were encoded twice. They
were paid for, so every way to wrap Base64 that relays and markdown use is tried: line breaks, literal `\n`, quote
marks, percent signs. What is found is checked by `imaging.formats`.
"""

import json
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

import msgspec
import pybase64

from pipeline.imaging.formats import UNKNOWN, BrokenImageError, inspect, sniff

_KEY = b'"data"'
_VALUE = re.compile(rb'\s*:\s*"')
_BEGINNINGS = (b"{", b"[", b",")  # each value of JSON but the first follows one of these
_MOST_VALUES = 200_000  # an answer has some dozens; as many decoded take 13 MB
_MOST_LINES = 200_000  # of a stream
_WORTH_CUTTING = 4096  # bytes; shorter strings are cheaper decoded than cut
_CUT = "\0cut:"  # no Base64 text looks like this
_GZIP = b"\x1f\x8b\x08"
_PACKED = re.compile(_GZIP + rb"|x[\x01\x5e\x9c\xda]")  # or zlib
_ANY_WINDOW = 32 + zlib.MAX_WBITS  # of either, as its first bytes say
_MOST_PACKED = 2  # times
_MOST_MEMBERS = 100  # of one gzip body; each costs a copy of what is behind it
_PIECE_BYTES = 2**22
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_EVENT_FIELD = re.compile(rb"\s*(?:data|event|id|retry)?:")  # how a stream of events begins
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")  # https://html.spec.whatwg.org/multipage/server-sent-events.html
_LINE_END = re.compile(rb"\r\n|\n|\r")


class NotJsonError(ValueError):
    """The body is not JSON; the text says why."""


class TooManyValuesError(NotJsonError):
    """The body would make more objects than any answer has: 14 MB of `{},` took 457 MB and 19 s."""


class Document(NamedTuple):
    """A decoded body."""

    tree: object
    cuts: list[memoryview]  # strings as they stand in the body, with their escapes

    def blob(self, text: str) -> bytes:
        """Decode the Base64 text of a string of the tree.

        Raises: ValueError when it is not Base64.
        """
        cut = self._cut(text)
        if cut is None:
            return unbase64(text.encode("ascii"))
        try:
            return unbase64(cut)
        except ValueError:
            if b"\\" not in bytes(cut):
                raise
        return unbase64(_unescaped(cut).encode("ascii"))

    def text(self, text: str) -> str:
        """Return a string of the tree as it was in the body. Raises: ValueError when its escapes are not JSON's."""
        cut = self._cut(text)
        return text if cut is None else _unescaped(cut)

    def _cut(self, text: str) -> memoryview | None:
        number = text.removeprefix(_CUT)
        is_mark = number != text and number.isdecimal() and int(number) < len(self.cuts)
        return self.cuts[int(number)] if is_mark else None


def _unescaped(cut: memoryview) -> str:
    return str(json.loads(b'"' + bytes(cut) + b'"', strict=False))


def decode_answer(body: bytes | bytearray) -> Document:
    """Decode a whole body. A byte-order mark, a wrong charset, NaN and lone surrogates are forgiven.

    Raises: NotJsonError.
    """
    plain = body[len(_BOM) :] if body.startswith(_BOM) else body
    try:
        return _decode(plain)
    except TooManyValuesError:
        raise
    except NotJsonError:
        events = _events(bytes(plain))
        if not events:
            return _decode(plain, is_followed=True)
    return _decode(b"[" + b",".join(events) + b"]")


def unpacked(body: bytes | bytearray, most_bytes: int) -> bytes | bytearray:
    """Return a body without its compression, at most `most_bytes` of it; one that is cut short as far as it goes.

    Its first bytes are believed, not `Content-Encoding`: relays send gzip without a word, and name gzip what they have
    unpacked already (Pasta-Devs/Marinara-Engine#801, everything2/everything2#3053).
    """
    for _ in range(_MOST_PACKED):
        if not _PACKED.match(body):
            break
        try:
            body = _unpacked_once(body, most_bytes)
        except zlib.error:
            break
    return body


def _unpacked_once(body: bytes | bytearray, most_bytes: int) -> bytearray:
    """Unpack all members of a gzip body, which stand one behind the other (RFC 1952, 2.2). Raises: zlib.error.

    Piece by piece: zlib holds what it returns twice for a moment.
    """
    whole = bytearray()
    for _ in range(_MOST_MEMBERS):
        member = zlib.decompressobj(_ANY_WINDOW)
        while not member.eof and (size := min(_PIECE_BYTES, most_bytes - len(whole))):
            piece = member.decompress(body, size)
            whole += piece
            body = member.unconsumed_tail
            if len(piece) < size:
                break
        body = member.unused_data
        if len(whole) == most_bytes or not body.startswith(_GZIP):
            return whole
    raise zlib.error(f"more than {_MOST_MEMBERS} members")


def _decode(body: bytes | bytearray, *, is_followed: bool = False) -> Document:
    """is_followed: something else may stand behind the JSON."""
    skeleton, cuts = _cut(body)
    if sum(map(skeleton.count, _BEGINNINGS)) > _MOST_VALUES:
        raise TooManyValuesError(f"it has more than {_MOST_VALUES:,} values")
    try:
        return Document(msgspec.json.decode(skeleton), cuts)
    except RecursionError as error:
        raise NotJsonError("JSON nested too deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Document(_decode_leniently(skeleton, is_followed=is_followed), cuts)


def _events(body: bytes) -> list[bytes]:
    """Return the JSON of each event of a stream, or of each line; `null` for one that is not whole, so that it shows.

    Empty when not one of them is JSON: then it is no stream.
    """
    if body.count(b"\n") + body.count(b"\r") > _MOST_LINES:
        return []
    if _EVENT_FIELD.match(body):
        events = [_event_data(event) for event in _EVENT_END.split(body)]
    else:
        events = [line.strip() for line in _LINE_END.split(body)]
    sent = [event for event in events if event and event != b"[DONE]"]
    checked = [event if _is_json(event) else b"null" for event in sent]
    return checked if any(event != b"null" for event in checked) else []


def _event_data(event: bytes) -> bytes:
    lines = (line.lstrip() for line in _LINE_END.split(event))
    return b"\n".join(line[len(b"data:") :].strip() for line in lines if line.startswith(b"data:"))


def _is_json(event: bytes) -> bool:
    if not event.startswith((b"{", b"[")):
        return False
    try:
        _decode(event)
    except NotJsonError:
        return False
    return True


def unbase64(text: bytes | memoryview) -> bytes:
    """Decode Base64 strictly, after forgiving a `data:` prefix, the URL-safe alphabet, white space and missing padding.

    Raises: ValueError.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass
    plain = bytes(text)
    if plain.startswith(b"data:"):
        _, comma, plain = plain.partition(b",")
        if not comma:
            raise ValueError("a data: URL without a comma")
    plain = plain.translate(_URL_SAFE, _SPACE).rstrip(b"=")
    return pybase64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)


def _cut(body: bytes | bytearray) -> tuple[bytes | bytearray, list[memoryview]]:
    """Replace long strings under a `data` key by a mark. Where a quote may be part of the string it stays as it is.

    Escapes are not looked for: few servers write Base64 with one, and it would take as long as finding the end.
    """
    view, pieces, cuts, done = memoryview(body), list[bytes | memoryview](), list[memoryview](), 0
    at = body.find(_KEY)
    while at != -1:
        value = _VALUE.match(body, at + len(_KEY))
        start = end = at + len(_KEY)
        if value is not None:
            start, end = value.end(), body.find(b'"', value.end())
        if end - start >= _WORTH_CUTTING and body[end - 1] != ord("\\"):
            pieces += [view[done:start], f"\\u0000cut:{len(cuts)}".encode()]
            cuts.append(view[start:end])
            done = end
        at = body.find(_KEY, max(start, end))
    return (b"".join([*pieces, view[done:]]) if cuts else body), cuts


def _decode_leniently(text: bytes | bytearray, *, is_followed: bool) -> object:
    problem = "empty"
    decode = _first_values if is_followed else json.JSONDecoder(strict=False).decode
    for encoding in (json.detect_encoding(text), "latin-1"):
        try:
            return decode(text.decode(encoding, "surrogatepass"))
        except RecursionError as error:
            raise NotJsonError("JSON nested too deep") from error
        except UnicodeDecodeError:
            continue
        except ValueError as error:
            problem = str(error)
            break
    raise NotJsonError(problem)


def _first_values(text: str) -> object:
    """Return the object or list that a text begins with, a list of them where there are several.

    Behind it stands what a script printed, a second object, a null byte. Raises: ValueError.
    """
    decoder, values, rest = json.JSONDecoder(strict=False), list[object](), text.lstrip()
    while rest.startswith(("{", "[")):
        try:
            value, end = decoder.raw_decode(rest)
        except ValueError:
            if not values:
                raise
            break
        values.append(value)
        rest = rest[end:].lstrip()
    if not values:
        raise ValueError("no JSON object")
    return values[0] if len(values) == 1 else values


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

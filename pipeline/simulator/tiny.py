"""Pictures that cost nothing: one flat colour of the right width and height, filled up to a chosen number of bytes.

In: width, height, type, wished size and a mark that makes each unique. Out: a `Print`. All but the last few bytes are
made once, with their Base64 and their hash, so that an answer of megabytes costs microseconds.
"""

import zlib
from functools import lru_cache
from hashlib import sha256
from io import BytesIO

import pybase64
from PIL import Image

from pipeline.simulator.answers import Print

_MARK_BYTES = 36
_COMMENT_MOST = 65_533  # of one JPEG segment, its length field included


def tiny(width: int, height: int, mime: str, size_bytes: int, mark: bytes) -> Print:
    """Make one picture; the same mark makes the same bytes. Types other than PNG are made as JPEG."""
    mime = "image/png" if mime == "image/png" else "image/jpeg"
    head, head64, hashed, tail = _blank(width, height, mime, size_bytes)
    mark = mark[:_MARK_BYTES].ljust(_MARK_BYTES, b"\0")
    rest = (_chunk(b"maRk", mark) if mime == "image/png" else _comment(mark)) + tail
    hasher = hashed.copy()
    hasher.update(rest)
    return Print(data=head + rest, base64=head64 + pybase64.b64encode(rest), sha256=hasher.hexdigest(), mime=mime)


@lru_cache(maxsize=64)
def _blank(width: int, height: int, mime: str, size_bytes: int):  # type: ignore[no-untyped-def]  # hashlib's class has no public name
    """Return head, its Base64, its hash and the tail; the mark goes between. The head's length divides by three."""
    buffer = BytesIO()
    if mime == "image/png":
        Image.new("1", (width, height), 1).save(buffer, "PNG", optimize=True)
        head, tail = buffer.getvalue()[:33], buffer.getvalue()[33:]  # signature and IHDR
    else:
        Image.new("L", (width, height), 208).save(buffer, "JPEG", quality=20, optimize=True)
        head, tail = buffer.getvalue()[:2], buffer.getvalue()[2:]  # SOI
    missing = max(0, size_bytes - len(head) - len(tail) - _MARK_BYTES - 40)
    head += _filler(mime, missing, len(head))
    return head, pybase64.b64encode(head), sha256(head), tail


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

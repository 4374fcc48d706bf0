"""Bytes of an image -> is the file whole? From the formats' own pages: it shares no mistake with what it checks.

PNG: https://www.w3.org/TR/png-3/#5DataRep; JPEG: https://www.w3.org/Graphics/JPEG/itu-t81.pdf (annex B); WebP:
https://developers.google.com/speed/webp/docs/riff_container
"""

import zlib
from collections.abc import Iterator

SUFFIXES = (".png", ".jpg", ".webp")
_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}


def flaw(data: bytes) -> str | None:
    """Say what is wrong with an image file; None: it is whole."""
    try:
        if data.startswith(_PNG):
            return _png(data)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return None if int.from_bytes(data[4:8], "little") + 8 == len(data) else "WebP of another length"
    except (IndexError, ValueError, zlib.error) as error:
        return f"{type(error).__name__}: {error}"
    return f"no image: {data[:8]!r}"


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if len(body) != length or int.from_bytes(data[at + 8 + length : at + 12 + length]) != zlib.crc32(kind + body):
            raise ValueError(f"chunk {kind!r} is torn")
        yield kind, body
        at += 12 + length


def _png(data: bytes) -> str | None:
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or chunks[-1] != (b"IEND", b""):
        return "PNG without IHDR first and IEND last"
    head = chunks[0][1]
    width, height = int.from_bytes(head[:4]), int.from_bytes(head[4:8])
    row = 1 + (width * head[8] * _CHANNELS[head[9]] + 7) // 8
    pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    is_interlaced = head[12] != 0
    return None if is_interlaced or len(pixels) == row * height else "PNG with too few or too many pixels"


def _jpeg(data: bytes) -> str | None:
    at, has_scan = 2, False
    while True:
        if data[at] != 0xFF:
            return f"JPEG without a marker at {at}"
        kind = data[at + 1]
        at += 2
        if kind == 0xD9:
            return None if has_scan and at == len(data) else "JPEG that ends before its scan, or goes on after its end"
        if kind in _WITHOUT_LENGTH:
            continue
        at += int.from_bytes(data[at : at + 2])
        if kind == 0xDA:
            has_scan = True
            while data[at] != 0xFF or data[at + 1] == 0 or data[at + 1] in _WITHOUT_LENGTH:
                at += 1

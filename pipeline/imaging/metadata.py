"""Removes private metadata from a whole PNG, JPEG or WebP without touching its pixels.

EXIF (places, times, serial numbers), XMP, IPTC and comments go. The colour profile stays, and so does the orientation,
without which the picture would lie on its side.
"""

import zlib
from struct import pack

from pipeline.imaging.formats import jpeg_segments, png_chunks, webp_chunks

_ORIENTATION = 0x0112
_EXIF_HEADER = b"Exif\0\0"
_KEPT_APPS = {0xE0: b"", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}  # JFIF, colour profile, colour transform
_PNG_DROPPED = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"})
_WEBP_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP"})
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04


def strip(data: bytes, mime: str) -> bytes:
    """Return the image without metadata; other kinds come back as they are.

    Raises: BrokenImageError when the image is not whole.
    """
    match mime:
        case "image/jpeg":
            return _strip_jpeg(data)
        case "image/png":
            return _strip_png(data)
        case "image/webp":
            return _strip_webp(data)
        case _:
            return data


def picture_bytes(data: bytes, mime: str) -> bytes:
    """Return what two files share that show the same picture: no metadata, and no header that comes and goes with them.

    No image file. Programs that write a rating drop a JPEG's JFIF header (a density) and give a WebP its VP8X header.
    Raises: BrokenImageError when the image is not whole.
    """
    bare = strip(data, mime)
    match mime:
        case "image/jpeg":
            return b"".join(bare[start:end] for code, start, end in jpeg_segments(bare) if code != 0xE0)
        case "image/webp":
            return b"".join(kind + bare[start:end] for kind, start, end in webp_chunks(bare) if kind != b"VP8X")
        case _:
            return bare


def bare_png(data: bytes) -> bytes:
    """Return a PNG without metadata and without its colour profile; how it lies stays.

    Raises: BrokenImageError when the image is not whole.
    """
    return _strip_png(data, _PNG_DROPPED | {b"iCCP"})


def orientation(exif: bytes) -> int:
    """Return how an EXIF block says the picture lies, 1 to 8; 1 (upright) when it does not say."""
    tiff = exif.removeprefix(_EXIF_HEADER)
    if tiff[:2] not in (b"II", b"MM"):
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if tiff[:2] == b"II" else "big")

    start = number(4, 4)
    for entry in range(start + 2, min(start + 2 + 12 * number(start, 2), len(tiff) - 11), 12):
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _only_orientation(value: int) -> bytes:
    """Return the smallest EXIF block that says how the picture lies."""
    return b"MM\0*" + pack(">IHHHIHHI", 8, 1, _ORIENTATION, 3, 1, value, 0, 0)


def _strip_jpeg(data: bytes) -> bytes:
    kept, lies, view, end = [], 1, memoryview(data), 2
    for code, start, end in jpeg_segments(data):
        content = bytes(view[start + 4 : start + 32])
        if code == 0xE1 and content.startswith(_EXIF_HEADER):
            lies = orientation(data[start + 4 : end])
        is_app = 0xE0 <= code <= 0xEF
        if (is_app and content.startswith(_KEPT_APPS.get(code, b"\0no"))) or not (is_app or code == 0xFE):
            kept.append(view[start:end])
    if lies != 1:
        block = _EXIF_HEADER + _only_orientation(lies)
        after_jfif = 1 if kept and kept[0][1] == 0xE0 else 0
        kept.insert(after_jfif, memoryview(b"\xff\xe1" + pack(">H", len(block) + 2) + block))
    return b"".join([b"\xff\xd8", *kept])


def _strip_png(data: bytes, dropped: frozenset[bytes] = _PNG_DROPPED) -> bytes:
    kept, lies, view = [memoryview(data)[:8]], 1, memoryview(data)
    for kind, start, end in png_chunks(data):
        if kind == b"eXIf":
            lies = orientation(data[start:end])
        elif kind not in dropped:
            kept.append(view[start - 8 : end + 4])
    if lies != 1:
        block = b"eXIf" + _only_orientation(lies)
        whole = pack(">I", len(block) - 4) + block + pack(">I", zlib.crc32(block))
        kept.insert(2, memoryview(whole))  # after the header
    return b"".join(kept)


def _strip_webp(data: bytes) -> bytes:
    kept, lies, flags_at, size = [], 1, None, 12
    for kind, start, end in webp_chunks(data):
        if kind == b"EXIF":
            lies = orientation(data[start:end])
        elif kind in _WEBP_KEPT:
            flags_at = size + 8 if kind == b"VP8X" else flags_at
            kept.append(data[start - 8 : end] + b"\0" * (end % 2))
            size += len(kept[-1])
    if lies != 1:
        block = _only_orientation(lies)
        kept.append(b"EXIF" + pack("<I", len(block)) + block)
        size += len(kept[-1])
    whole = bytearray(b"".join([b"RIFF", pack("<I", size - 8), b"WEBP", *kept]))
    if flags_at is not None:
        whole[flags_at] = whole[flags_at] & ~(_WEBP_EXIF | _WEBP_XMP) | (_WEBP_EXIF if lies != 1 else 0)
    return bytes(whole)

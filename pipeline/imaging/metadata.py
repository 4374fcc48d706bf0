"""Metadata in a whole PNG, JPEG or WebP: removes what is private, embeds a record of how the image was made, reads it.

The compressed picture is copied byte for byte. EXIF (places, times, serial numbers), XMP, IPTC and comments can be
removed; the colour profile stays, and so does the orientation, without which the picture would lie on its side. The
record is an XMP packet: it marks the picture as made by a trained model (IPTC Digital Source Type) and carries JSON
beside what others wrote there. A C2PA signature covers a file's bytes and would be invalid afterwards: a signed file is
left as it is, and its record is written to a file beside it (`sidecar`), as is one that a JPEG has no room for.
"""

import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from html import escape, unescape

from pipeline.imaging.formats import PNG_MAGIC, Bytes, jpeg_segments, png_chunks, sniff, webp_chunks
from pipeline.model import Sidecar

Chunk = tuple[bytes, bytes]  # kind and content
_ORIENTATION, _LONG = 0x0112, 4  # a tag of EXIF, and the type of 32 bits that some give it instead of 16
_EXIF_HEADER = b"Exif\0\0"
_KEPT_APPS = {0xE0: b"", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}  # JFIF, colour profile, colour transform
_PNG_KEPT = frozenset(  # PNG specification 3, 4.7: what the picture looks like; editors put whole originals into others
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD hIST pHYs sPLT acTL fcTL fdAT".split()
)
_WEBP_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF"})
_WEBP_EXIF, _WEBP_XMP, _WEBP_ALPHA = 0x08, 0x04, 0x10  # flags of VP8X; WebP container specification


# -- removal -----------------------------------------------------------------------------------------------------------


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
    return _strip_png(data, _PNG_KEPT - {b"iCCP"})


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
            value = number(entry + 8, 4 if number(entry + 2, 2) == _LONG else 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _only_orientation(value: int) -> bytes:
    """Return the smallest EXIF block that says how the picture lies."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, _ORIENTATION, 3, 1, value, 0, 0)


def orientation_of(data: bytes, mime: str) -> int:
    """Return how a whole JPEG, PNG or WebP lies, 1 (upright) to 8, by the last EXIF block that it holds.

    Raises: BrokenImageError where its container cannot be walked.
    """
    match mime:
        case "image/jpeg":
            blocks = [data[at + 4 : end] for code, at, end in jpeg_segments(data, scans=False) if code == 0xE1]
            blocks = [block for block in blocks if block.startswith(_EXIF_HEADER)]
        case "image/png":
            blocks = [data[at:end] for kind, at, end in png_chunks(data, verify=False) if kind == b"eXIf"]
        case _:
            blocks = [data[at:end] for kind, at, end in webp_chunks(data) if kind == b"EXIF"]
    return orientation(blocks[-1]) if blocks else 1


def _strip_jpeg(data: bytes) -> bytes:
    kept, turned, view = [], orientation_of(data, "image/jpeg"), memoryview(data)
    for code, start, end in jpeg_segments(data):
        content = bytes(view[start + 4 : start + 32])
        is_app = 0xE0 <= code <= 0xEF
        if (is_app and content.startswith(_KEPT_APPS.get(code, b"\0no"))) or not (is_app or code == 0xFE):
            kept.append(view[start:end])
    if turned != 1:
        block = _EXIF_HEADER + _only_orientation(turned)
        after_jfif = 1 if kept and kept[0][1] == 0xE0 else 0
        kept.insert(after_jfif, memoryview(_jpeg_segment(b"\xe1", block)))
    return b"".join([b"\xff\xd8", *kept])


def _strip_png(data: bytes, copied: frozenset[bytes] = _PNG_KEPT) -> bytes:
    kept, turned, view = [memoryview(data)[:8]], orientation_of(data, "image/png"), memoryview(data)
    kept += [view[start - 8 : end + 4] for kind, start, end in png_chunks(data) if kind in copied]
    if turned != 1:
        kept.insert(2, memoryview(_png_chunk(b"eXIf", _only_orientation(turned))))  # after the header
    return b"".join(kept)


def _strip_webp(data: bytes) -> bytes:
    turned = orientation_of(data, "image/webp")
    kept = [(kind, data[start:end]) for kind, start, end in webp_chunks(data) if kind in _WEBP_KEPT]
    if turned != 1:
        kept.append((b"EXIF", _only_orientation(turned)))
    flag = 0 if turned == 1 else _WEBP_EXIF
    return _webp(
        (kind, bytes([body[0] & ~(_WEBP_EXIF | _WEBP_XMP) | flag]) + body[1:] if kind == b"VP8X" and body else body)
        for kind, body in kept
    )


# -- the record as XMP -------------------------------------------------------------------------------------------------

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OURS = "urn:x-imgpipe:1.0#"
# IPTC Photo Metadata Standard, Digital Source Type
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_MARK = _OURS.encode()  # stands in whatever carries a record of ours
_HEAD = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'  # XMP specification part 1, 7.3.2
_TAIL = '<?xpacket end="w"?>'
_END = "</rdf:RDF>"
_BLOCK = re.compile(  # as we write it, and nothing that another program wrote into it
    rf'<rdf:Description rdf:about="[^"]*" xmlns:imgpipe="{re.escape(_OURS)}"[^>]*>'
    r"(?:<Iptc4xmpExt:DigitalSourceType>[^<]*</Iptc4xmpExt:DigitalSourceType>)?"
    r"(?:<imgpipe:Record>[^<]*</imgpipe:Record>)?"
    r"</rdf:Description>"
)
# As elements and as attributes: photo programs write the whole packet anew, ExifTool with single quotes.
_RECORD = re.compile(r"<imgpipe:Record>([^<]*)</imgpipe:Record>|\simgpipe:Record=(?:\"([^\"]*)\"|'([^']*)')")
_ABOUT = re.compile(r"\srdf:about=(?:\"([^\"]*)\"|'([^']*)')")


def _packet(body: str, existing: bytes | None = None) -> bytes:
    """Return a packet with our block; the statements of `existing` stay, an earlier block of ours does not."""
    text = "" if existing is None else _RECORD.sub("", _BLOCK.sub("", existing.decode("utf-8", "replace")))
    place = text.rfind(_END)
    if place < 0:
        return (_HEAD + _tree(_description("", body)) + _TAIL).encode()
    return (text[:place] + _description(text, body) + text[place:]).encode()


def _read_packet(found: bytes) -> dict[str, object] | None:
    """Return the record of a packet; None when there is none of ours."""
    match = _RECORD.search(found.decode("utf-8", "replace"))
    if match is None:
        return None
    try:
        record = json.loads(unescape(_value(match)))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _value(match: re.Match[str]) -> str:
    """Return what the one group of a pattern found that took part."""
    return str(match[match.lastindex or 0])


def _description(around: str, body: str) -> str:
    """Return our block: it is about the same picture as the packet around it, and repeats no statement of it."""
    found = _ABOUT.search(around)
    about = "" if found is None else _value(found).replace('"', "&quot;")
    spaces = f'xmlns:imgpipe="{_OURS}" xmlns:Iptc4xmpExt="{_IPTC}"'
    is_said = "DigitalSourceType" in around
    source = f"<Iptc4xmpExt:DigitalSourceType>{_SOURCE}</Iptc4xmpExt:DigitalSourceType>"
    return f'<rdf:Description rdf:about="{about}" {spaces}>{"" if is_said else source}{body}</rdf:Description>'


def _record(record: dict[str, object]) -> str:
    """Return the record as ASCII JSON, so that no control character needs XML's consent."""
    text = json.dumps(record, separators=(",", ":"), sort_keys=True)
    return f"<imgpipe:Record>{escape(text, quote=False)}</imgpipe:Record>"


def _tree(description: str) -> str:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">{description}{_END}</x:xmpmeta>'


# -- the record in a file ----------------------------------------------------------------------------------------------

_PNG_KEY = b"XML:com.adobe.xmp\0"
_JPEG_KEY = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_ROOM = 65_533 - len(_JPEG_KEY)  # of one APP1 segment; XMP specification part 3, 1.1.3
_MOST_TEXT = 16 * 2**20  # of a compressed packet, unpacked


def embed(data: bytes, mime: str, record: dict[str, object]) -> bytes:
    """Return the image with the record in it, in place of an earlier one.

    Raises ValueError when the bytes are not a whole image of that type, or a JPEG has no room for the record.
    """
    try:
        match mime:
            case "image/png":
                return _embed_png(data, record)
            case "image/jpeg":
                return _embed_jpeg(data, record)
            case "image/webp":
                return _embed_webp(data, record)
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a whole {mime}") from error
    raise ValueError(f"no place for a record in {mime}")


def is_signed(data: Bytes) -> bool:
    """Whether a C2PA manifest stands in the file; whether it fits is for a verifier to say.

    PNG `caBX`, JPEG APP11 with a JUMBF box of kind `c2pa`, WebP `C2PA`: C2PA specification 2.1, appendix A.
    """
    try:
        match sniff(bytes(data[:12]))[0]:
            case "image/png":
                return any(kind == b"caBX" for kind, _, _ in png_chunks(data, verify=False))
            case "image/jpeg":
                segments = jpeg_segments(data, scans=False)
                apps = (bytes(data[at + 4 : min(end, at + 260)]) for code, at, end in segments if code == 0xEB)
                return any(head[:2] == b"JP" and b"c2pa" in head for head in apps)
            case "image/webp":
                return any(kind == b"C2PA" for kind, _, _ in webp_chunks(data))
    except (ValueError, struct.error, IndexError):
        pass
    return False


def sidecar(record: dict[str, object]) -> Sidecar:
    """Return the record as a file of its own: an XMP packet, as photo programs keep it beside an image."""
    return Sidecar(data=_packet(_record(record)), mark=_MARK)


def made_by_model() -> bytes:
    """Return an XMP packet that says nothing but that a model made the picture."""
    return _packet("")


def extract(data: bytes) -> dict[str, object] | None:
    """Return the record of an image; None when it has none, or is none."""
    try:
        packets = list(_packets(data))
    except (ValueError, struct.error, IndexError):
        return None
    if not packets and data.lstrip().startswith(b"<?xpacket"):  # a file beside an image
        packets = [data]
    return next((record for found in packets if (record := _read_packet(found)) is not None), None)


def _packets(data: bytes) -> Iterator[bytes]:
    match sniff(data)[0]:
        case "image/png":
            found = (_png_packet(kind, data[start:end]) for kind, start, end in png_chunks(data, verify=False))
            yield from (text for text in found if text is not None)
        case "image/jpeg":
            segments, _ = _jpeg_segments(data)
            yield from (body[len(_JPEG_KEY) :] for _, body in segments if body.startswith(_JPEG_KEY))
        case "image/webp":
            yield from (data[start:end] for kind, start, end in webp_chunks(data) if kind == b"XMP ")


def _embed_png(data: bytes, record: dict[str, object]) -> bytes:
    """Put the packet before the picture's data, where readers look for it first."""
    if not data.startswith(PNG_MAGIC):
        raise ValueError("not a PNG")
    existing: bytes | None = None
    out: list[bytes] = [PNG_MAGIC]
    place, end = 0, 0
    for kind, start, end in png_chunks(data, verify=False):
        found = _png_packet(kind, data[start:end])
        if found is not None:
            existing = found
            continue
        if kind == b"IDAT" and place == 0:
            place = len(out)
        out.append(data[start - 8 : end + 4])
    if place == 0:
        raise ValueError("not a whole PNG")
    out.insert(place, _png_chunk(b"iTXt", _PNG_KEY + b"\0\0\0\0" + _packet(_record(record), existing)))
    return b"".join(out) + data[end + 4 :]


def _png_packet(kind: bytes, body: bytes) -> bytes | None:
    """Return the XMP packet of an iTXt chunk; None when it is another chunk."""
    if kind != b"iTXt" or not body.startswith(_PNG_KEY):
        return None
    is_compressed = body[len(_PNG_KEY)] == 1
    *_, text = body[len(_PNG_KEY) + 2 :].split(b"\0", 2)
    if not is_compressed:
        return text
    try:
        return zlib.decompressobj().decompress(text, _MOST_TEXT)
    except zlib.error:
        return b""


def _embed_jpeg(data: bytes, record: dict[str, object]) -> bytes:
    """Put the packet behind the JFIF and Exif segments."""
    segments, rest = _jpeg_segments(data)
    existing = next((body[len(_JPEG_KEY) :] for _, body in segments if body.startswith(_JPEG_KEY)), None)
    kept = [(kind, body) for kind, body in segments if not body.startswith(_JPEG_KEY)]
    packet = _packet(_record(record), existing)
    if len(packet) > _JPEG_ROOM:
        raise ValueError("a JPEG takes 64 KB of XMP")
    place = 0
    while place < len(kept) and (kept[place][0] == b"\xe0" or kept[place][1].startswith(b"Exif\0")):
        place += 1
    kept.insert(place, (b"\xe1", _JPEG_KEY + packet))
    return b"\xff\xd8" + b"".join(_jpeg_segment(kind, body) for kind, body in kept) + rest


def _jpeg_segments(data: bytes) -> tuple[list[Chunk], bytes]:
    """Return the segments before the first that is not application data or a comment, and everything from there on."""
    if not data.startswith(b"\xff\xd8\xff"):
        raise ValueError("not a JPEG")
    segments: list[Chunk] = []
    for code, start, end in jpeg_segments(data):
        if not (0xE0 <= code <= 0xEF or code == 0xFE):
            return segments, data[start:]
        segments.append((bytes([code]), data[start + 4 : end]))
    raise ValueError("not a whole JPEG")


def _embed_webp(data: bytes, record: dict[str, object]) -> bytes:
    """Put the packet at the end, as the container has it, and set its flag in the VP8X chunk, made where missing."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("not a WebP")
    chunks = [(kind, data[start:end]) for kind, start, end in webp_chunks(data)]
    existing = next((body for kind, body in chunks if kind == b"XMP "), None)
    kept = [(kind, body) for kind, body in chunks if kind != b"XMP "]
    if not kept:
        raise ValueError("not a whole WebP")
    if kept[0][0] == b"VP8X":
        flags = kept[0][1]
        kept[0] = (b"VP8X", bytes([flags[0] | _WEBP_XMP]) + flags[1:])
    else:
        kept.insert(0, (b"VP8X", _vp8x(*kept[0])))
    kept.append((b"XMP ", _packet(_record(record), existing)))
    return _webp(kept)


def _vp8x(kind: bytes, body: bytes) -> bytes:
    """Return the extended header of a simple file: flags, then width - 1 and height - 1 in 24 bits each."""
    if kind == b"VP8 ":
        sides: tuple[int, int] = struct.unpack_from("<HH", body, 6)
        width, height, has_alpha = sides[0] & 0x3FFF, sides[1] & 0x3FFF, False
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        has_alpha = bool(bits >> 28 & 1)
    else:
        raise ValueError("not a whole WebP")
    flags = _WEBP_XMP | (_WEBP_ALPHA if has_alpha else 0)
    return b"".join((struct.pack("<I", flags), *((side - 1).to_bytes(3, "little") for side in (width, height))))


# -- pieces of containers ----------------------------------------------------------------------------------------------


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _jpeg_segment(kind: bytes, body: bytes) -> bytes:
    return b"\xff" + kind + struct.pack(">H", len(body) + 2) + body


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _webp(chunks: Iterable[Chunk]) -> bytes:
    return _webp_chunk(b"RIFF", b"WEBP" + b"".join(_webp_chunk(kind, body) for kind, body in chunks))

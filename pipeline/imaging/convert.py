"""Makes an image of another format, size or colour space: for the API, and for `deliver`.

`convert` takes what decoders read and makes PNG or JPEG that the API takes: upright, eight bits a channel, the same
bytes for the same input and limits. `rendition` is for people: it never enlarges, and what needs no change comes back
byte for byte. `convert` runs in a child process (`decoder`), whose memory and time are limited.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from math import sqrt
from typing import Any

from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from pipeline.imaging.formats import FORMATS, BrokenImageError, NotAnImageError, opened
from pipeline.imaging.metadata import bare_png, embed, extract, is_signed, made_by_model, strip

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")  # never EPS: it runs programs
_LOSSLESS = frozenset({"PNG", "TIFF", "BMP", "GIF"})
_PNG_PIXELS = 4_000_000  # larger opaque pictures become JPEG: a PNG of them passes the byte limit anyway
_JPEG_PIXELS = 256_000_000  # of a JPEG, which can be read at an eighth of its size
_PIXELS = 130_000_000  # of other kinds, which are decoded whole
_QUALITIES = (95, 90, 85)
_JPEG_XMP_BYTES = 65_000  # one segment has room for so much
_CAMERA_TAGS = frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298})  # description to copyright
_BITS, _PLANES = 0x0102, 0x011C  # of a TIFF; Pillow 13 reads planes of 16 bits as planes of 8, another picture
_SUBFILE, _DNG_VERSION = 0x00FE, 0xC612  # of a TIFF: bit 0 of the first says that it is a smaller copy of another one
_CAMERA_DIRECTORIES = frozenset({0x8769, 0x8825})  # EXIF, GPS
_NO_COMMENT = {"comment": b""}  # Pillow writes that of the source into a JPEG, also one of a PNG or GIF


class UnreadableError(Exception):
    """The picture cannot be read; the text says why."""


class OutOfMemoryError(Exception):
    """The picture takes more memory than there is here; it may be whole."""


def convert(data: bytes, most_bytes: int, most_pixels: int, keep_metadata: bool) -> tuple[str, bytes]:
    """Return media type and bytes of the picture's first frame, scaled down until it fits.

    Raises: UnreadableError, OutOfMemoryError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _convert_anyhow(data, most_bytes, most_pixels, keep_metadata)
    except MemoryError as error:
        raise OutOfMemoryError("cannot be converted here: it takes too much memory") from error
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError("not a picture of a kind that can be read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"too many pixels; at most {_PIXELS:,} are read, {_JPEG_PIXELS:,} of a JPEG") from error
    except Exception as error:  # decoders raise whatever they like; the task's reason shows it
        raise UnreadableError(f"damaged or not readable: {type(error).__name__}: {error}") from None


def _convert_anyhow(data: bytes, most_bytes: int, most_pixels: int, keep_metadata: bool) -> tuple[str, bytes]:
    """Convert a picture; a PNG whose profile, texts or EXIF the decoder refuses, without those."""
    try:
        return _convert(data, most_bytes, most_pixels, keep_metadata)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise
    except Exception:  # the second try tells what is wrong with the pixels
        if not data.startswith(b"\x89PNG"):
            raise
        try:
            bare = bare_png(data)
        except BrokenImageError:
            bare = data
        if bare == data:
            raise
        return _convert(bare, most_bytes, most_pixels, keep_metadata)


def _convert(data: bytes, most_bytes: int, most_pixels: int, keep_metadata: bool) -> tuple[str, bytes]:
    is_jpeg = data.startswith(b"\xff\xd8\xff")
    Image.MAX_IMAGE_PIXELS = _JPEG_PIXELS if is_jpeg else _PIXELS
    with Image.open(io.BytesIO(data), formats=_formats()) as opened:
        kind = opened.format or ""
        if kind == "TIFF":
            _check_tiff(opened.tag_v2)  # type: ignore[attr-defined]
        if opened.width * opened.height > most_pixels:
            opened.draft(opened.mode, _fit(opened.size, most_pixels))
        opened.load()
        kept: dict[str, Any] = {"exif": _camera_exif(opened)} if keep_metadata else {**_NO_COMMENT}
        ImageOps.exif_transpose(opened, in_place=True)  # a copy of the largest pictures takes half a gigabyte
    picture = eight_bits(opened)
    if picture.width * picture.height > most_pixels:
        picture = picture.resize(_fit(picture.size, most_pixels), Image.Resampling.LANCZOS)
    profile = picture.info.pop("icc_profile", None)
    if profile:  # models see the numbers of pixels, and not the colours that a profile says they are
        picture = in_srgb(picture, profile)
    return _encode(picture, kind, most_bytes, kept)


def _check_tiff(tags: Mapping[int, Any]) -> None:
    """Refuse a TIFF of which another picture would be read. Raises UnreadableError.

    In RAW files of cameras (DNG, NEF, ARW) the first picture is a preview, often of 160 x 120 pixels.
    """
    if tags.get(_SUBFILE, 0) & 1 or _DNG_VERSION in tags:
        raise UnreadableError("a camera's RAW file, of which only a preview can be read: export it as JPEG or TIFF")
    if tags.get(_PLANES) == 2 and max(tags.get(_BITS, (1,))) > 8:
        raise UnreadableError("a TIFF of separate planes is read with 8 bits only: save it interleaved")


def _camera_exif(opened: Image.Image) -> bytes:
    """Return EXIF of the camera, without what describes the file itself and without the orientation, now applied."""
    written, kept = opened.getexif(), Image.Exif()
    for tag in _CAMERA_TAGS & written.keys():
        kept[tag] = written[tag]
    for directory in _CAMERA_DIRECTORIES & written.keys():
        kept[directory] = written.get_ifd(directory)
    return kept.tobytes()


def _formats() -> tuple[str, ...]:
    if find_spec("pillow_heif") is None:
        return _FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*_FORMATS, "HEIF")


def _fit(size: tuple[int, int], most_pixels: float) -> tuple[int, int]:
    factor = min(1.0, sqrt(most_pixels / (size[0] * size[1])))
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def eight_bits(picture: Image.Image) -> Image.Image:
    """Return the picture as L, RGB or RGBA; one of grays or inks that has a profile in the colours of screens."""
    if picture.mode == "L" and "transparency" in picture.info:
        picture = picture.convert("LA")
    match picture.mode:
        case "L" | "LA" | "CMYK" if profile := picture.info.pop("icc_profile", None):  # it fits no picture of RGB
            return in_srgb(picture, profile)
        case "L" | "RGB" | "RGBA":
            return picture.convert("RGBA") if "transparency" in picture.info else picture
        case "1":
            return eight_bits(picture.convert("L"))
        case "P" | "PA" | "LA" | "La" | "RGBa":
            is_opaque = picture.mode == "P" and "transparency" not in picture.info
            return picture.convert("RGB" if is_opaque else "RGBA")
        case mode if mode.startswith("I") or mode == "F":
            return eight_bits(_scaled(picture))
        case _:
            return picture.convert("RGB")


def _scaled(picture: Image.Image) -> Image.Image:
    """Return more than eight bits as eight: 16 bits by their upper half, fractions of 1, else from least to most."""
    is_sixteen = picture.mode.startswith("I;16")
    wide = picture.convert("F")
    low, high = wide.getextrema()
    assert isinstance(low, float)
    assert isinstance(high, float)
    if is_sixteen or (low >= 0 and 255 < high <= 65_535):
        low, high = 0.0, 65_535.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0  # 1 is white where pixels are fractions
    factor = 255.0 / (high - low) if high > low else 0.0
    return wide.point(lambda value: value * factor + (-low * factor + 0.5)).convert("L")


def _encode(picture: Image.Image, kind: str, most_bytes: int, kept: dict[str, Any]) -> tuple[str, bytes]:
    """Try the best quality first, then less of it, then fewer pixels."""
    while True:
        is_small = picture.width * picture.height <= _PNG_PIXELS
        data = b""
        for mime, data in _encodings(picture, kind in _LOSSLESS and is_small, kept):
            if len(data) <= most_bytes:
                return mime, data
        if picture.size == (1, 1):
            raise UnreadableError(f"cannot be made smaller than {most_bytes} bytes")
        fewer = picture.width * picture.height * min(0.9 * most_bytes / len(data), 0.8)
        picture = picture.resize(_fit(picture.size, fewer), Image.Resampling.LANCZOS)


def _encodings(picture: Image.Image, is_lossless: bool, kept: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    if picture.mode == "RGBA" or is_lossless:
        yield "image/png", _saved(picture, "PNG", kept)
    if picture.mode != "RGBA":
        for quality in _QUALITIES:
            yield "image/jpeg", _saved(picture, "JPEG", {**kept, "quality": quality, "subsampling": 0})


def _saved(picture: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def rendition(
    data: bytes, *, kind: str | None, quality: int, max_side: int | None, is_srgb: bool, is_stripped: bool
) -> tuple[bytes, str]:
    """Return the image as asked, upright, and its media type; `kind` None: the one it has. Raises NotAnImageError."""
    try:
        with opened(data) as source:
            made = "JPEG" if source.format == "MPO" else source.format or ""  # with a second picture behind the first
            wanted = made if kind is None else kind.upper()
            mime, _ = FORMATS[wanted]
            is_small = max_side is None or max(source.size) <= max_side
            is_as_asked = not is_srgb or not (source.info.get("icc_profile") or source.mode == "CMYK")
            if wanted == made and is_small and is_as_asked:
                return (strip(data, mime) if is_stripped else data), mime
            upright = ImageOps.exif_transpose(source)
        kept: dict[str, Any] = {**_NO_COMMENT} if is_stripped else _kept(upright, data)
        picture = eight_bits(upright)  # also because colours of a palette cannot be mixed
        kept["icc_profile"] = picture.info.get("icc_profile")
        if is_srgb and kept["icc_profile"]:
            picture, kept["icc_profile"] = in_srgb(picture, kept["icc_profile"]), None
        if not is_small and max_side is not None:
            picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        encoded, record = _encoded(picture, wanted, quality, kept), None if is_stripped else extract(data)
        if record is not None:
            with contextlib.suppress(ValueError):  # a JPEG has no room for a long one
                encoded = embed(encoded, mime, record)
        return encoded, mime
    except UnidentifiedImageError as error:
        raise NotAnImageError("not a whole PNG, JPEG or WebP image") from error
    except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError) as error:
        raise NotAnImageError(str(error)) from error


def _kept(picture: Image.Image, data: bytes) -> dict[str, Any]:
    """Return its EXIF and XMP; a picture whose signature is lost still says that a model made it."""
    xmp = picture.info.get("xmp") or (made_by_model() if is_signed(data) else b"")
    return {"exif": picture.getexif() or b"", "xmp": xmp}


def in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Return the picture in the colours of screens; with a profile that cannot be used as browsers show it."""
    if picture.mode == "LA":
        seen = in_srgb(picture.getchannel("L"), profile)
        seen.putalpha(picture.getchannel("A"))
        return seen
    if picture.mode not in ("RGB", "RGBA", "L", "CMYK"):
        picture = picture.convert("RGB")
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    converted = None
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
        screen = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, io.BytesIO(profile), screen, outputMode=mode)
    picture = picture.convert(mode) if converted is None else converted
    picture.info.pop("icc_profile", None)  # that of sRGB, dated now
    return picture


def _encoded(picture: Image.Image, kind: str, quality: int, kept: dict[str, Any]) -> bytes:
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        if kept.get("xmp"):
            texts.add_itxt("XML:com.adobe.xmp", kept["xmp"].decode("utf-8", "replace"))
        return _saved(picture, kind, {**kept, "pnginfo": texts})
    if kind == "WEBP":
        return _saved(picture, kind, {**kept, "quality": quality})
    if len(kept.get("xmp", b"")) > _JPEG_XMP_BYTES:
        kept["xmp"] = made_by_model()
    picture = _on_white(picture)
    options = {**kept, "quality": quality, "subsampling": 0 if quality >= 90 else 2}
    made = _saved(picture, kind, options)
    is_smooth = len(made) < picture.width * picture.height  # optimizing takes a buffer, of that many bytes in Pillow
    return _saved(picture, kind, {**options, "optimize": True}) if is_smooth else made


def _on_white(picture: Image.Image) -> Image.Image:
    """JPEG has no transparency: what is seen through is white."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    ground = Image.new("RGBA", seen.size, "white")
    ground.alpha_composite(seen)
    return ground.convert("RGB")

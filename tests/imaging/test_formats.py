"""Whole images of every kind, as real encoders write them."""

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from pipeline.imaging.formats import (
    _PIECE_BYTES,
    _SMALL_CHUNK_BYTES,
    BrokenImageError,
    describe,
    inspect,
    measure,
    sniff,
)


@pytest.mark.parametrize(
    ("kind", "mode", "options", "mime"),
    [
        ("PNG", "RGB", {}, "image/png"),
        ("PNG", "P", {}, "image/png"),
        ("PNG", "RGBA", {"optimize": True}, "image/png"),
        ("JPEG", "RGB", {}, "image/jpeg"),
        ("JPEG", "L", {}, "image/jpeg"),
        ("JPEG", "RGB", {"progressive": True}, "image/jpeg"),
        ("JPEG", "RGB", {"restart_marker_blocks": 1}, "image/jpeg"),
        ("JPEG", "RGB", {"quality": 100, "subsampling": 0, "optimize": True}, "image/jpeg"),
        ("JPEG", "CMYK", {}, "image/jpeg"),
        ("WEBP", "RGB", {}, "image/webp"),
        ("WEBP", "RGB", {"lossless": True}, "image/webp"),
        ("WEBP", "RGBA", {}, "image/webp"),
        ("WEBP", "RGB", {"icc_profile": b"x" * 127}, "image/webp"),
    ],
    ids=str,
)
def test_real_images_are_whole(pictures, kind, mode, options, mime):
    data = pictures.saved(kind, mode, (37, 21), **options)
    image = inspect(data)
    assert (image.mime, image.width, image.height) == (mime, 37, 21)
    assert inspect(data + b"trailing").width == 37  # phones append things


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "not a PNG", id="H55-empty"),
        pytest.param(b"GIF89a" + b"\0" * 30, "image/gif", id="H57-gif"),
        pytest.param(b"\0\0\0\x1cftypheic" + b"\0" * 30, "image/heic", id="H57-heic"),
        pytest.param(b"\0\0\0\x1cftypavif" + b"\0" * 30, "image/avif", id="H57-avif"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "octet-stream", id="H57-svg"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "without IEND", id="H58-magic-only"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\4CgBIP\0 \2+\xd5\xb3\x7f", "Xcode", id="png-of-an-app"),
        pytest.param(b"\xff\xd8\xff\xd9", "without pixels", id="H58-jpeg-empty"),
        pytest.param(b"\xff\xd8\xff\xe0\x00\x04ab!!\xff\xd9", "between its markers", id="H58-jpeg-junk"),
        pytest.param(b"RIFF\x0c\0\0\0WEBPVP8 \0\0\0\0", "without pixels", id="H58-webp-empty"),
        pytest.param(b"RIFF\xff\xff\xff\xffWEBPVP8 \0\0\0\0", "that says", id="H58-webp-short"),
    ],
)
def test_what_is_not_whole_says_why(data, says):
    with pytest.raises(BrokenImageError, match=says):
        inspect(data)


PIECE, SMALL = _PIECE_BYTES, _SMALL_CHUNK_BYTES


@pytest.mark.parametrize("size", [0, 1, PIECE, 2 * PIECE - 4, 2 * PIECE, 3 * PIECE, 5 * PIECE + 7, SMALL - 4, SMALL])
def test_h58_a_chunk_of_any_size_is_proven_to_its_last_byte(pictures, size):
    whole, content = pictures.png(), random.Random(size).randbytes(size)
    chunk = struct.pack(">I", size) + b"teSt" + content + struct.pack(">I", zlib.crc32(b"teSt" + content))
    at = whole.index(b"IDAT") - 4
    assert inspect(whole[:at] + chunk + whole[at:]).width == 16
    for spoiled in {8, 8 + size // 3, 8 + size // 2, 8 + size - 1, 8 + size}:
        damaged = bytearray(chunk)
        damaged[spoiled] ^= 1
        with pytest.raises(BrokenImageError, match="damaged"):
            inspect(whole[:at] + damaged + whole[at:])


def test_a_png_without_size_is_no_image(pictures):
    with pytest.raises(BrokenImageError, match="0x5 pixels"):
        inspect(pictures.png(0, 5))


def test_h59_the_limit_is_64_megapixels(pictures):
    assert inspect(pictures.png(8000, 8000, rows=b"")).width == 8000
    with pytest.raises(BrokenImageError, match="8001x8000"):
        inspect(pictures.png(8001, 8000, rows=b""))


@pytest.mark.parametrize(
    ("kind", "mode", "options", "is_plain"),
    [
        ("JPEG", "CMYK", {}, False),
        ("JPEG", "RGB", {}, True),
        ("PNG", "I;16", {}, False),
        ("PNG", "P", {}, True),
        ("PNG", "RGB", {"save_all": True, "append_images": [0]}, False),
        ("WEBP", "RGB", {"save_all": True, "append_images": [0]}, False),
    ],
    ids=str,
)
def test_plain_images_need_no_conversion(pictures, kind, mode, options, is_plain):
    if "append_images" in options:
        options = options | {"append_images": [pictures.drawn().rotate(180)]}
    assert measure(pictures.saved(kind, mode, **options)).is_plain is is_plain


def test_i03_the_kind_is_that_of_the_bytes(pictures):
    kinds = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tiff"}
    assert {kind: sniff(pictures.saved(kind))[1] for kind in kinds} == kinds


@pytest.mark.parametrize("decode", [False, True])
def test_p1_what_was_whole_when_it_came_is_described_later(pictures, decode):
    picture = Image.new("RGB", (9, 5), "red")
    out = io.BytesIO()
    picture.save(out, "MPO", save_all=True, append_images=[picture])  # as HDR photographs are built
    followed = pictures.saved("PNG", "RGB", (9, 5)) + b"x" * 5000
    for data in (out.getvalue(), followed):
        assert describe(data, decode=decode) == inspect(data)


def test_p1_odd_metadata_makes_no_other_image_of_it(pictures):
    png = pictures.saved("PNG", "RGB", (9, 5))
    chunk = b"gAMA\0"  # of which Pillow wants four bytes
    odd = png[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
    assert describe(odd) == inspect(odd)

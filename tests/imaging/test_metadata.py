"""What a camera tells: gone, with every pixel where it was."""

import io

import pytest
from PIL import Image, ImageChops, ImageOps

from pipeline.imaging.metadata import orientation, strip

SECRET = b"48.8584N 2.2945E"


def exif(value=None):
    tags = Image.Exif()
    tags[0x010E] = SECRET.decode()
    if value is not None:
        tags[0x0112] = value
    tags.get_ifd(0x8825)[1] = "N"
    return tags.tobytes()


def opened(data):
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def same_picture(before, after):
    one, two = (ImageOps.exif_transpose(opened(data)).convert("RGBA") for data in (before, after))
    return one.size == two.size and ImageChops.difference(one, two).getbbox(alpha_only=False) is None


KINDS = [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")]


@pytest.mark.parametrize(("kind", "mime"), KINDS)
@pytest.mark.parametrize("value", [None, *range(1, 9)])
def test_i13_places_are_gone_and_the_picture_lies_as_it_did(pictures, kind, mime, value):
    data = pictures.saved(kind, exif=exif(value), icc_profile=b"p" * 200)
    assert SECRET in data
    stripped = strip(data, mime)
    assert SECRET not in stripped
    assert same_picture(data, stripped)
    assert opened(stripped).info.get("icc_profile") == b"p" * 200
    assert opened(stripped).getexif().get(0x0112) == (value if value not in (None, 1) else None)
    assert strip(stripped, mime) == stripped


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_i13_xmp_and_comments_are_gone(pictures, kind):
    options = {"xmp": b"<x:xmpmeta>" + SECRET} | ({"comment": SECRET} if kind == "JPEG" else {})
    data = pictures.saved(kind, **options)
    stripped = strip(data, f"image/{kind.lower()}")
    assert SECRET in data
    assert SECRET not in stripped
    assert same_picture(data, stripped)


def test_i13_text_in_a_png_is_gone(pictures):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", SECRET.decode())
    info.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    data = pictures.saved("PNG", pnginfo=info)
    assert SECRET in data
    assert SECRET not in strip(data, "image/png")


@pytest.mark.parametrize(("kind", "mime"), KINDS)
def test_i07_what_follows_the_picture_is_gone(pictures, kind, mime):
    data = pictures.saved(kind)
    assert strip(data + b"PK\x03\x04 a zip file", mime) == strip(data, mime)


@pytest.mark.parametrize(("kind", "mime"), KINDS)
def test_a_picture_without_metadata_keeps_its_pixels(pictures, kind, mime):
    data = pictures.saved(kind, "RGB")
    assert same_picture(data, strip(data, mime))


def test_an_animation_without_metadata_keeps_its_frames(pictures):
    frames = [Image.new("RGB", (9, 5), colour) for colour in ("red", "blue")]
    before = io.BytesIO()
    frames[0].save(before, "WEBP", save_all=True, append_images=frames[1:], xmp=b"<x/>")
    with Image.open(io.BytesIO(strip(before.getvalue(), "image/webp"))) as after:
        assert after.n_frames == 2
        assert "xmp" not in after.info


def test_other_kinds_are_left_alone():
    assert strip(b"anything", "image/heic") == b"anything"


@pytest.mark.parametrize(
    ("block", "value"),
    [
        (exif(6), 6),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0", 3),
        (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06\0\0\0\0", 6),  # in 32 bits
        (exif(9), 1),
        (exif(None), 1),
        (b"", 1),
        (b"Exif\0\0", 1),
        (b"MM\0*\xff\xff\xff\xff", 1),
        (b"II*\0\x08\0\0\0\xff\xff", 1),
    ],
    ids=range(9),
)
def test_orientation_is_read_or_upright(block, value):
    assert orientation(block) == value

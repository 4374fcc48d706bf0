"""`rendition`: an image as a recipe of `deliver:` asks for it, from whatever a person's programs made of it."""

import io
import struct
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageDraw
from PIL.PngImagePlugin import PngInfo

from pipeline.imaging.convert import convert, rendition
from pipeline.imaging.formats import NotAnImageError
from pipeline.imaging.metadata import embed, extract, is_signed
from tests.imaging.test_provenance import signed

ASKED: dict[str, Any] = {"kind": None, "quality": 90, "max_side": None, "is_srgb": False, "is_stripped": False}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SOURCE_TYPE = b"digitalsourcetype/trainedAlgorithmicMedia"


def file(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def rendered(data: bytes, **asked: Any) -> tuple[Image.Image, bytes, str]:
    made, mime = rendition(data, **{**ASKED, **asked})
    with Image.open(io.BytesIO(made)) as picture:
        picture.load()
        assert Image.MIME[picture.format or ""] == mime
        return picture, made, mime


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_conversion_keeps_the_record_and_the_statements_of_others(form: str, kind: str) -> None:
    record: dict[str, object] = {"prompt": "x" * 60_000}
    exif = Image.Exif()
    exif[0x8298] = "(c) somebody"
    data = embed(file(Image.radial_gradient("L"), form, exif=exif), f"image/{form.lower()}", record)
    picture, made, _ = rendered(data, kind=kind, max_side=100, is_srgb=True)
    assert (extract(made), SOURCE_TYPE in made) == (record, True)
    assert picture.getexif()[0x8298] == "(c) somebody"
    _, bare, _ = rendered(data, kind=kind, max_side=100, is_stripped=True)
    assert (extract(bare), SOURCE_TYPE in bare) == (None, False)


def test_a_jpeg_without_room_for_the_record_says_that_a_model_made_it() -> None:
    data = embed(file(Image.radial_gradient("L"), "PNG"), "image/png", {"prompt": "x" * 70_000})
    _, made, _ = rendered(data, kind="jpeg")
    assert (extract(made), SOURCE_TYPE in made) == (None, True)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_conversion_takes_no_comment_along(form: str) -> None:
    texts = PngInfo()
    texts.add_text("comment", "48.8584N")  # ImageMagick's word, and Pillow's for that of a JPEG
    options = {"pnginfo": texts} if form == "PNG" else {"comment": b"48.8584N"}
    data = file(Image.new("RGB", (90, 90)), form, **options)
    assert b"48.8584N" in data
    assert b"48.8584N" not in convert(data, 10**6, 1000, False)[1]
    assert b"48.8584N" not in rendered(data, kind="jpeg", max_side=50, is_stripped=True)[1]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_that_loses_its_signature_says_that_a_model_made_it(kind: str) -> None:
    _, made, _ = rendered(signed("PNG"), kind=kind, max_side=20)
    assert (is_signed(made), SOURCE_TYPE in made) == (False, True)


def test_a_picture_with_a_palette_is_scaled_in_all_colours() -> None:
    picture = Image.new("L", (400, 400), 0)
    ImageDraw.Draw(picture).ellipse((0, 0, 399, 399), fill=255)
    small, _, _ = rendered(file(picture.convert("P"), "PNG"), max_side=50)
    assert len(set(small.convert("L").get_flattened_data())) > 2


def test_sixteen_bits_keep_their_brightness() -> None:
    half = Image.frombytes("I;16", (10, 10), b"\0\x80" * 100)
    picture, _, _ = rendered(file(half, "PNG"), kind="jpeg")
    assert picture.getpixel((5, 5)) == (128, 128, 128)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_printers_colours_become_those_of_screens(kind: str) -> None:
    red = file(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")
    picture, _, _ = rendered(red, kind=kind, is_srgb=True)
    assert (picture.mode, "icc_profile" in picture.info) == ("RGB", False)
    red_green_blue = picture.getpixel((5, 5))
    assert isinstance(red_green_blue, tuple)
    assert red_green_blue[0] > 250 > 5 > red_green_blue[1]


def grays() -> bytes:
    """The smallest profile of grays: twice as steep (gamma 1) as a screen shows them."""
    tags = (b"wtpt", b"XYZ \0\0\0\0\0\0\xf6\xd6\0\1\0\0\0\0\xd3\x2d"), (b"kTRC", b"curv\0\0\0\0\0\0\0\0")
    head = bytes(4) + b"lcms\2\x10\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + tags[0][1][8:] + bytes(48)
    places = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 12)
    return struct.pack(">I", 188) + head[4:] + places + tags[0][1] + tags[1][1]


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grays_of_a_profile_become_those_of_screens(mode: str) -> None:
    level = {"1": 255, "I;16": 64 * 257}.get(mode, 64)
    data = file(Image.new(mode, (60, 60), level if mode != "LA" else (64, 99)), "PNG", icc_profile=grays())  # type: ignore[arg-type]
    seen = 255 if mode == "1" else 137  # 64 of 255 in light
    with Image.open(io.BytesIO(convert(data, 10**6, 10**6, False)[1])) as sent:
        assert sent.convert("RGB").getpixel((5, 5)) == (seen, seen, seen)
        assert sent.convert("RGBA").getchannel("A").getextrema() == ((99, 99) if mode == "LA" else (255, 255))
    made, _, _ = rendered(data, kind="png", max_side=30)
    assert made.convert("RGB").getextrema()[2] in ((seen, seen), (seen - 1, seen - 1))  # scaled with its transparency
    assert "icc_profile" not in made.info


def test_the_bytes_say_what_a_file_is_not_its_name() -> None:
    data = file(Image.new("RGB", (20, 20)), "JPEG")
    assert rendition(data, **{**ASKED, "is_stripped": True})[1] == "image/jpeg"
    assert rendered(data, kind="png")[2] == "image/png"


@pytest.mark.parametrize("kind", [None, "jpeg"])
def test_a_jpeg_with_a_second_picture_is_a_jpeg(kind: str | None) -> None:
    """Photo editors put brightness for better screens there."""
    red, grey = Image.new("RGB", (20, 20), "red"), Image.new("L", (10, 10))
    data = file(red, "MPO", save_all=True, append_images=[grey])
    assert rendition(data, **{**ASKED, "kind": kind}) == (data, "image/jpeg")
    assert rendered(data, kind=kind, max_side=10)[0].size == (10, 10)


def test_what_is_no_png_jpeg_or_webp_is_refused_in_words() -> None:
    with pytest.raises(NotAnImageError, match=r"^not a whole PNG, JPEG or WebP image$"):
        rendition(file(Image.new("RGB", (20, 20)), "GIF"), **ASKED)


@pytest.mark.parametrize("quality", [90, 100])
def test_a_picture_full_of_grain_becomes_a_jpeg(quality: int, capfd: pytest.CaptureFixture[str]) -> None:
    grain = Image.merge("RGB", [Image.effect_noise((512, 512), 60) for _ in range(3)])
    assert rendered(file(grain, "PNG"), kind="jpeg", quality=quality)[0].size == (512, 512)
    assert capfd.readouterr().err == ""

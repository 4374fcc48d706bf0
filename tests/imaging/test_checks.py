"""What checks find, from headers and from pixels."""

import random
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest
from PIL import UnidentifiedImageError

from pipeline.imaging.checks import (
    Header,
    are_twins,
    header_flags,
    input_header,
    is_one_colour,
    is_same,
    may_be_blank,
    may_be_input,
    perceptual_hash,
    pixels_of,
)
from pipeline.model import ImageChecks

FORMATS = ["PNG", "JPEG", "WEBP"]


def picture(kind: str, *, seed: int = 1, size: tuple[int, int] = (640, 640)) -> PIL.Image.Image:
    """One colour, one colour with noise, or many shapes."""
    chance = random.Random(seed)
    if kind == "noisy":
        return PIL.Image.frombytes("RGB", size, bytes(250 + chance.randrange(2) for _ in range(3 * size[0] * size[1])))
    image = PIL.Image.new("RGB", size, "white")
    for _ in range(0 if kind == "blank" else 300):
        x, y = chance.randrange(size[0]), chance.randrange(size[1])
        colour = tuple(chance.randrange(256) for _ in range(3))
        image.paste(PIL.Image.new("RGB", (chance.randrange(9, 160), chance.randrange(9, 160)), colour), (x, y))
    return image


def encoded(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def header(data: bytes, kind: str, size: tuple[int, int] = (640, 640)) -> Header:
    return Header(f"image/{kind.lower()}", *size, len(data))


@pytest.mark.parametrize("kind", FORMATS)
def test_one_colour_is_flagged_and_a_picture_is_not(kind: str) -> None:
    blank, full = (encoded(picture(what), kind) for what in ("blank", "shapes"))
    checks = ImageChecks(names=("blank",))
    pixels = pixels_of(blank)
    assert pixels is not None
    assert "blank" in header_flags(header(blank, kind), checks, aspect_ratio=None) or (
        may_be_blank(header(blank, kind)) and is_one_colour(pixels)
    )
    assert header_flags(header(full, kind), checks, aspect_ratio=None) == {}
    seen = pixels_of(full)
    assert seen is not None
    assert not is_one_colour(seen)


def test_one_colour_with_noise_is_found_by_its_pixels() -> None:
    data = encoded(picture("noisy"), "JPEG", quality=60)
    pixels = pixels_of(data)
    assert pixels is not None
    assert is_one_colour(pixels)


@pytest.mark.parametrize(
    ("ratio", "size", "is_flagged"),
    [
        ("16:9", (1344, 768), False),
        ("16:9", (1024, 1024), True),
        ("1:1", (1024, 1000), False),
        ("1:1", (1024, 980), True),
    ],
)
def test_another_shape_is_flagged(ratio: str, size: tuple[int, int], is_flagged: bool) -> None:
    flags = header_flags(Header("image/png", *size, 10**6), ImageChecks(names=("aspect",)), aspect_ratio=ratio)
    assert ("aspect" in flags) is is_flagged


def test_a_placeholder_of_a_pixel_is_flagged() -> None:
    checks = ImageChecks(names=("blank",))
    assert header_flags(Header("image/png", 1, 1, 69), checks, aspect_ratio=None) == {"blank": "1 x 1, a placeholder"}
    assert header_flags(Header("image/png", 16, 16, 80), checks, aspect_ratio=None) == {}


def test_a_short_side_is_flagged() -> None:
    small = Header("image/png", 1024, 800, 10**6)
    for least, is_flagged in ((900, True), (800, False)):
        checks = ImageChecks(names=("min_side",), min_side_px=least)
        assert ("min_side" in header_flags(small, checks, aspect_ratio=None)) is is_flagged


def test_an_input_that_came_back_is_told_from_one_that_was_changed(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(encoded(picture("shapes"), "JPEG", quality=90))
    again, other = (encoded(picture("shapes", seed=seed), "JPEG", quality=87) for seed in (1, 2))
    given = input_header(str(source))
    assert given is not None
    assert may_be_input(header(again, "JPEG"), given)
    before, same, changed = pixels_of(source.read_bytes()), pixels_of(again), pixels_of(other)
    assert before is not None
    assert same is not None
    assert changed is not None
    assert is_same(same, before)
    assert not is_same(changed, before)
    assert are_twins(perceptual_hash(same), perceptual_hash(before))
    assert not are_twins(perceptual_hash(changed), perceptual_hash(before))


def test_an_input_on_its_side_that_came_back_upright_is_told(tmp_path: Path) -> None:
    tags, source, size = PIL.Image.Exif(), tmp_path / "in.jpg", (640, 480)
    tags[0x0112] = 6  # to be turned a quarter clockwise
    upright = picture("shapes", size=size)
    source.write_bytes(encoded(upright.rotate(90, expand=True), "JPEG", quality=90, exif=tags))
    again = encoded(upright, "JPEG", quality=87)
    given = input_header(str(source))
    assert given is not None
    assert may_be_input(header(again, "JPEG", size), given)
    assert is_same(pixels_of(again), pixels_of(source.read_bytes()))


def test_what_cannot_be_decoded_has_no_opinion() -> None:
    with pytest.raises(UnidentifiedImageError):
        pixels_of(b"no image")
    assert input_header("/nowhere") is None

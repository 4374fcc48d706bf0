"""Tiny pictures: whole, of the right pixels, unique, of the chosen weight."""

import base64
from hashlib import sha256
from io import BytesIO

import pytest
from PIL import Image

from pipeline.simulator.pictures import tiny

MIMES = ["image/png", "image/jpeg"]


@pytest.mark.parametrize("mime", MIMES)
@pytest.mark.parametrize("size_bytes", [0, 9_000, 200_001, 2_700_000])
def test_it_is_whole_and_its_parts_agree(mime, size_bytes):
    print_ = tiny(1264, 848, mime, size_bytes, b"mark")
    image = Image.open(BytesIO(print_.data))
    image.load()
    assert (image.size, f"image/{image.format.lower()}") == ((1264, 848), mime)
    assert base64.b64decode(print_.base64, validate=True) == print_.data
    assert sha256(print_.data).hexdigest() == print_.sha256


@pytest.mark.parametrize("mime", MIMES)
@pytest.mark.parametrize("size_bytes", [50_000, 2_700_000])
def test_its_weight_is_what_was_asked_for(mime, size_bytes):
    assert len(tiny(512, 512, mime, size_bytes, b"mark").data) == pytest.approx(size_bytes, abs=60)


@pytest.mark.parametrize("mime", MIMES)
def test_another_mark_is_another_file_and_the_same_mark_the_same(mime):
    one, other, again = (tiny(512, 512, mime, 0, mark) for mark in (b"a", b"b", b"a"))
    assert one.data == again.data != other.data

"""Images are flagged by their pixels in a child process; most need none."""

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from pipeline.imaging.checks import Header
from pipeline.model import Image, InputImage
from pipeline.senders.checker import ImageChecker
from tests.imaging.test_checks import encoded, picture
from tests.plan.test_plan import task

DEFAULT = ("blank", "aspect", "same_as_input")


def came(data: bytes, mime: str = "image/jpeg") -> Image:
    return Image(data=data, sha256=sha256(data).hexdigest(), mime=mime, suffix=".jpg", width=640, height=640)


async def test_pixels_tell_the_input_the_twin_and_the_blank(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(encoded(picture("shapes"), "JPEG", quality=90))
    given = InputImage(str(source), "0" * 64, source.stat().st_size, 0)
    again = came(encoded(picture("shapes"), "JPEG", quality=88))
    checker = ImageChecker()
    try:
        flags = await checker.flags(again, task("a/1", images=(given,), checks=DEFAULT))
        assert list(flags) == ["same_as_input"]
        twins = [await checker.flags(again, task(f"b/{number}", checks=("twin",))) for number in (1, 2)]
        assert twins == [{}, {"twin": "nearly the same picture as b/1"}]
        noisy = came(encoded(picture("noisy"), "JPEG", quality=20))
        assert list(await checker.flags(noisy, task("a/2", checks=DEFAULT))) == ["blank"]
        other = came(encoded(picture("shapes", seed=2), "JPEG", quality=88))
        assert await checker.flags(other, task("a/3", images=(given,), checks=DEFAULT)) == {}
    finally:
        checker.close()


async def test_an_image_that_is_not_suspicious_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.senders.checker.Decoder.call", None)
    image = came(encoded(picture("shapes"), "JPEG", quality=90))
    assert await ImageChecker().flags(image, msgspec.structs.replace(task("a/1"), checks=DEFAULT)) == {}
    assert Header("image/jpeg", 640, 640, len(image.data)).bytes_per_pixel > 0.06

"""Images are flagged by their pixels in a child process; most need none."""

from contextlib import closing
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from pipeline.imaging.checks import Header
from pipeline.model import Artifact, Attempt, Failure, Image, ImageChecks, InputImage
from pipeline.senders.checker import ImageChecker, TwinFinder
from tests.imaging.test_checks import encoded, picture
from tests.plan.test_plan import task

DEFAULT = ImageChecks(names=("blank", "aspect", "same_as_input"))


def came(data: bytes, mime: str = "image/jpeg") -> Image:
    return Image(data=data, sha256=sha256(data).hexdigest(), mime=mime, suffix=".jpg", width=640, height=640)


async def test_pixels_tell_the_input_the_twin_and_the_blank(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(encoded(picture("shapes"), "JPEG", quality=90))
    given = InputImage(str(source), "0" * 64, source.stat().st_size, 0)
    again = came(encoded(picture("shapes"), "JPEG", quality=88))
    with closing(ImageChecker()) as checker:
        assert list((await checker.check(again, task("a/1", images=(given,), checks=DEFAULT))).flags) == [
            "same_as_input"
        ]
        noisy = came(encoded(picture("noisy"), "JPEG", quality=20))
        assert list((await checker.check(noisy, task("a/2", checks=DEFAULT))).flags) == ["blank"]
        other = came(encoded(picture("shapes", seed=2), "JPEG", quality=88))
        assert (await checker.check(other, task("a/3", images=(given,), checks=DEFAULT))).flags == {}
        looks = [
            checker.check_now(each, task("a/4", checks=ImageChecks(names=("twin",)))).look for each in (again, other)
        ]
        assert looks[0] != looks[1]


async def test_a_twin_of_this_run_or_an_earlier_one_is_flagged() -> None:
    looks = {"1": "0", "2": "3", "3": "f" * 64, "4": "f" * 64}  # the second differs from the first in two bits of 256

    async def send(attempt: Attempt) -> Artifact | Failure:
        path = f"{attempt.task.row}.png"
        return Artifact(
            path=path, sha256="", mime="image/png", width=1, height=1, size_bytes=1, mtime_ns=1, look=looks[path[0]]
        )

    finder = TwinFinder(send, lambda: None, known={"a": {"a/0": "f" * 63 + "e"}, "b": {}}.__getitem__)
    found = []
    for name in ("a/1", "a/2", "a/3", "b/4", "a/1"):
        result = await finder.send(Attempt(id=1, number=1, task=task(name)))
        assert isinstance(result, Artifact)
        found.append(result.flags.get("twin", "").rpartition(" ")[2])
    assert found == ["", "a/1", "a/0", "", "a/2"]


async def test_an_image_that_is_not_suspicious_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.senders.checker.Decoder.call", None)
    image = came(encoded(picture("shapes"), "JPEG", quality=90))
    assert (await ImageChecker().check(image, msgspec.structs.replace(task("a/1"), checks=DEFAULT))).flags == {}
    assert Header("image/jpeg", 640, 640, len(image.data)).bytes_per_pixel > 0.06

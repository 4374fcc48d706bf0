"""metadata: embed: the record is in the file before it is hashed; a picture that takes none is kept as it came."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO

import msgspec
import pytest
from PIL import Image as Picture

from pipeline.imaging.metadata import extract
from pipeline.model import Answer, Digests, Image, InputImage, Task
from pipeline.senders.local import embedded
from tests.imaging.test_provenance import signed

TASK = Task(
    id="relit/a", job="relit", row="a", variant=1, prompt="At dusk", model="m", name="a", fingerprint="f" * 64,
    digests=Digests("", "", "", ""), aspect_ratio="16:9", seed=7, thinking="high",
    images=(InputImage("/home/ann/secret folder/a.jpg", "1" * 64, 1, 1),), fields={"mail": "ann@example.org"},
)  # fmt: skip
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def answer(kind: str) -> Answer:
    buffer = BytesIO()
    Picture.new("RGB", (8, 8), "red").save(buffer, kind)
    data = buffer.getvalue()
    mime, suffix = f"image/{kind.lower()}", f".{kind.lower()}"
    return Answer(image=Image(data=data, sha256=sha256(data).hexdigest(), mime=mime, suffix=suffix, width=8, height=8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_record_is_in_the_bytes_that_are_hashed(kind: str) -> None:
    plain = answer(kind)
    image = embedded(plain, TASK, manifest="shop", at=NOW).image
    record = extract(image.data)
    assert record is not None
    assert (record["manifest"], record["task"], record["prompt"]) == ("shop", "relit/a", "At dusk")
    assert record["parameters"] == {"aspect_ratio": "16:9", "seed": 7, "thinking": "high"}
    assert image.sha256 == sha256(image.data).hexdigest() != plain.image.sha256
    with Picture.open(BytesIO(image.data)) as picture:
        assert picture.convert("RGB").getpixel((4, 4))[0] > 200


def test_the_record_names_no_folder_and_no_cell() -> None:
    data = embedded(answer("PNG"), TASK, manifest="shop", at=NOW).image.data
    record = extract(data)
    assert record is not None
    assert record["inputs"] == [{"name": "a.jpg", "sha256": "1" * 64}]
    assert b"/home" not in data
    assert b"ann@example.org" not in data


@pytest.mark.parametrize(("data", "length"), [(b"paid for, and not a JPEG", 1), (None, 66_000)], ids=["broken", "long"])
def test_a_picture_that_takes_no_record_stays_as_it_came_and_has_it_beside_it(data: bytes | None, length: int) -> None:
    plain, task = answer("JPEG"), msgspec.structs.replace(TASK, prompt="p" * length)
    given = replace(plain, image=replace(plain.image, data=data or plain.image.data))
    kept = embedded(given, task, manifest="shop", at=NOW)
    assert (kept.image, len(kept.notes)) == (given.image, 1)
    assert kept.sidecar is not None
    record = extract(kept.sidecar.data)
    assert record is not None
    assert record["prompt"] == task.prompt


def test_a_signed_picture_stays_as_it_came_and_its_record_is_beside_it() -> None:
    plain = answer("PNG")
    data = signed("PNG")
    kept = embedded(replace(plain, image=replace(plain.image, data=data)), TASK, manifest="shop", at=NOW)
    assert kept.image.data == data
    assert kept.sidecar is not None
    record = extract(kept.sidecar.data)
    assert record is not None
    assert (record["task"], record["prompt"]) == ("relit/a", "At dusk")
    assert "signed (C2PA)" in kept.notes[0]

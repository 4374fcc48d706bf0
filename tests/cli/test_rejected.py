"""rejected: what was paid for and could not be published; --salvage reads it again without a request."""

import base64
import hashlib
import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Imgpipe

BROKEN = "picture: tiny\nlatency: 0s\nfaults: [{name: broken_json, every: 1}]\n"


def answer() -> bytes:
    """A whole answer with one image."""
    picture = BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    data = base64.b64encode(picture.getvalue()).decode()
    part = {"inlineData": {"mimeType": "image/png", "data": data}}
    return json.dumps({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}).encode()


def broken(imgpipe: Imgpipe, jobs: str = "{mugs: {items: {red: A red mug}}}") -> tuple[Path, list[Path]]:
    """Run a manifest whose every answer is cut; return it and the bodies that were kept."""
    manifest = imgpipe.manifest(jobs, profile=BROKEN)
    assert imgpipe("run", manifest).exit == 3
    kept = sorted(path for path in (imgpipe.state / "rejected").iterdir() if not path.name.endswith(".facts.json"))
    assert kept
    return manifest, kept


def understand(body: Path, data: bytes, suffix: str = ".json") -> Path:
    """Put an answer that today's parser reads in the place of one it does not: as if the parser had learned."""
    facts = body.with_name(body.name + ".facts.json")
    name = f"{body.name.rpartition('-')[0]}-{hashlib.sha256(data).hexdigest()}{suffix}"
    new = body.with_name(name)
    new.write_bytes(data)
    facts.rename(new.with_name(new.name + ".facts.json"))
    body.unlink()
    return new


def test_each_kept_answer_is_listed_with_task_time_and_reason(imgpipe: Imgpipe) -> None:
    manifest, kept = broken(imgpipe)
    ended = imgpipe("rejected", manifest)
    assert ended.exit == 0
    assert len(ended.out.splitlines()) == len(kept)
    assert "mugs/red, attempt 1: " in ended.out
    assert str(kept[0]) in ended.out
    assert "--salvage" in ended.err


def test_json_has_the_request_id_for_the_providers_desk(imgpipe: Imgpipe) -> None:
    manifest, kept = broken(imgpipe)
    first = imgpipe("rejected", manifest, "--json").json["rejected"][0]
    assert set(first) == {
        "path", "task", "attempt", "at", "reason", "fault", "status", "code", "request_id", "is_image",
        "size_bytes", "sha256",
    }  # fmt: skip
    assert (first["task"], first["fault"], first["path"]) == ("mugs/red", "broken", str(kept[0]))


def test_salvage_publishes_what_is_whole_now_and_sends_nothing(imgpipe: Imgpipe) -> None:
    manifest, kept = broken(imgpipe)
    body = understand(kept[0], answer())
    before = imgpipe("status", manifest, "mugs/red", "--json").json
    ended = imgpipe("rejected", manifest, "--salvage", "--json")
    assert ended.json["published"] == ["mugs/red"]
    assert [path.stem for path in imgpipe.images()] == ["red"]
    assert not body.exists()
    after = imgpipe("status", manifest, "mugs/red", "--json").json
    assert (after["state"], after["attempts"], after["cost_usd"]) == ("done", before["attempts"], before["cost_usd"])
    assert imgpipe("run", manifest, "--json").json["attempts"] == 0


def inline(data: str) -> bytes:
    part = {"inlineData": {"mimeType": "image/png", "data": data}}
    return json.dumps({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}).encode()


def text(words: str) -> bytes:
    return json.dumps({"candidates": [{"content": {"parts": [{"text": words}]}, "finishReason": "STOP"}]}).encode()


PICTURE = json.loads(answer())["candidates"][0]["content"]["parts"][0]["inlineData"]["data"]
WRAPPED = "\n".join(PICTURE[at : at + 76] for at in range(0, len(PICTURE), 76))


@pytest.mark.parametrize(
    ("body", "suffix"),
    [
        pytest.param(b"data: " + answer() + b"\n\ndata: [DONE]\n\n", ".json", id="event-stream"),
        pytest.param(text(f"![image](data:image/png;base64,{WRAPPED})"), ".json", id="uri-in-text"),
        pytest.param(inline(base64.b64encode(PICTURE.encode()).decode()), ".json", id="base64-twice"),
        pytest.param(PICTURE.encode(), ".bin", id="base64-twice-kept-decoded-once"),
    ],
)
def test_salvage_reads_every_way_in_which_an_image_arrives(imgpipe: Imgpipe, body: bytes, suffix: str) -> None:
    manifest, kept = broken(imgpipe)
    understand(kept[0], body, suffix)
    assert imgpipe("rejected", manifest, "--salvage", "--json").json["published"] == ["mugs/red"]
    assert [path.stem for path in imgpipe.images()] == ["red"]


def test_an_answer_with_a_link_is_kept_and_salvage_tells_the_address(imgpipe: Imgpipe) -> None:
    manifest, kept = broken(imgpipe)
    link = understand(kept[0], text("![image](https://img.example.net/f/1.png)"))
    ended = imgpipe("rejected", manifest, "--salvage")
    assert f"left: {link.name}: the image came as an address" in ended.out
    assert "https://img.example.net/f/1.png" in ended.out
    assert link.exists()


def test_salvage_leaves_what_is_still_broken_with_the_reason(imgpipe: Imgpipe) -> None:
    manifest, kept = broken(imgpipe)
    before = [path.read_bytes() for path in kept]
    ended = imgpipe("rejected", manifest, "--salvage")
    assert f"left: {kept[0].name}: " in ended.out
    assert f"0 published, {len(kept)} left" in ended.err
    assert [path.read_bytes() for path in kept] == before


def test_a_body_that_somebody_edited_is_not_published(imgpipe: Imgpipe) -> None:
    manifest, kept = broken(imgpipe)
    kept[0].write_bytes(answer())
    ended = imgpipe("rejected", manifest, "--salvage")
    assert "was changed since it was kept" in ended.out
    assert imgpipe.images() == []


def test_salvage_embeds_where_the_manifest_asks_for_it(imgpipe: Imgpipe) -> None:
    from pipeline.imaging.metadata import extract

    manifest, kept = broken(imgpipe, "{mugs: {metadata: embed, items: {red: A red mug}}}")
    understand(kept[0], answer())
    assert imgpipe("rejected", manifest, "--salvage", "--json").json["published"] == ["mugs/red"]
    record = extract(imgpipe.images()[0].read_bytes())
    assert record is not None
    assert (record["task"], record["prompt"]) == ("mugs/red", "A red mug")


def test_a_run_at_work_makes_salvage_wait(imgpipe: Imgpipe) -> None:
    from pipeline.store.lock import StateLock

    manifest, _ = broken(imgpipe)
    with StateLock(imgpipe.state):
        assert imgpipe("rejected", manifest).exit == 0
        assert imgpipe("rejected", manifest, "--salvage").exit == 75


def test_nothing_kept_prints_nothing(imgpipe: Imgpipe) -> None:
    ended = imgpipe("rejected", imgpipe.made())
    assert (ended.exit, ended.out, ended.err) == (0, "", "")

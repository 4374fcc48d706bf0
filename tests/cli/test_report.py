"""report: what stands beside an image is what made it."""

import json

from tests.cli.conftest import Imgpipe


def rows(imgpipe: Imgpipe) -> dict[str, dict[str, object]]:
    lines = (imgpipe.out / "report" / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_an_image_keeps_its_prompt_while_the_manifest_asks_for_another_one(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    manifest.write_text(manifest.read_text().replace("A red mug", "A crimson mug"))
    assert imgpipe("report", manifest).exit == 0
    found = rows(imgpipe)
    assert (found["mugs/red"]["prompt"], found["mugs/blue"]["prompt"]) == ("A red mug", "A blue mug")
    assert found["mugs/red"]["reason"] == "the manifest asks for something else now"
    imgpipe("run", manifest, "-q")
    imgpipe("report", manifest)
    red = rows(imgpipe)["mugs/red"]
    assert (red["prompt"], red["reason"]) == ("A crimson mug", "flagged blank: nearly one colour")


def test_a_task_without_an_image_shows_what_is_asked(imgpipe: Imgpipe) -> None:
    imgpipe("report", imgpipe.manifest())
    assert rows(imgpipe)["mugs/red"]["prompt"] == "A red mug"


def test_a_job_named_report_keeps_its_folder(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made("{report: {items: {red: A red mug}}}")
    before = {path: path.read_bytes() for path in (imgpipe.out / "report").iterdir()}
    ended = imgpipe("report", manifest)
    assert (ended.exit, ended.out.strip()) == (0, str(imgpipe.out / "report-shop" / "index.html")), ended.err
    assert before
    assert {path: path.read_bytes() for path in (imgpipe.out / "report").iterdir()} == before
    assert imgpipe("verify", manifest).exit == 0

"""Every verb that follows a run, on images in a bucket: the same answers, and few objects read."""

import io
import json
import time
from pathlib import Path

import PIL.Image
import pytest

from pipeline.app import context
from pipeline.app.judge import JudgeSession
from pipeline.store.marks import Marks
from tests.cli.conftest import Imgpipe
from tests.s3 import SECRET, Answer, ScriptedS3, s3
from tests.store.fakes import image

__all__ = ["s3"]  # a fixture
JOBS = "{studio: {prompt: 'A {{ matrix.thing }}', matrix: {thing: {m: mug, j: jug}}, checks: {blank: off}}}"
SHOP = "deliver: {shop: {to: 's3://bucket/shop', name: 'sku {{ matrix.thing.key }} #1', format: jpeg, max_side: 200}}"


@pytest.fixture
def made(imgpipe: Imgpipe, s3: ScriptedS3) -> Path:
    """A manifest over a bucket, run."""
    path = imgpipe.manifest(JOBS, extra=SHOP)
    path.write_text(path.read_text().replace("output_dir: out", "output_dir: s3://bucket/out"))
    run = imgpipe("run", path, "-q")
    assert run.exit == 0, run.err
    s3.read.clear()
    return path


def images(s3: ScriptedS3, below: str = "out/studio/") -> list[str]:
    return sorted(key for key in s3.objects if key.startswith(below))


def state(imgpipe: Imgpipe) -> Path:
    return imgpipe.folder / ".pipeline" / "shop"


def mark(imgpipe: Imgpipe, kind: str, *ids: str) -> None:
    with Marks(state(imgpipe), manifest="shop") as marks:
        marks.edit({task_id: {"kind": kind} for task_id in ids}, at_ms=time.time_ns() // 1_000_000)


def test_a_report_reads_each_object_once(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    written = imgpipe("report", made)
    page = state(imgpipe) / "report" / "index.html"
    assert (written.exit, written.out.strip()) == (0, str(page))
    assert sorted(s3.read) == images(s3)
    assert len(list((page.parent / "thumbs").iterdir())) == 2
    rows = [json.loads(line) for line in (page.parent / "tasks.jsonl").read_text().splitlines()]
    assert sorted(row["image"] for row in rows) == [f"s3://bucket/{key}" for key in images(s3)]
    assert "s3%3A" not in page.read_text()
    assert "thumbs/" in page.read_text()
    s3.read.clear()
    assert imgpipe("report", made).exit == 0
    assert s3.read == []
    left = [path for path in imgpipe.folder.rglob("*") if path.is_file()]
    assert [path for path in left if SECRET.encode() in path.read_bytes()] == []


def test_judge_shows_the_object_itself(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    setup = context.prepare(made, context.Flags())
    session = JudgeSession(setup, secret="x")
    session.prepare()
    (row,) = [row for row in session._rows.values() if row.id == "studio/m"]
    picture = session.image(row.id, row.sha256 or "")
    assert picture is not None
    assert picture.data == s3.objects[str(row.image).removeprefix("s3://bucket/")][0]
    session.close()


def test_explain_finds_the_ledger_of_an_object(
    imgpipe: Imgpipe, s3: ScriptedS3, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(imgpipe.folder)
    told = imgpipe("explain", f"s3://bucket/{images(s3)[0]}", "--json").json
    assert (told["task"], told["standing"]) == ("studio/j", "current")
    s3.objects[images(s3)[0]] = (image(5).data, {})
    assert imgpipe("explain", f"s3://bucket/{images(s3)[0]}", "--json").json["standing"] == "edited"
    assert SECRET not in imgpipe("explain", f"s3://key:{SECRET}@bucket/x.png").err
    monkeypatch.chdir("/")
    unknown = imgpipe("explain", f"s3://bucket/{images(s3)[1]}")
    assert (unknown.exit, "no embedded record; name the state directory" in unknown.err) == (2, True), unknown.err


def test_redo_keeps_the_old_object_and_prune_removes_it(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    before = s3.objects[images(s3)[1]][0]
    mark(imgpipe, "rejected", "studio/m")
    assert imgpipe("redo", made, "--rejected", "-q").exit == 0
    (old,) = images(s3, "out/.superseded/")
    assert (s3.objects[old][0], len(images(s3))) == (before, 2)
    found = imgpipe("prune", made, "--superseded", "--older", "0s", "--json").json
    assert [each["path"] for each in found["files"]] == [f"s3://bucket/{old}"]
    assert imgpipe("prune", made, "--superseded", "--older", "0s", "-y").exit == 0
    assert images(s3, "out/.superseded/") == []


def test_prune_removes_orphans_that_are_as_they_were_recorded(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    jug, mug = images(s3)
    made.write_text(made.read_text().replace("{m: mug, j: jug}", "{k: keg}"))
    s3.objects[mug] = (b"edited", {})
    gone = imgpipe("prune", made, "--orphans", "--older", "0s", "-y", "--json")
    assert [each["path"] for each in gone.json["files"]] == [f"s3://bucket/{jug}"]
    assert images(s3) == [mug]


def test_picked_objects_are_copied_into_a_folder(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    mark(imgpipe, "picked", "studio/m")
    chosen = imgpipe.folder / "chosen"
    assert imgpipe("export", made, "--picked", chosen, "--json").json["copied"] == [
        str(chosen / images(s3)[1].removeprefix("out/"))
    ]
    assert imgpipe("export", made, "--picked", chosen, "--json").json["copied"] == []
    assert imgpipe("export", made, "--picked", "s3://bucket/chosen").exit == 2


def test_a_training_set_is_made_of_objects(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    assert imgpipe("export", made, "--as", "webdataset", str(imgpipe.folder / "set"), "--json").json["images"] == 2
    assert imgpipe("export", made, "--as", "webdataset", "s3://bucket/set").exit == 2


def test_a_delivery_mirrors_into_a_bucket(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    mark(imgpipe, "picked", "studio/m", "studio/j")
    s3.objects["shop/sku j #1.jpg"] = (b"somebody else's", {})
    told = imgpipe("export", made, "--json")
    assert (told.exit, told.json["counts"]) == (3, {"left": 1, "added": 1})
    assert s3.objects["shop/sku j #1.jpg"][0] == b"somebody else's"
    del s3.objects["shop/sku j #1.jpg"]
    told = imgpipe("export", made, "--json")
    assert told.json["counts"] == {"added": 1, "unchanged": 1}, told.err
    with PIL.Image.open(io.BytesIO(s3.objects["shop/sku m #1.jpg"][0])) as picture:
        assert (picture.format, max(picture.size)) == ("JPEG", 200)
    s3.objects["shop/sku j #1.jpg"] = (b"edited", {})
    made.write_text(made.read_text().replace("max_side: 200", "max_side: 100"))
    assert imgpipe("export", made, "--json").json["counts"] == {"left": 1, "replaced": 1}
    mark(imgpipe, "", "studio/m", "studio/j")
    assert imgpipe("export", made, "--json").json["counts"] == {"withdrawn": 1, "left": 1}
    assert images(s3, "shop/") == ["shop/.withdrawn/sku m #1.jpg", "shop/deliver.jsonl", "shop/sku j #1.jpg"]


CONFLICT = Answer(409, "ConditionalRequestConflict")
LOST = Answer(500, "InternalError", is_done=True)


@pytest.mark.parametrize("lie", [CONFLICT, LOST], ids=["conflict", "lost"])
def test_a_delivery_that_s3_answers_oddly_is_whole(imgpipe: Imgpipe, s3: ScriptedS3, made: Path, lie: Answer) -> None:
    mark(imgpipe, "picked", "studio/m", "studio/j")
    s3.tell("PUT", None, None, lie)  # behind the two that prove the bucket
    told = imgpipe("export", made, "--json")
    assert (told.exit, told.json["counts"]) == (0, {"added": 2}), told.err
    made.write_text(made.read_text().replace("max_side: 200", "max_side: 100"))
    s3.tell("PUT", None, None, lie)
    told = imgpipe("export", made, "--json")
    assert (told.exit, told.json["counts"]) == (0, {"replaced": 2}), told.err


def test_verify_says_what_is_missing_although_the_bucket_of_the_inputs_is_away(
    imgpipe: Imgpipe, s3: ScriptedS3
) -> None:
    s3.objects["in/a.png"] = (image(1).data, {})
    path = imgpipe.made(
        "{night: {each: {files: 's3://bucket/in/*.png'}, images: ['{{ file.path }}'], prompt: At night}}"
    )
    imgpipe.images()[0].unlink()
    for method in ("GET", "HEAD", "LIST"):
        s3.tell(method, *[Answer(503, "SlowDown")] * 50)
    told = imgpipe("verify", path, "--json")
    assert (told.exit, len(told.json["missing"])) == (3, 1), told.err


def test_a_rehearsed_delivery_writes_to_no_bucket(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    text = made.read_text().replace("{shop: {", "{shop: {from: done, ")
    made.write_text("\n".join(line for line in text.splitlines() if not line.startswith("provider:")))
    before = dict(s3.objects)
    assert imgpipe("run", made, "--simulate", "quick", "-q").exit == 0
    told = imgpipe("export", made, "--simulate", "quick", "--json")
    assert (told.exit, told.json["counts"]) == (0, {"added": 2}), told.err
    assert told.json["to"] == str(imgpipe.folder / "shop-simulated")
    assert s3.objects == before


def test_an_object_carries_its_record(imgpipe: Imgpipe, s3: ScriptedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    path = imgpipe.manifest(JOBS, extra="defaults: {metadata: embed}")
    path.write_text(path.read_text().replace("output_dir: out", "output_dir: s3://bucket/out"))
    assert imgpipe("run", path, "-q").exit == 0
    elsewhere = imgpipe.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (imgpipe.folder / ".pipeline").rename(elsewhere / "moved")
    told = imgpipe("explain", f"s3://bucket/{images(s3)[1]}", "--json").json
    assert (told["task"], told["standing"], told["prompt"]) == ("studio/m", "carried", "A mug")


def test_validate_asks_no_bucket_that_images_go_to(imgpipe: Imgpipe, s3: ScriptedS3, made: Path) -> None:
    made.write_text(made.read_text().replace("jobs: {", "jobs: {posters: {prompt: p, each: {job: studio}}, "))
    s3.requests.clear()
    said = imgpipe("validate", made)
    assert (said.exit, said.out, s3.requests) == (0, f"{made}: 4 tasks\n", [])
    assert imgpipe("plan", made, "--json").json["tasks"] == 4
    assert s3.requests == ["GET"]  # one listing serves every stage


def test_a_rehearsal_reads_inputs_from_a_bucket_and_writes_to_none(imgpipe: Imgpipe, s3: ScriptedS3) -> None:
    s3.objects |= {f"photos/{n}.jpg": (image(80 * n, ".jpg").data, {}) for n in range(3)}
    path = imgpipe.folder / "shop.yaml"
    path.write_text(
        "version: 1\noutput_dir: s3://bucket/out\njobs:\n"
        "  lit: {prompt: p, each: {files: 's3://bucket/photos/*.jpg'}, images: ['{{ file.path }}']}\n"
        "  poster: {prompt: q, each: {job: lit}, images: ['{{ file.path }}']}\n"
    )
    run = imgpipe("run", path, "--simulate", "quick", "-q", "--json")
    assert (run.exit, run.json["images"], len(s3.objects)) == (0, 6, 3), run.err
    assert "PUT" not in s3.requests
    assert sorted(s3.read) == sorted(2 * list(s3.objects))  # once to be hashed, once to be sent

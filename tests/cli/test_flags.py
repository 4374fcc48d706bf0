"""Flags of images: shown, selected, priced, replaced; a flagged task is done."""

import sqlite3
from contextlib import closing
from hashlib import sha256

import PIL.Image

from tests.cli.conftest import Imgpipe

SMALL = "{mugs: {checks: {blank: off, min_side: 5000}, items: {red: A red mug, blue: A blue mug}}}"


def test_flagged_images_are_done_and_shown_everywhere(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(SMALL)  # ends with 0: a flag is no state
    assert imgpipe("status", path, "--json").json["flagged"] == {"min_side": 2}
    assert "flagged min_side: 2 images" in imgpipe("status", path).out
    assert "below 5000" in imgpipe("status", path, "--tasks", "--json").json["reason"]
    assert imgpipe("plan", path, "--select", "flag:min_side", "--json").json["tasks"] == 2
    assert imgpipe("plan", path, "--select", "flag:blank", "--json").json["tasks"] == 0
    assert f": imgpipe redo {path} --flagged" in imgpipe("plan", path).out
    assert imgpipe("plan", path, "--select", "flag:black").exit == 2
    imgpipe("report", path)
    assert '"flags": ["min_side"]' in (imgpipe.out / "report" / "tasks.jsonl").read_text()
    assert "flagged min_side" in imgpipe("explain", imgpipe.images()[0]).out


def test_flagged_images_are_made_anew_when_asked_for(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(SMALL)
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    ended = imgpipe("redo", path, "--flagged", "--select", "mugs/red", "--json")
    assert (ended.exit, ended.json["attempts"]) == (0, 1)


def test_a_run_says_which_of_its_images_are_flagged(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(SMALL)
    assert f"Flagged: 2 min_side; look at them: imgpipe judge {path}" in imgpipe("run", path).err
    assert "Flagged" not in imgpipe("run", path).err


def test_one_colour_is_flagged_by_default_and_an_edit_takes_it_away(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {items: {red: A red mug}}}")  # the simulator's tiny pictures are of one colour
    assert imgpipe("status", path, "--json").json["flagged"] == {"blank": 1}
    PIL.Image.new("RGB", (64, 64), "red").save(imgpipe.images()[0])
    imgpipe("run", path, "--accept", "edited", "-q")
    assert imgpipe("status", path, "--json").json["flagged"] == {}


def test_a_check_that_says_redo_asks_again_once_and_keeps_the_first(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {checks: {blank: redo}, items: {red: A red mug}}}")
    assert "checks may also redo 1 image, for at most play $0.0" in imgpipe("plan", path).out
    ended = imgpipe("run", path, "--json")
    assert (ended.exit, ended.json["attempts"], ended.json["tasks"]["done"]) == (0, 2, 1)
    assert len(list((imgpipe.state / "superseded").iterdir())) == 1
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    assert imgpipe("status", path, "--json").json["flagged"] == {"blank": 1}


def test_a_redo_without_an_image_leaves_the_task_done(imgpipe: Imgpipe) -> None:
    profile = "picture: tiny\nlatency: 0s\nfaults: [{name: image_safety, at: [2]}]\n"
    path = imgpipe.made("{mugs: {checks: {blank: redo}, items: {red: A red mug}}}", profile=profile)
    told = imgpipe("status", path, "--json").json
    assert (told["tasks"]["done"], told["tasks"]["refused"]) == (1, 0)
    with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite", isolation_level=None)) as ledger:
        assert ledger.execute("SELECT state, attempts FROM task").fetchall() == [("done", 2)]


def test_twins_of_an_earlier_run_are_found(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {checks: {blank: off, twin: flag}, items: {red: A red mug}}}")
    path.write_text(path.read_text().replace("red: A red mug", "red: A red mug, crimson: A crimson mug"))
    assert imgpipe("run", path, "-q").exit == 0
    assert imgpipe("status", path, "--json").json["flagged"] == {"twin": 1}
    tasks = imgpipe("status", path, "--tasks", "--json", "--select", "flag:twin").json
    assert tasks["reason"] == "flagged twin: nearly the same picture as mugs/red"


def test_an_image_that_a_crash_left_as_a_part_is_checked(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {items: {red: A red mug}}}")
    (image,) = imgpipe.images()
    with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite", isolation_level=None)) as ledger:
        ((ledger_id,),) = ledger.execute("SELECT ledger FROM meta")
        ledger.execute("UPDATE attempt SET state = 'sent', sha256 = NULL, ended_at = NULL")
        ledger.execute("UPDATE task SET state = 'pending', path = NULL, sha256 = NULL, made = NULL, maker = NULL")
        ledger.execute("UPDATE task SET flags = ''")
    image.rename(image.with_name(f".part-{ledger_id}-1-{sha256(image.read_bytes()).hexdigest()}"))
    ended = imgpipe("run", path, "--json")
    assert (ended.exit, ended.json["attempts"], image.exists()) == (0, 0, True)
    assert imgpipe("status", path, "--json").json["flagged"] == {"blank": 1}

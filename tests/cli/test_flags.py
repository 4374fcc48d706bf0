"""Flags of images: shown, selected, priced, made anew; a flagged task is done."""

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
    assert f"by: imgpipe redo {path} --flagged" in imgpipe("plan", path).out
    assert imgpipe("plan", path, "--select", "flag:black").exit == 2


def test_flagged_images_are_made_anew_when_asked_for(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(SMALL)
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    ended = imgpipe("redo", path, "--flagged", "--select", "mugs/red", "--json")
    assert (ended.exit, ended.json["attempts"]) == (0, 1)


def test_one_colour_is_flagged_by_default_and_an_edit_takes_it_away(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {items: {red: A red mug}}}")  # the simulator's tiny pictures are of one colour
    assert imgpipe("status", path, "--json").json["flagged"] == {"blank": 1}
    PIL.Image.new("RGB", (64, 64), "red").save(imgpipe.images()[0])
    imgpipe("run", path, "--accept", "edited", "-q")
    assert imgpipe("status", path, "--json").json["flagged"] == {}

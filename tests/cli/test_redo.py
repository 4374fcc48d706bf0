"""redo: rejected images are bought anew, the old ones are kept, and the same command never buys a third."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Imgpipe


def reject(imgpipe: Imgpipe, *ids: str, hashes: bool = True, picked: Sequence[str] = ()) -> Path:
    """Save picks as the button of the report does."""
    folder = imgpipe.out / "report"
    folder.mkdir(exist_ok=True)
    files = {f"mugs/{path.stem}": hashlib.sha256(path.read_bytes()).hexdigest() for path in imgpipe.images()}
    images = {name: files[name] for name in ids if name in files} if hashes else {}
    path = folder / "picks.json"
    path.write_text(json.dumps({"picked": list(picked), "rejected": ids, "images": images}))
    return path


def image(imgpipe: Imgpipe, stem: str) -> bytes:
    return next(path for path in imgpipe.images() if path.stem == stem).read_bytes()


def otherwise(imgpipe: Imgpipe) -> None:
    """Let the simulator, which draws the same for the same request, draw something else from now on."""
    profile = imgpipe.folder / "shop-profile.yaml"
    profile.write_text(profile.read_text() + "picture_bytes: 40000\n")


def test_picks_that_were_copied_later_still_mean_the_image_that_was_seen(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    picks = reject(imgpipe, "mugs/red")
    otherwise(imgpipe)
    imgpipe("redo", manifest, "--rejected")
    late = time.time() + 3600
    os.utime(picks, (late, late))
    assert imgpipe("redo", manifest, "--rejected", "--json").json["attempts"] == 0


def test_a_rejected_image_is_bought_anew_and_the_old_one_kept(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    red, blue = image(imgpipe, "red"), image(imgpipe, "blue")
    reject(imgpipe, "mugs/red")
    otherwise(imgpipe)
    ended = imgpipe("redo", manifest, "--rejected", "--json")
    assert (ended.exit, ended.json["attempts"], ended.json["images"]) == (0, 1, 1)
    assert ended.json["cost_usd"]["spent"] > 0
    assert image(imgpipe, "red") != red
    assert image(imgpipe, "blue") == blue
    (kept,) = (imgpipe.state / "superseded").iterdir()
    assert kept.read_bytes() == red


@pytest.mark.parametrize("is_other", [True, False], ids=["another image came", "the same bytes came again"])
def test_the_same_command_again_finds_nothing_to_do(imgpipe: Imgpipe, is_other: bool) -> None:
    manifest = imgpipe.made()
    reject(imgpipe, "mugs/red")
    if is_other:
        otherwise(imgpipe)
    assert imgpipe("redo", manifest, "--rejected", "--json").json["attempts"] == 1
    again = imgpipe("redo", manifest, "--rejected", "--json")
    assert (again.exit, again.json["attempts"]) == (0, 0)
    assert "replaced since it was rejected" in again.err
    assert imgpipe("run", manifest, "--json").json["attempts"] == 0
    assert imgpipe("verify", manifest).exit == 0


def test_picks_without_hashes_mean_images_older_than_they_are(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    reject(imgpipe, "mugs/red", hashes=False)
    assert imgpipe("redo", manifest, "--rejected", "--json").json["attempts"] == 1
    assert imgpipe("redo", manifest, "--rejected", "--json").json["attempts"] == 0


def test_only_what_was_rejected_is_bought(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    manifest.write_text(manifest.read_text().replace("A blue mug", "A BLUE mug"))
    reject(imgpipe, "mugs/red")
    assert imgpipe("redo", manifest, "--rejected", "--json").json["tasks"]["total"] == 1
    assert imgpipe("plan", manifest, "--json").json["reasons"] == {"prompt changed": 1}


def test_when_no_new_image_comes_the_old_one_stays_and_the_task_is_done(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    red = image(imgpipe, "red")
    reject(imgpipe, "mugs/red")
    (imgpipe.folder / "shop-profile.yaml").write_text("latency: 0s\nfaults: [{name: image_safety, every: 1}]\n")
    ended = imgpipe("redo", manifest, "--rejected", "--json")
    assert (ended.exit, ended.json["tasks"]["refused"]) == (3, 1)
    assert image(imgpipe, "red") == red
    assert imgpipe("status", manifest, "--json").json["tasks"]["done"] == 2
    assert imgpipe("verify", manifest).exit == 0
    assert imgpipe("run", manifest, "--json").json["attempts"] == 0


@pytest.mark.parametrize("named", ["--unknown", "mugs/red"])
def test_a_redo_that_may_have_been_billed_twice_is_asked_again_after_a_retry(imgpipe: Imgpipe, named: str) -> None:
    manifest = imgpipe.made()
    reject(imgpipe, "mugs/red")
    (imgpipe.folder / "shop-profile.yaml").write_text("latency: 0s\nfaults: [{name: disconnect, every: 1}]\n")
    assert imgpipe("redo", manifest, "--rejected", "--json").json["attempts"] == 2
    again = imgpipe("redo", manifest, "--rejected", "--json")
    assert (again.exit, again.json["attempts"]) == (3, 0)
    assert "`retry` it, then `redo` asks again" in again.err
    assert imgpipe("retry", manifest, named, "--json").json["attempts"] == 0
    (imgpipe.folder / "shop-profile.yaml").write_text("picture: tiny\nlatency: 0s\n")
    assert imgpipe("redo", manifest, "--rejected", "--json").json["images"] == 1


def test_P9_a_redo_counts_against_the_budget(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(extra="prices: {gemini-nano-banana-2.1: 0.04}")
    reject(imgpipe, "mugs/red", "mugs/blue")
    ended = imgpipe("redo", manifest, "--rejected", "--budget", "0.04", "--json")
    assert (ended.exit, ended.json["images"]) == (8, 1)
    assert imgpipe("redo", manifest, "--rejected", "--json").json["images"] == 1


def test_P6_an_image_that_was_edited_since_is_not_replaced(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    reject(imgpipe, "mugs/red")
    red = next(path for path in imgpipe.images() if path.stem == "red")
    red.write_bytes(red.read_bytes() + b"edit")
    ended = imgpipe("redo", manifest, "--rejected", "--json")
    assert (ended.exit, ended.json["attempts"]) == (3, 0)
    assert "--force" in ended.err


def test_without_picks_it_says_how_they_are_made(imgpipe: Imgpipe) -> None:
    ended = imgpipe("redo", imgpipe.made(), "--rejected")
    assert ended.exit == 2
    assert "Save picks" in ended.err


def test_without_the_flag_nothing_is_bought(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    reject(imgpipe, "mugs/red")
    ended = imgpipe("redo", manifest)
    assert ended.exit == 2
    assert "--rejected" in ended.err


def test_picks_of_another_manifest_are_named_and_cost_nothing(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    reject(imgpipe, "posters/oslo")
    ended = imgpipe("redo", manifest, "--rejected", "--json")
    assert (ended.exit, ended.json["attempts"]) == (0, 0)
    assert "posters/oslo: no such task was ever run here" in ended.err

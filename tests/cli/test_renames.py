"""Renamed tasks keep their images, metadata of inputs change nothing, and what a person edits is the person's."""

import json
import re
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

from pipeline.model import Mark
from pipeline.store.marks import Marks, read_marks
from tests.cli.conftest import Imgpipe

FOLDER = '{{relight: {{each: {{files: "{glob}"}}, prompt: Relight it, images: ["{{{{ file.path }}}}"]}}}}'


def photo(path: Path, colour: str, *, rating: str | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    about = PngInfo()
    if rating is not None:
        about.add_text("Rating", rating)
    PIL.Image.new("RGB", (64, 64), colour).save(path, pnginfo=about)


def test_a_renamed_row_keeps_image_history_and_mark(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    (old,) = (image for image in imgpipe.images() if image.stem == "red")
    with Marks(imgpipe.state, manifest="shop") as marks:
        marks.edit({"mugs/red": {"kind": "picked"}}, at_ms=1)
    path.write_text(
        path.read_text().replace("red: A red", "crimson: A red").replace("A blue mug", "A blue mug, green: A green mug")
    )
    plan = imgpipe("plan", path, "--json").json
    assert (plan["due"], plan["reasons"]) == (1, {"renamed": 1, "new": 1})
    assert [group["cost_usd"] for group in plan["groups"] if group["why"] == "renamed"] == [0.0]
    data = old.read_bytes()
    assert imgpipe("run", path, "--json").json["attempts"] == 1
    assert (old.exists(), old.with_stem("crimson").read_bytes()) == (False, data)
    assert read_marks(imgpipe.state, manifest="shop")["mugs/crimson"] == Mark(kind="picked", at_ms=1)
    assert "1 attempt" in imgpipe("status", path, "mugs/crimson").out
    assert imgpipe("status", path, "--json").json["orphaned"] == 0
    assert imgpipe("run", path, "--json").json["attempts"] == 0


def test_images_of_one_request_are_given_to_one_task_each(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {items: {a: A mug, b: A mug}}}")
    names = {image.name: image.read_bytes() for image in imgpipe.images()}
    path.write_text(path.read_text().replace("a: A mug, b: A mug", "c: A mug, d: A mug, e: A mug"))
    assert imgpipe("plan", path, "--json").json["reasons"] == {"renamed": 2, "new": 1}
    assert imgpipe("run", path, "--json").json["attempts"] == 1
    assert {image.read_bytes() for image in imgpipe.images()} >= set(names.values())


def test_a_copied_row_is_no_rename(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {items: {a: A mug}}}")
    path.write_text(path.read_text().replace("a: A mug", "a: A mug, b: A mug"))
    assert imgpipe("plan", path, "--json").json["reasons"] == {"new": 1}


def test_a_renamed_job_with_a_fixed_name_keeps_its_file(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {output: one, items: {a: A mug}}}")
    path.write_text(path.read_text().replace("mugs:", "cups:").replace("{a:", "{b:"))
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    assert [image.stem for image in imgpipe.images()] == ["one"]


def test_a_renamed_folder_and_a_rating_buy_nothing(imgpipe: Imgpipe) -> None:
    for number, colour in enumerate(("red", "green", "blue")):
        photo(imgpipe.folder / "in" / f"{number}.png", colour)
    path = imgpipe.made(FOLDER.format(glob="in/*.png"))
    photo(imgpipe.folder / "in" / "0.png", "red", rating="5")
    plan = imgpipe("plan", path, "--json").json
    assert (plan["due"], plan["reasons"]) == (0, {})
    (imgpipe.folder / "in").rename(imgpipe.folder / "photos")
    photo(imgpipe.folder / "photos" / "2.png", "pink")
    path.write_text(path.read_text().replace("in/*.png", "photos/*.png"))
    plan = imgpipe("plan", path, "--json").json
    assert plan["due"] == 1, plan
    assert imgpipe("run", path, "--json").json["attempts"] == 1
    assert imgpipe("plan", path, "--json").json["due"] == 0


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "retouched"])
def test_a_renamed_row_whose_image_was_touched_is_not_bought_again(imgpipe: Imgpipe, is_removed: bool) -> None:
    path = imgpipe.made()
    (image,) = (image for image in imgpipe.images() if image.stem == "red")
    image.unlink() if is_removed else photo(image, "white")
    path.write_text(path.read_text().replace("red: A red", "crimson: A red"))
    plan = imgpipe("plan", path, "--json").json
    assert (plan["due"], [group["why"] for group in plan["groups"]]) == (0, ["missing", "unchanged"])
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    assert imgpipe("run", path, "--accept", "edited,absent", "-q").exit == 0
    assert imgpipe("status", path, "--json").json["orphaned"] == 0


@pytest.mark.parametrize("state", ["", "state_dir: state\n"], ids=["with-its-ledger", "ledger-elsewhere"])
def test_a_moved_output_folder_and_a_renamed_folder_and_job_buy_nothing(imgpipe: Imgpipe, state: str) -> None:
    for number, colour in enumerate(("red", "green")):
        photo(imgpipe.folder / "in" / f"{number}.png", colour)
    path = imgpipe.made(FOLDER.format(glob="in/*.png"), extra=state)
    (imgpipe.folder / "in").rename(imgpipe.folder / "photos")
    imgpipe.out.rename(imgpipe.folder / "moved")
    text = path.read_text().replace("in/*.png", "photos/*.png").replace("relight:", "relit:")
    path.write_text(text.replace("output_dir: out", "output_dir: moved"))
    ended = imgpipe("run", path, "--json")
    assert (ended.exit, ended.json["attempts"], ended.json["tasks"]["skipped"]) == (0, 0, 2)
    assert len(list((imgpipe.folder / "moved").glob("relit/**/*.*"))) == 2
    assert imgpipe("plan", path, "--json").json["reasons"] == {}


def test_a_folder_packed_on_a_mac_buys_nothing_again(imgpipe: Imgpipe) -> None:
    photo(imgpipe.folder / "in" / "café.png", "red")
    path = imgpipe.made(FOLDER.format(glob="in/*.png").replace("Relight it", "'{{ file.stem }} at dusk'"))
    (image,) = imgpipe.images()
    (imgpipe.folder / "in" / "café.png").rename(imgpipe.folder / "in" / normalize("NFD", "café.png"))
    ended = imgpipe("run", path, "--json")
    assert (ended.exit, ended.json["attempts"]) == (0, 0)
    assert imgpipe.images() == [image]
    assert imgpipe("run", path, "--json").exit == 0
    assert imgpipe("verify", path).exit == 0


def test_metadata_that_are_sent_are_a_change(imgpipe: Imgpipe) -> None:
    photo(imgpipe.folder / "in" / "0.png", "red")
    jobs = FOLDER.format(glob="in/*.png").replace("prompt:", "keep_metadata: true, prompt:")
    path = imgpipe.made(jobs)
    photo(imgpipe.folder / "in" / "0.png", "red", rating="5")
    assert imgpipe("plan", path, "--json").json["reasons"] == {"inputs changed": 1}


def test_an_accepted_edit_is_silent_and_shown_and_never_replaced(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    (image,) = (image for image in imgpipe.images() if image.stem == "red")
    photo(image, "white")
    assert imgpipe("run", path, "-q").exit == 3
    ended = imgpipe("run", path, "--accept", "edited", "--json")
    assert (ended.exit, ended.json["attempts"]) == (0, 0)
    assert imgpipe("verify", path).exit == 0
    assert imgpipe("status", path, "--json").json["edited"] == 1
    tasks = [line for line in imgpipe("status", path, "--tasks", "--json").out.splitlines() if '"mugs/red"' in line]
    assert '"reason":"edited"' in tasks[0]
    assert imgpipe("explain", image, "--json").json["standing"] == "edited"
    photo(image, "black")  # retouched once more: still the person's
    assert imgpipe("run", path, "--repair", "-q").exit == 0
    path.write_text(path.read_text().replace("A red mug", "A scarlet mug"))
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    assert imgpipe("run", path, "--force", "--json").json["attempts"] == 1
    assert imgpipe("status", path, "--json").json["edited"] == 0


@pytest.mark.parametrize("suffix", [".webp", ".jpeg", ".PNG"])
def test_an_edit_that_was_saved_as_another_kind_is_accepted(imgpipe: Imgpipe, suffix: str) -> None:
    path = imgpipe.made()
    (image,) = (image for image in imgpipe.images() if image.stem == "red")
    image.unlink()
    photo(image.with_suffix(suffix), "white")
    ended = imgpipe("run", path, "--repair")
    assert ended.exit == 3
    assert f"mugs/red{suffix} stands in its place; --accept edited takes that" in ended.err
    assert imgpipe("run", path, "--accept", "edited", "--json").json["attempts"] == 0
    assert imgpipe("run", path, "--repair", "--json").json["attempts"] == 0
    assert imgpipe("verify", path).exit == 0
    assert imgpipe("explain", image.with_suffix(suffix), "--json").json["standing"] == "edited"


def test_an_edited_image_whose_prompt_changed_is_kept_as_its_message_says(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    (image,) = (image for image in imgpipe.images() if image.stem == "red")
    photo(image, "white")
    path.write_text(path.read_text().replace("A red mug", "A scarlet mug"))
    ended = imgpipe("run", path)
    assert ended.exit == 3
    (accept,) = re.findall(r"--accept (\S+) with --select of its id keeps it", ended.err)
    assert imgpipe("run", path, "--accept", accept, "--select", "mugs/red", "--json").json["attempts"] == 0
    assert imgpipe("run", path, "--json").exit == 0


def test_an_accepted_absence_is_silent_until_it_is_asked_for(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    (image,) = (image for image in imgpipe.images() if image.stem == "red")
    image.unlink()
    assert imgpipe("run", path, "-q").exit == 3
    assert imgpipe("run", path, "--accept", "edited,absent", "-q").exit == 0
    ended = imgpipe("run", path, "--repair", "--json")
    assert (ended.exit, ended.json["attempts"]) == (0, 0)
    assert imgpipe("verify", path).exit == 0
    assert imgpipe("status", path, "--json").json["absent"] == 1
    assert imgpipe("status", path).out.startswith("The image is there.")
    assert imgpipe("export", path, "--as", "webdataset", imgpipe.folder / "set").exit == 0
    assert imgpipe("retry", path, "mugs/red", "--json").json["attempts"] == 1
    assert image.exists()


def test_only_selected_edits_are_accepted(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    for image in imgpipe.images():
        image.unlink()
    imgpipe("run", path, "--accept", "absent", "--select", "mugs/red", "-q")
    with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite", isolation_level=None)) as ledger:
        assert dict(ledger.execute("SELECT id, edit FROM task")) == {"mugs/red": "absent", "mugs/blue": ""}


def test_an_unknown_word_of_accept_is_refused(imgpipe: Imgpipe) -> None:
    ended = imgpipe("plan", imgpipe.manifest(), "--accept", "edits")
    assert ended.exit == 2
    assert "edited" in ended.err


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_pixels_are_compared_in_every_kind_that_is_sent(imgpipe: Imgpipe, suffix: str) -> None:
    source = imgpipe.folder / "in" / f"a{suffix}"
    source.parent.mkdir()
    PIL.Image.new("RGB", (64, 64), "red").save(source)
    path = imgpipe.made(FOLDER.format(glob=f"in/*{suffix}"))
    exif = PIL.Image.Exif()
    exif[0x010E] = "a caption"
    PIL.Image.new("RGB", (64, 64), "red").save(source, exif=exif)
    assert imgpipe("plan", path, "--json").json["due"] == 0


def test_picks_that_were_saved_before_a_rename_mean_the_same_image(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    red = next(image for image in imgpipe.images() if image.stem == "red").read_bytes()
    (imgpipe.out / "report").mkdir()
    picks = {"picked": ["mugs/red"], "rejected": [], "images": {"mugs/red": sha256(red).hexdigest()}}
    (imgpipe.out / "report" / "picks.json").write_text(json.dumps(picks))
    path.write_text(path.read_text().replace("red: A red", "crimson: A red"))
    imgpipe("run", path, "-q")
    assert imgpipe("export", path, "--picked", imgpipe.folder / "shop").exit == 0
    assert [each.stem for each in (imgpipe.folder / "shop").rglob("*.*") if each.suffix != ".json"] == ["crimson"]

"""explain: from an image to its task, prompt, attempts and price, wherever the image lies by now."""

import hashlib
import shutil
from pathlib import Path

from tests.cli.conftest import Imgpipe

JOBS = (
    "{mugs: {aspect_ratio: 16:9, output: 'a/{{ id }}', items: {red: {prompt: A red mug, seed: 7}, blue: A blue mug}}}"
)
EMBED = "{mugs: {metadata: embed, items: {red: A red mug}}}"


def image(imgpipe: Imgpipe, stem: str) -> Path:
    return next(path for path in imgpipe.images() if path.stem == stem)


def test_an_image_tells_its_task_prompt_parameters_and_price(imgpipe: Imgpipe) -> None:
    imgpipe.made(JOBS)
    path = image(imgpipe, "red")
    ended = imgpipe("explain", path, "--json")
    assert ended.exit == 0
    told = ended.json
    assert (told["standing"], told["manifest"], told["task"], told["row"]) == ("current", "shop", "mugs/red", "red")
    assert (told["prompt"], told["parameters"]) == ("A red mug", {"aspect_ratio": "16:9", "seed": 7})
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["price_usd"] == told["task_usd"] > 0
    assert [attempt["outcome"] for attempt in told["attempts"]] == ["ok"]
    assert (told["run"], told["state_dir"]) == (1, str(imgpipe.state))


def test_people_read_one_fact_a_line(imgpipe: Imgpipe) -> None:
    imgpipe.made(JOBS)
    out = imgpipe("explain", image(imgpipe, "red")).out
    assert "task        mugs/red\n" in out
    assert "prompt      A red mug\n" in out
    assert "price       play $" in out


def test_a_copy_elsewhere_is_known_by_its_bytes(imgpipe: Imgpipe) -> None:
    imgpipe.made(JOBS)
    moved = imgpipe.folder / "elsewhere" / "poster.png"
    moved.parent.mkdir()
    shutil.copy(image(imgpipe, "red"), moved)
    assert imgpipe("explain", moved).exit == 2
    told = imgpipe("explain", moved, "--state-dir", imgpipe.state, "--json").json
    assert (told["standing"], told["task"], told["prompt"]) == ("copy", "mugs/red", "A red mug")
    assert told["recorded_path"] == str(image(imgpipe, "red"))


def test_an_edited_image_is_known_by_its_place(imgpipe: Imgpipe) -> None:
    imgpipe.made(JOBS)
    path = image(imgpipe, "blue")
    path.write_bytes(path.read_bytes() + b"edit")
    told = imgpipe("explain", path, "--json").json
    assert (told["standing"], told["task"]) == ("edited", "mugs/blue")
    path.unlink()
    assert imgpipe("explain", path, "--json").json["standing"] == "missing"


def test_a_superseded_image_tells_its_own_prompt(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(JOBS)
    manifest.write_text(manifest.read_text().replace("A red mug", "A crimson mug"))
    imgpipe("run", manifest)
    (old,) = (imgpipe.state / "superseded").iterdir()
    told = imgpipe("explain", old, "--json").json
    assert (told["standing"], told["task"], told["attempt"]) == ("superseded", "mugs/red", 1)
    assert (told["prompt"], told["parameters"]["seed"], told["notes"]) == ("A red mug", 7, [])
    assert [attempt["prompt"] for attempt in told["attempts"]] == ["A red mug", "A crimson mug"]
    assert imgpipe("explain", image(imgpipe, "red"), "--json").json["prompt"] == "A crimson mug"


def test_an_adopted_image_tells_the_prompt_of_the_rebuild_after_a_later_one_brought_nothing(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(JOBS)
    (imgpipe.state / "ledger.sqlite").unlink()
    imgpipe("rebuild", manifest)
    manifest.write_text(manifest.read_text().replace("A red mug", "'A crimson mug [[refuse]]'"))
    assert imgpipe("run", manifest).exit == 3
    told = imgpipe("explain", image(imgpipe, "red"), "--json").json
    assert (told["task"], told["prompt"]) == ("mugs/red", "A red mug")


def test_an_accepted_image_still_tells_the_prompt_that_made_it(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(JOBS)
    manifest.write_text(manifest.read_text().replace("A red mug", "A crimson mug"))
    imgpipe("run", manifest, "--accept", "prompt")
    assert imgpipe("explain", image(imgpipe, "red"), "--json").json["prompt"] == "A red mug"


def test_a_moved_image_without_a_ledger_tells_what_it_carries(imgpipe: Imgpipe) -> None:
    imgpipe.made(EMBED)
    moved = imgpipe.folder / "elsewhere.png"
    shutil.move(imgpipe.images()[0], moved)
    shutil.rmtree(imgpipe.out)
    told = imgpipe("explain", moved, "--json").json
    assert (told["standing"], told["manifest"], told["task"]) == ("carried", "shop", "mugs/red")
    assert (told["prompt"], told["price_usd"]) == ("A red mug", None)


def test_an_embedded_image_is_whole_for_verify_and_a_superseded_one_tells_its_own_prompt(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(EMBED)
    assert imgpipe("verify", manifest, "--decode").exit == 0
    manifest.write_text(manifest.read_text().replace("A red mug", "A crimson mug"))
    imgpipe("run", manifest)
    (old,) = (imgpipe.state / "superseded").iterdir()
    assert imgpipe("explain", old, "--json").json["prompt"] == "A red mug"


def test_inputs_are_told_with_their_hashes(imgpipe: Imgpipe) -> None:
    from PIL import Image

    source = imgpipe.folder / "photo.png"
    Image.new("RGB", (64, 64), "green").save(source)
    imgpipe.made("{night: {images: [photo.png], prompt: At night}}")
    told = imgpipe("explain", imgpipe.images()[0], "--json").json
    assert told["inputs"] == [{"path": str(source), "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}]


def test_an_image_nobody_knows_says_what_to_name(imgpipe: Imgpipe) -> None:
    stranger = imgpipe.folder / "stranger.png"
    stranger.write_bytes(b"not ours")
    ended = imgpipe("explain", stranger)
    assert ended.exit == 2
    assert "--state-dir" in ended.err


def test_a_state_dir_that_was_named_is_not_asked_for_again(imgpipe: Imgpipe) -> None:
    imgpipe.made(JOBS)
    stranger = imgpipe.folder / "stranger.png"
    stranger.write_bytes(b"converted")
    ended = imgpipe("explain", stranger, "--state-dir", imgpipe.state)
    assert (ended.exit, "--state-dir" in ended.err) == (2, False)
    assert "deliver.jsonl" in ended.err


def test_a_state_dir_without_a_ledger_is_named(imgpipe: Imgpipe) -> None:
    ended = imgpipe("explain", "x.png", "--state-dir", imgpipe.folder)
    assert ended.exit == 2
    assert "there is no ledger in" in ended.err

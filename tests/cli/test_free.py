"""What costs no request: images that get a new name, changes that are accepted."""

import pytest

from tests.cli.conftest import Imgpipe

JOBS = "{mugs: {output: '%s', items: {red: A red mug, blue: A blue mug}}}"


def names(imgpipe: Imgpipe) -> list[str]:
    return [path.relative_to(imgpipe.out).with_suffix("").as_posix() for path in imgpipe.images()]


def test_a_renamed_output_template_moves_files_without_asking_the_api(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(JOBS % "{{ id }}")
    before = {path.stem: path.read_bytes() for path in imgpipe.images()}
    manifest.write_text(manifest.read_text().replace("'{{ id }}'", "'shop/mug-{{ id }}'"))
    ended = imgpipe("run", manifest, "--json")
    assert (ended.exit, ended.json["attempts"]) == (0, 0)
    assert "2 images: moved to a new name" in ended.err
    assert names(imgpipe) == ["shop/mug-blue", "shop/mug-red"]
    assert {path.stem.removeprefix("mug-"): path.read_bytes() for path in imgpipe.images()} == before
    assert imgpipe("verify", manifest).exit == 0
    assert imgpipe("run", manifest, "--json").err.count("moved to") == 0


def test_plan_says_what_would_move_and_moves_nothing(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(JOBS % "{{ id }}")
    manifest.write_text(manifest.read_text().replace("'{{ id }}'", "'new-{{ id }}'"))
    ended = imgpipe("plan", manifest)
    assert "2 images: a new name or id, no request" in ended.out
    assert names(imgpipe) == ["blue", "red"]


def test_images_that_move_in_a_row_make_way_for_each_other(imgpipe: Imgpipe) -> None:
    items = "{mugs: {output: 'shot-{{ row.n }}', each: {csv: rows.csv, key: sku}, prompt: 'A {{ row.sku }}'}}"
    rows = imgpipe.folder / "rows.csv"
    rows.write_text("sku,n\nred,1\nblue,2\ngold,3\n")
    manifest = imgpipe.made(items)
    red = imgpipe.images()[0].read_bytes()
    rows.write_text("sku,n\nred,2\nblue,3\ngold,4\nnavy,1\ngreen,9\n")
    ended = imgpipe("run", manifest, "--json")
    assert ended.exit == 0, ended.err
    assert ended.json["attempts"] == 2
    assert names(imgpipe) == ["shot-1", "shot-2", "shot-3", "shot-4", "shot-9"]
    assert imgpipe.images()[1].read_bytes() == red


def test_a_foreign_file_under_the_new_name_stops_that_image_only(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(JOBS % "{{ id }}")
    manifest.write_text(manifest.read_text().replace("'{{ id }}'", "'new-{{ id }}'"))
    foreign = imgpipe.out / "new-red.png"
    foreign.write_bytes(b"mine")
    ended = imgpipe("run", manifest, "--json")
    assert ended.exit == 3
    assert names(imgpipe) == ["new-blue", "new-red", "red"]
    assert foreign.read_bytes() == b"mine"
    assert "new-red.png is in the way" in ended.err


def test_an_accepted_change_is_remembered_and_never_bought(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    manifest.write_text(manifest.read_text().replace("provider: {", "provider: {model: gemini-3-pro-image, "))
    planned = imgpipe("plan", manifest, "--json").json
    assert planned["reasons"] == {"model changed": 2}
    (kept,) = (note for note in planned["notes"] if "images made before are replaced" in note)
    assert kept.endswith(f"; to keep them instead: imgpipe run {manifest} --accept model")
    accepted = imgpipe("run", manifest, "--accept", "model", "--json")
    assert (accepted.exit, accepted.json["attempts"]) == (0, 0)
    assert imgpipe("plan", manifest, "--json").json["due"] == 0
    manifest.write_text(manifest.read_text().replace("A red mug", "A RED mug"))
    assert imgpipe("plan", manifest, "--json").json["reasons"] == {"prompt changed": 1}


def test_what_plan_advises_keeps_an_image_that_changed_in_two_ways(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    text = manifest.read_text().replace("provider: {", "provider: {model: gemini-3-pro-image, ")
    manifest.write_text(text.replace("A red mug", "A RED mug").replace(", blue: A blue mug", ""))
    (advice,) = (
        note for note in imgpipe("plan", manifest, "--json").json["notes"] if note.startswith("prompt changed")
    )
    accepted = imgpipe("run", manifest, "--accept", advice.rpartition("--accept ")[2], "--json")
    assert (accepted.exit, accepted.json["attempts"]) == (0, 0)


def test_plan_accept_only_shows(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    manifest.write_text(manifest.read_text().replace("A red mug", "A RED mug"))
    shown = imgpipe("plan", manifest, "--accept", "prompt")
    assert "1 image: taken as good for what is asked now" in shown.out
    assert imgpipe("plan", manifest, "--json").json["due"] == 1


@pytest.mark.parametrize("aspect", ["prompts", "all"])
def test_accept_of_what_is_no_aspect_lists_the_aspects(imgpipe: Imgpipe, aspect: str) -> None:
    ended = imgpipe("run", imgpipe.manifest(), "--accept", aspect)
    assert ended.exit == 2
    assert "inputs" in ended.err

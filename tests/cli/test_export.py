"""export: picked images become copies; a different file is never replaced."""

from pathlib import Path

import PIL.Image

from tests.cli.conftest import Imgpipe
from tests.cli.test_redo import reject


def pick(imgpipe: Imgpipe, *ids: str) -> Path:
    return reject(imgpipe, picked=ids)


def test_picked_images_are_copied_with_their_folders(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    pick(imgpipe, "mugs/red")
    ended = imgpipe("export", manifest, "--picked", "chosen")
    assert ended.exit == 0, ended.err
    (copied,) = (path for path in (imgpipe.folder / "chosen").rglob("*") if path.is_file())
    red = next(path for path in imgpipe.images() if path.stem == "red")
    assert copied.relative_to(imgpipe.folder / "chosen") == red.relative_to(imgpipe.out)
    assert copied.read_bytes() == red.read_bytes()
    assert ended.out.strip() == str(copied.relative_to(imgpipe.folder))


def test_the_same_again_copies_nothing_and_is_well(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    pick(imgpipe, "mugs/red")
    imgpipe("export", manifest, "--picked", "chosen")
    again = imgpipe("export", manifest, "--picked", "chosen", "--json")
    assert again.exit == 0
    assert (again.json["copied"], len(again.json["present"]), again.json["left"]) == ([], 1, [])


def test_a_different_file_is_never_replaced(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    pick(imgpipe, "mugs/red", "mugs/blue")
    red = next(path for path in imgpipe.images() if path.stem == "red")
    mine = imgpipe.folder / "chosen" / red.relative_to(imgpipe.out)
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    ended = imgpipe("export", manifest, "--picked", "chosen", "--json")
    assert ended.exit == 3
    assert mine.read_bytes() == b"mine"
    assert [left["task"] for left in ended.json["left"]] == ["mugs/red"]
    assert len(ended.json["copied"]) == 1
    assert sorted(path.name for path in mine.parent.iterdir()) == sorted(path.name for path in imgpipe.images())


def test_an_image_made_anew_since_it_was_picked_stays_behind(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    picks = pick(imgpipe, "mugs/red")
    picks.write_text('{"picked": ["mugs/red"], "images": {"mugs/red": "%s"}}' % ("0" * 64))
    ended = imgpipe("export", manifest, "--picked", "chosen")
    assert ended.exit == 3
    assert "replaced since it was picked" in ended.err


def test_picked_images_do_not_go_among_the_inputs(imgpipe: Imgpipe) -> None:
    photos = imgpipe.folder / "photos"
    photos.mkdir()
    PIL.Image.effect_noise((64, 64), 50).save(photos / "a.png")
    job = "each: {files: 'photos/**/*.{png,jpg,webp}'}, prompt: At dusk, images: ['{{ file.path }}']"
    manifest = imgpipe.made(f"{{lit: {{{job}}}}}")
    pick(imgpipe, "lit/a.png")
    ended = imgpipe("export", manifest, "--picked", photos / "best")
    assert (ended.exit, list(photos.iterdir())) == (3, [photos / "a.png"])
    assert "would be an input, and a run would buy an image for it" in ended.err


def test_nothing_picked_says_how_to_pick(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    pick(imgpipe)
    ended = imgpipe("export", manifest, "--picked", "chosen")
    assert ended.exit == 2
    assert "key p" in ended.err


def test_a_file_where_the_folder_should_be_is_named(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    pick(imgpipe, "mugs/red")
    (imgpipe.folder / "chosen").write_text("a file")
    ended = imgpipe("export", manifest, "--picked", "chosen")
    assert ended.exit == 5
    assert "chosen" in ended.err
    assert "Traceback" not in ended.err

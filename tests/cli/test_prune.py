"""prune: what takes room is shown, and goes with -y; money, edited images and what waits to be published stay."""

import json
import os
from pathlib import Path

import PIL.Image
import pytest

from tests.cli.conftest import Imgpipe

ALL = ("--superseded", "--rejected", "--orphans")


@pytest.fixture
def shop(imgpipe: Imgpipe) -> Path:
    """A shop with a superseded image, two answers without an image and two orphans; all of it 40 days old."""
    jobs = "{mugs: {items: {a: A, b: B, c: C, d: 'D [[broken_json]]'}}}"
    path = imgpipe.manifest(jobs)
    assert imgpipe("run", path).exit == 3
    path.write_text(path.read_text().replace("a: A, b: B, c: C,", "a: A new mug,"))
    assert imgpipe("run", path).exit == 3
    for file in imgpipe.out.rglob("*"):
        if file.is_file():
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 40 * 86_400))
    return path


def kinds(found: list[dict[str, str]]) -> list[str]:
    return [each["kind"] for each in found]


def files(imgpipe: Imgpipe) -> list[Path]:
    return sorted(path for path in imgpipe.out.rglob("*") if not path.name.startswith("ledger.sqlite-"))


def test_without_yes_it_only_shows(imgpipe: Imgpipe, shop: Path) -> None:
    before = files(imgpipe)
    ended = imgpipe("prune", shop, *ALL, "--json")
    assert kinds(ended.json["files"]) == ["superseded", "rejected", "rejected", "orphans", "orphans"]
    assert ended.json["size_bytes"] == sum(Path(each["path"]).stat().st_size for each in ended.json["files"])
    assert "5 files (" in (shown := imgpipe("prune", shop, *ALL)).err
    assert len(shown.out.splitlines()) == 5
    assert imgpipe("prune", shop, *ALL, "--older", "50d", "--json").json["files"] == []
    assert files(imgpipe) == before


def test_yes_removes_it_and_the_money_stays(imgpipe: Imgpipe, shop: Path) -> None:
    spent = imgpipe("status", shop, "--json").json["cost_usd"]
    gone = [Path(each["path"]) for each in imgpipe("prune", shop, *ALL, "-y", "--json").json["files"]]
    assert [path.stem for path in imgpipe.images()] == ["a"]
    assert not any(path.exists() for path in gone)
    assert not list((imgpipe.state / "rejected").iterdir())
    assert imgpipe("status", shop, "--json").json["cost_usd"] == spent
    assert imgpipe("verify", shop).exit == 0
    assert imgpipe("run", shop, "--json").json["attempts"] == 0


def test_the_age_of_a_superseded_image_counts_from_when_it_was_replaced(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    for image in imgpipe.images():
        os.utime(image, (1, 1))
    path.write_text(path.read_text().replace("A red mug", "A scarlet mug"))
    assert imgpipe("run", path, "--json").json["attempts"] == 1
    assert imgpipe("prune", path, "--superseded", "--older", "30d", "--json").json["files"] == []
    assert len(imgpipe("prune", path, "--superseded", "--older", "0s", "--json").json["files"]) == 1


def test_an_orphan_that_was_edited_stays_and_one_that_is_gone_is_no_trouble(imgpipe: Imgpipe, shop: Path) -> None:
    orphan, gone = (next(path for path in imgpipe.images() if path.stem == stem) for stem in "bc")
    before = orphan.stat()
    orphan.write_bytes(orphan.read_bytes()[:-1] + b"!")
    os.utime(orphan, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some programs do
    gone.unlink()
    ended = imgpipe("prune", shop, "--orphans", "-y", "--json")
    assert (ended.exit, ended.json["files"]) == (0, [])
    assert orphan.exists()


def test_an_image_that_waits_in_rejected_stays(imgpipe: Imgpipe, shop: Path) -> None:
    facts, *_ = (imgpipe.state / "rejected").glob("*.facts.json")
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"is_image": True}))
    os.utime(facts, (1, 1))
    assert kinds(imgpipe("prune", shop, "--rejected", "--json").json["files"]) == ["rejected"]


def test_nothing_named_is_a_mistake(imgpipe: Imgpipe, shop: Path) -> None:
    ended = imgpipe("prune", shop)
    assert ended.exit == 2
    assert "--superseded" in ended.err


def test_an_image_that_a_renamed_row_takes_over_stays(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {items: {red: A red mug, blue: A blue mug}}}")
    imgpipe.manifest("{mugs: {items: {crimson: A red mug}}}")
    gone = imgpipe("prune", path, "--orphans", "--older", "0s", "-y", "--json").json["files"]
    assert [Path(each["path"]).stem for each in gone] == ["blue"]
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    assert [image.stem for image in imgpipe.images()] == ["crimson"]


@pytest.mark.parametrize("job", ["night", "dusk"], ids=["", "and-job"])
def test_images_that_follow_from_a_renamed_row_stay(imgpipe: Imgpipe, job: str) -> None:
    jobs = "{base: {items: {%s}}, night: {each: {job: base}, prompt: At night, images: ['{{ file.path }}']}}"
    path = imgpipe.made(jobs % "red: A red mug, blue: A blue mug")
    imgpipe.manifest((jobs % "crimson: A red mug").replace("night:", f"{job}:"))
    gone = imgpipe("prune", path, "--orphans", "--older", "0s", "-y", "--json").json["files"]
    assert [Path(each["path"]).stem for each in gone] == ["blue"]
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    assert {image.stem for image in imgpipe.images()} == {"crimson", "blue"}  # the latter may go now


def test_superseded_images_of_another_manifest_stay(imgpipe: Imgpipe) -> None:
    shop = imgpipe.made()
    imgpipe.made("{cups: {items: {red: A red cup}}}", name="cups")
    cups = imgpipe.made("{cups: {items: {red: A crimson cup}}}", name="cups")
    older = ("--superseded", "--older", "0s", "--json")
    assert imgpipe("prune", shop, *older).json["files"] == []
    assert kinds(imgpipe("prune", cups, *older).json["files"]) == ["superseded"]


def test_images_of_rows_that_cannot_be_read_now_stay(imgpipe: Imgpipe) -> None:
    photos = imgpipe.folder / "photos"
    photos.mkdir()
    for name, colour in (("a", 10), ("b", 20)):
        PIL.Image.new("L", (64, 64), colour).save(photos / f"{name}.png")
    job = "each: {files: 'photos/*.png', root: photos}, prompt: x, images: ['{{ file.path }}'], skip_broken: true"
    path = imgpipe.made(f"{{night: {{{job}}}}}")
    (photos / "a.png").write_bytes(b"half a file")
    assert imgpipe("prune", path, "--orphans", "--older", "0s", "--json").json["files"] == []
    (photos / "a.png").unlink()
    assert kinds(imgpipe("prune", path, "--orphans", "--older", "0s", "--json").json["files"]) == ["orphans"]


def test_images_of_a_job_without_rows_stay_for_its_drive_may_not_be_mounted(imgpipe: Imgpipe) -> None:
    photos = imgpipe.folder / "photos"
    photos.mkdir()
    PIL.Image.new("L", (64, 64)).save(photos / "a.png")
    job = "{each: {files: 'photos/*.png', root: photos, allow_empty: true}, prompt: x, images: ['{{ file.path }}']}"
    path = imgpipe.made(f"{{night: {job}, gone: {{prompt: y}}}}")
    orphans = ("prune", path, "--orphans", "--older", "0s", "--json")
    (photos / "a.png").rename(imgpipe.folder / "a.png")
    assert imgpipe(*orphans).json["files"] == []
    (imgpipe.folder / "a.png").rename(photos / "b.png")
    imgpipe.manifest(f"{{night: {job}}}")
    assert [file["task"].partition("/")[0] for file in imgpipe(*orphans).json["files"]] == ["gone"]

"""Input images that cannot be made fit here and now: the plan says so, and they are pending until the cause is gone."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.imaging.convert import OutOfMemoryError
from tests.cli.conftest import Imgpipe

JOBS = "{looks: {each: {files: 'photos/*', root: photos}, images: ['{{ file.path }}'], prompt: The same at dusk}}"


def photo(folder: Path, name: str) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    (folder / "photos").mkdir(exist_ok=True)
    Image.effect_noise((64, 48), 60).convert("RGB").save(folder / "photos" / name)


@pytest.fixture
def without_heic(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for module in ("pipeline.provider.request", "pipeline.app.planning"):
        monkeypatch.setattr(f"{module}.find_spec", lambda _name: None)
    return monkeypatch


def test_a_missing_extra_is_told_by_plan_and_its_tasks_are_pending_until_it_is_there(
    imgpipe: Imgpipe, without_heic: pytest.MonkeyPatch
) -> None:
    for name in ("a.heic", "b.HEIC", "c.png"):
        photo(imgpipe.folder, name)
    manifest = imgpipe.manifest(JOBS)
    planned = imgpipe("plan", manifest)
    assert "2 input images (such as a.heic) need the HEIC decoder" in planned.out + planned.err
    assert "imgpipe[heic]" in planned.out + planned.err
    first = imgpipe("run", manifest, "--json")
    assert (first.exit, first.json["tasks"]["pending"], first.json["tasks"]["failed"]) == (75, 2, 0)
    assert first.json["attempts"] == 1
    without_heic.undo()
    assert "HEIC" not in imgpipe("plan", manifest).err
    assert imgpipe("run", manifest, "--json").json["tasks"]["done"] == 2


@pytest.mark.parametrize("content", [b"hello", b"<svg/>", b"%PDF-1.7"], ids=["text", "I06-svg", "I06-pdf"])
def test_plan_names_an_input_that_is_no_image_and_its_task_fails_unsent(imgpipe: Imgpipe, content: bytes) -> None:
    photo(imgpipe.folder, "a.png")
    (imgpipe.folder / "photos" / "b.png").write_bytes(content)
    manifest = imgpipe.manifest(JOBS)
    says = "1 input file (such as b.png of looks/b.png) is no image"
    assert says in imgpipe("plan", manifest).out
    ended = imgpipe("run", manifest, "--json")
    assert (ended.exit, ended.json["tasks"]["failed"], ended.json["images"]) == (3, 1, 1)
    assert says in ended.err


def test_a_picture_that_takes_too_much_here_is_pending(imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(imgpipe.folder, "a.tiff")
    manifest = imgpipe.manifest(JOBS)
    monkeypatch.setattr("pipeline.provider.request.convert", _takes_too_much)
    ended = imgpipe("run", manifest, "--json")
    assert (ended.exit, ended.json["tasks"]["pending"], ended.json["attempts"]) == (75, 1, 0)
    assert "too much memory" in imgpipe("status", manifest, "looks/a.tiff").out
    monkeypatch.undo()
    monkeypatch.chdir(imgpipe.folder)
    assert imgpipe("run", manifest, "--json").exit == 0


def _takes_too_much(*_: object) -> None:
    raise OutOfMemoryError("cannot be converted here: it takes too much memory")

"""A manifest file that gets another name: nothing is bought again, and what to write is said."""

import shutil

import pytest

from tests.cli.conftest import Imgpipe


@pytest.mark.parametrize("output_dir", ["output_dir: out\n", ""], ids=["one-folder", "a-folder-by-name"])
def test_a_renamed_manifest_is_recognised_and_buys_nothing(imgpipe: Imgpipe, output_dir: str) -> None:
    old = imgpipe.manifest(name="nightly")
    old.write_text(old.read_text().replace("output_dir: out\n", output_dir))
    assert imgpipe("run", old, "-q").exit == 0
    new = old.rename(imgpipe.folder / "weekly.yaml")
    ended = imgpipe("run", new)
    assert ended.exit == 2
    assert "looks like 'nightly', renamed" in ended.err
    assert "write `name: nightly`" in ended.err
    assert imgpipe("plan", new).exit == 2
    new.write_text(f"name: nightly\n{new.read_text()}")
    assert imgpipe("run", new, "--json").json["attempts"] == 0


def test_a_copy_beside_its_original_is_another_manifest(imgpipe: Imgpipe) -> None:
    old = imgpipe.manifest(name="nightly")
    old.write_text(old.read_text().replace("output_dir: out\n", ""))
    assert imgpipe("run", old, "-q").exit == 0
    copy = shutil.copy(old, imgpipe.folder / "weekly.yaml")
    assert imgpipe("run", copy, "--json").json["attempts"] == 2


def test_another_name_that_is_written_buys_anew(imgpipe: Imgpipe) -> None:
    old = imgpipe.manifest(name="nightly")
    old.write_text(old.read_text().replace("output_dir: out\n", ""))
    assert imgpipe("run", old, "-q").exit == 0
    new = old.rename(imgpipe.folder / "weekly.yaml")
    new.write_text(f"name: weekly\n{new.read_text()}")
    assert imgpipe("run", new, "--json").json["attempts"] == 2


@pytest.mark.parametrize("kind", ["text", "folder", "csv", "matrix"])
def test_init_writes_the_name(imgpipe: Imgpipe, kind: str) -> None:
    assert imgpipe("init", "--example", kind, imgpipe.folder / "first.yaml").exit == 0
    assert "\nname: first " in (imgpipe.folder / "first.yaml").read_text()


def test_init_says_what_to_write_next_also_for_a_name_with_spaces(imgpipe: Imgpipe) -> None:
    path = imgpipe.folder / "my shop.yaml"
    assert imgpipe("init", path).err == f"next: imgpipe plan '{path}'; imgpipe run '{path}'\n"

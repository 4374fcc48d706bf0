"""A manifest file that gets another name: nothing is bought again, and what to write is said."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from unicodedata import normalize

import pytest

from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.manifest.loader import load
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


def test_a_renamed_manifest_is_recognised_by_what_an_earlier_version_recorded(imgpipe: Imgpipe) -> None:
    apart = normalize("NFD", "Küche")
    old = imgpipe.made(f"{{mugs: {{items: {{red: A {apart}, blue: Blue {apart}}}}}}}", name="nightly")
    with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite")) as ledger, ledger:
        for task in Expansion(load(old), digests=read_digest):
            assert task.former is not None
            row = {"id": task.id, "former": task.former.fingerprint}
            ledger.execute("UPDATE task SET fingerprint = :former, made = :former WHERE id = :id", row)
    ended = imgpipe("plan", old.rename(imgpipe.folder / "weekly.yaml"))
    assert (ended.exit, "looks like 'nightly', renamed" in ended.err) == (2, True)


def test_a_copy_beside_its_original_is_another_manifest(imgpipe: Imgpipe) -> None:
    old = imgpipe.manifest(name="nightly")
    old.write_text(old.read_text().replace("output_dir: out\n", ""))
    assert imgpipe("run", old, "-q").exit == 0
    copy = shutil.copy(old, imgpipe.folder / "weekly.yaml")
    assert imgpipe("run", copy, "--json").json["attempts"] == 2


def test_another_name_that_is_written_buys_again(imgpipe: Imgpipe) -> None:
    old = imgpipe.manifest(name="nightly")
    old.write_text(old.read_text().replace("output_dir: out\n", ""))
    assert imgpipe("run", old, "-q").exit == 0
    new = old.rename(imgpipe.folder / "weekly.yaml")
    new.write_text(f"name: weekly\n{new.read_text()}")
    assert imgpipe("run", new, "--json").json["attempts"] == 2


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("archive", ""),
        ("jobs/2027", ""),
        ("jobs/2027", "output_dir: ../pictures\n"),
        ("jobs/2027", "output_dir: ../pictures\nstate_dir: ../state\n"),
    ],
    ids=["beside", "below", "written", "written-with-state"],
)
def test_a_manifest_moved_without_its_images_buys_nothing(imgpipe: Imgpipe, folder: str, place: str) -> None:
    old = _in_jobs(imgpipe, place)
    assert imgpipe("run", old, "-q").exit == 0
    new = imgpipe.folder / folder / "shop.yaml"
    new.parent.mkdir()
    old.rename(new)
    ended = imgpipe("run", new)
    assert ended.exit == 2
    assert "looks like it was moved here" in ended.err
    written = re.findall(r"`(\w+_dir: [^`]+)`", ended.err)
    lines = [line for line in new.read_text().splitlines() if "_dir:" not in line]
    new.write_text("\n".join([*written, *lines]))
    assert imgpipe("run", new, "--json").json["attempts"] == 0


def test_a_copy_in_another_folder_or_of_another_name_buys_again(imgpipe: Imgpipe) -> None:
    old = _in_jobs(imgpipe, "")
    assert imgpipe("run", old, "-q").exit == 0
    new = imgpipe.folder / "archive" / "shop.yaml"
    new.parent.mkdir()
    shutil.copy(old, new)
    assert imgpipe("plan", new, "--json").json["due"] == 2
    old.unlink()
    new.write_text(f"name: spring\n{new.read_text()}")
    assert imgpipe("plan", new, "--json").json["due"] == 2


def _in_jobs(imgpipe: Imgpipe, place: str) -> Path:
    path = imgpipe.manifest()
    path.write_text(
        path.read_text()
        .replace("output_dir: out\n", place)
        .replace("shop-profile.yaml", str(imgpipe.folder / "shop-profile.yaml"))
    )
    (imgpipe.folder / "jobs").mkdir()
    return path.rename(imgpipe.folder / "jobs" / "shop.yaml")


def test_another_name_in_the_same_folder_is_told_which_name_has_the_images(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(extra="name: shop")
    path.write_text(path.read_text().replace("name: shop", "name: store"))
    ended = imgpipe("run", path)
    assert ended.exit == 2
    assert "if this is manifest shop by another name, write `name: shop`: it has the images" in ended.err


def test_a_folder_of_images_that_was_renamed_is_named_before_all_is_bought_again(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(extra="name: shop")
    said = f"{imgpipe.folder / 'out-2026'} has the images of this manifest"
    assert said not in imgpipe("plan", path).out
    imgpipe.out.rename(imgpipe.folder / "out-2026")
    assert any(note.startswith(said) for note in imgpipe("plan", path, "--json").json["notes"])
    assert said in imgpipe("run", path).err
    assert said not in imgpipe("plan", path).out


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may look everywhere")
def test_folders_of_others_that_may_not_be_looked_into_stop_nobody(imgpipe: Imgpipe) -> None:
    path = _in_jobs(imgpipe, "")
    closed = [imgpipe.folder / "outputs" / "theirs" / ".pipeline", imgpipe.folder / "jobs" / "jobs"]
    for folder in closed:
        folder.mkdir(parents=True)
        folder.chmod(0)
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    ended = subprocess.run([*without, sys.executable, "-m", "pipeline", "plan", path], capture_output=True, text=True)
    for folder in closed:
        folder.chmod(0o700)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["text", "folder", "csv", "matrix"])
def test_init_writes_the_name(imgpipe: Imgpipe, kind: str) -> None:
    assert imgpipe("init", "--example", kind, imgpipe.folder / "first.yaml").exit == 0
    assert "\nname: first " in (imgpipe.folder / "first.yaml").read_text()


def test_init_says_what_to_write_next_also_for_a_name_with_spaces(imgpipe: Imgpipe) -> None:
    path = imgpipe.folder / "my shop.yaml"
    assert imgpipe("init", path).err == f"next: imgpipe plan '{path}'; imgpipe run '{path}'\n"

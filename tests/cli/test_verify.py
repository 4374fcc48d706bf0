"""verify: missing, changed, unrecorded, each with what to do; nothing is touched."""

import shutil

import pytest

from tests.cli.conftest import Imgpipe


def test_all_well_is_said_with_exit_0(imgpipe: Imgpipe) -> None:
    ended = imgpipe("verify", imgpipe.made(), "--decode")
    assert (ended.exit, ended.out) == (0, "")
    assert "2 images checked, all well" in ended.err


def test_missing_and_changed_images_are_named_with_the_command_that_mends_them(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    blue, red = imgpipe.images()
    blue.unlink()
    red.write_bytes(red.read_bytes() + b"my edit")
    ended = imgpipe("verify", manifest)
    assert ended.exit == 3
    assert f"missing: mugs/{blue.name}" in ended.out
    assert f"changed: mugs/{red.name}" in ended.out
    assert "--repair --force" in ended.err
    for verb in ("plan", "run", "status"):  # --repair alone leaves the edited one
        ended = imgpipe(verb, manifest)
        assert "--repair --force" in ended.out + ended.err


def test_json_has_every_kind_and_the_exit_code(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    (imgpipe.out / "mine.png").write_bytes(b"not ours")
    ended = imgpipe("verify", manifest, "--json")
    assert ended.json == {
        "checked": 2, "missing": [], "changed": [], "undecodable": [], "unreadable": [],
        "unrecorded": ["mine.png"], "has_ledger": True, "exit": 0,
    }  # fmt: skip


def test_what_the_manifest_no_longer_has_may_be_removed_by_hand(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    blue, red = imgpipe.images()
    manifest.write_text(manifest.read_text().replace("red: A red mug, ", ""))
    red.unlink()
    ended = imgpipe("verify", manifest)
    assert (ended.exit, ended.err) == (0, "1 image checked, all well.\n")
    blue.unlink()
    ended = imgpipe("verify", manifest, "--json")
    assert (ended.exit, ended.json["missing"]) == (3, [f"mugs/{blue.name}"])


def test_a_retouched_image_of_another_kind_is_not_to_be_removed(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    imgpipe.images()[0].write_bytes(b"II*\0 a picture of a photo program")
    imgpipe("run", manifest, "--accept", "edited")
    ended = imgpipe("verify", manifest, "--decode")
    assert ended.exit == 3
    assert "cannot be decoded: save those you edited as PNG, JPEG or WebP; remove the others, then" in ended.err


@pytest.mark.parametrize(
    ("mode", "why"), [(0o644, ": Permission denied"), (0o755, " with {}")], ids=["noexec", "another-program"]
)
def test_an_image_is_not_blamed_for_a_decoder_that_cannot_be_started(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch, mode: int, why: str
) -> None:
    manifest = imgpipe.made()
    python = imgpipe.folder / "python"
    python.write_text("#!/bin/sh\nexit 2\n")
    python.chmod(mode)
    monkeypatch.setattr("sys.executable", str(python))
    found = imgpipe("verify", manifest, "--decode", "--json").json
    reasons = [f"mugs/{each.name}: the decoder cannot be started{why.format(python)}" for each in imgpipe.images()]
    assert (found["undecodable"], sorted(found["unreadable"]), found["exit"]) == ([], sorted(reasons), 3)


def test_thumbnails_of_the_report_are_nobodys_images(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    assert imgpipe("report", manifest).exit == 0
    assert list((imgpipe.out / "report" / "thumbs").iterdir())
    assert imgpipe("verify", manifest, "--json").json["unrecorded"] == []


def test_images_without_a_ledger_point_to_rebuild_before_a_run_buys_them_again(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    shutil.rmtree(imgpipe.state)
    ended = imgpipe("verify", manifest)
    assert ended.exit == 3
    assert "imgpipe rebuild" in ended.err


def test_before_the_first_run_it_says_so(imgpipe: Imgpipe) -> None:
    ended = imgpipe("verify", imgpipe.manifest())
    assert ended.exit == 0
    assert "Nothing was made yet" in ended.err
    assert not imgpipe.out.exists()


def test_an_image_whose_name_is_not_unicode_is_unrecorded(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    (imgpipe.out / "\udcff.png").write_bytes(b"not ours")
    assert imgpipe("verify", manifest, "--json").json["unrecorded"] == ["\udcff.png"]
    assert "unrecorded: " in imgpipe("verify", manifest).out

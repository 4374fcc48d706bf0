"""What the output directory tells a plan."""

import os
from pathlib import Path

import pytest

from pipeline.plan.presence import Files


def test_a_file_that_a_part_beside_it_links_to_is_half_published(tmp_path: Path) -> None:
    folder = tmp_path / "mugs"
    folder.mkdir()
    part = folder / f".part-0123abcd-7-{'a' * 64}"
    part.write_bytes(b"red")
    os.link(part, folder / "red.png")
    (folder / "blue.png").write_bytes(b"red")
    assert not Files(tmp_path, ledger_id="99999999").is_half_published("mugs/red.png")  # another ledger records it
    files = Files(tmp_path, ledger_id="0123abcd")
    assert files.is_half_published("mugs/red.png")
    assert not files.is_half_published("mugs/blue.png")
    assert not files.is_half_published("gone/red.png")


def test_a_folder_of_somebody_else_is_a_barrier_for_what_is_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path / "theirs")  # root may do everything
    files = Files(tmp_path)
    assert files.barrier("theirs/deep/a") == "the folder theirs cannot be written to"
    assert files.barrier("ours/a") is None
    assert files.barrier("a") is None
    assert Files(tmp_path / "new").barrier("a") is None

"""What the output directory tells a plan."""

import os
from pathlib import Path

from pipeline.plan import Files


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

"""What the output directory tells a plan."""

import os
from pathlib import Path

from pipeline.plan import Files


def test_a_file_that_a_part_beside_it_links_to_is_half_published(tmp_path: Path) -> None:
    folder = tmp_path / "mugs"
    folder.mkdir()
    (folder / ".part-7-abc").write_bytes(b"red")
    os.link(folder / ".part-7-abc", folder / "red.png")
    (folder / "blue.png").write_bytes(b"red")
    files = Files(tmp_path)
    assert files.is_half_published("mugs/red.png")
    assert not files.is_half_published("mugs/blue.png")
    assert not files.is_half_published("gone/red.png")

"""A manifest of a stranger moves no cursor and renames no window of the terminal that shows what it makes."""

from pathlib import Path

from tests.cli.conftest import Imgpipe
from tests.cli.test_export import pick

OSC = r"o\e]0;owned\a"


def test_control_sequences_in_output_dir_are_written_out(imgpipe: Imgpipe, tmp_path: Path) -> None:
    path = imgpipe.manifest()
    path.write_text(path.read_text().replace("output_dir: out", f'output_dir: "{OSC}"'))
    assert imgpipe("run", path, "-q").exit == 0
    imgpipe.out.mkdir()
    picks = pick(imgpipe, "mugs/red")
    for ended in (
        imgpipe("report", path),
        imgpipe("export", path, "--picked", tmp_path / "\x1b]0;owned", "--picks", picks),
        imgpipe("validate", path),
        imgpipe("status", path),
    ):
        assert "\x1b" not in ended.out + ended.err, ended
        assert ended.exit == 0, ended.err

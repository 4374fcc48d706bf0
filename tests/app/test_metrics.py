from pathlib import Path

import pytest

from pipeline.app.notify import metrics_text, write_metrics
from pipeline.errors import Exit


def test_metrics_are_gauges_labelled_by_manifest(summary) -> None:
    lines = metrics_text(summary(exit=Exit.SOME_FAILED, failed=3), manifest="catalogue", finished_at=5.5).splitlines()
    assert 'imgpipe_last_run_exit_code{manifest="catalogue"} 3' in lines
    assert 'imgpipe_last_run_tasks{manifest="catalogue",state="failed"} 3' in lines
    assert 'imgpipe_last_run_spent_usd{manifest="catalogue",is_play_money="false"} 2.34' in lines
    assert 'imgpipe_last_run_finished_timestamp_seconds{manifest="catalogue"} 5.5' in lines
    assert len([line for line in lines if line.startswith("# TYPE")]) == 9


def test_a_label_cannot_break_out(summary) -> None:
    text = metrics_text(summary(), manifest='a"} 1\n\\', finished_at=0)
    assert r'imgpipe_last_run_attempts{manifest="a\"} 1\n\\"} 61' in text.splitlines()


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "imgpipe.prom"
    write_metrics(path, "a 1\n")
    write_metrics(path, "a 2\n")
    assert path.read_text() == "a 2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_metrics(tmp_path / "no" / "imgpipe.prom", "a 1\n")

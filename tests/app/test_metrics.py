import os
from pathlib import Path

import pytest

from pipeline.app.notify import metrics_text, write_metrics
from pipeline.errors import Exit

OURS = "# HELP imgpipe_last_run_a b\n"


def test_metrics_are_gauges_labelled_by_manifest(summary) -> None:
    lines = metrics_text(summary(exit=Exit.SOME_FAILED, failed=3), manifest="catalogue", finished_at=5.5).splitlines()
    assert 'imgpipe_last_run_exit_code{manifest="catalogue"} 3.0' in lines
    assert 'imgpipe_last_run_tasks{manifest="catalogue",state="failed"} 3.0' in lines
    assert 'imgpipe_last_run_spent_usd{is_play_money="false",manifest="catalogue"} 2.34' in lines
    assert 'imgpipe_last_run_finished_timestamp_seconds{manifest="catalogue"} 5.5' in lines
    assert len([line for line in lines if line.startswith("# TYPE")]) == 9


def test_a_label_cannot_break_out(summary) -> None:
    text = metrics_text(summary(), manifest='a"} 1\n\\', finished_at=0)
    assert r'imgpipe_last_run_attempts{manifest="a\"} 1\n\\"} 61.0' in text.splitlines()


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "imgpipe.prom"
    write_metrics(path, f"{OURS}a 1\n")
    write_metrics(path, f"{OURS}a 2\n")
    assert path.read_text() == f"{OURS}a 2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_collector_of_another_user_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        write_metrics(tmp_path / "imgpipe.prom", OURS)
    finally:
        os.umask(umask)
    assert (tmp_path / "imgpipe.prom").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_metrics(tmp_path / "no" / "imgpipe.prom", "a 1\n")


@pytest.mark.parametrize("name", ["x.prom", ".bashrc", "id_ed25519", "metrics.txt"])
def test_a_file_that_is_not_ours_is_never_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("# HELP node_load1 mine\n")
    with pytest.raises(FileExistsError):
        write_metrics(path, OURS)
    assert path.read_text() == "# HELP node_load1 mine\n"
    assert list(tmp_path.iterdir()) == [path]


def test_only_a_prom_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_metrics(tmp_path / ".bashrc", OURS)
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "x.prom"
    target.write_text(OURS)
    path.symlink_to(target)
    with pytest.raises(FileExistsError):
        write_metrics(path, OURS + "a 2\n")
    assert (target.read_text(), path.is_symlink()) == (OURS, True)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.prom")
    with pytest.raises(FileExistsError):
        write_metrics(tmp_path / "x.prom", OURS)


def test_what_is_written_is_taken_for_ours_the_next_time(tmp_path: Path, summary) -> None:
    path = tmp_path / "x.prom"
    for number in (1, 2):
        write_metrics(path, metrics_text(summary(images=number), manifest="shop", finished_at=0))
    assert 'imgpipe_last_run_images{manifest="shop"} 2.0' in path.read_text()

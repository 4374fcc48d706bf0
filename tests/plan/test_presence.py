"""What the output directory tells a plan."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.model import Artifact
from pipeline.plan.decide import Files, Objects
from pipeline.store.files import Disk, FileComparison, comparison_of
from pipeline.store.integrity import compare_files
from pipeline.store.tree import Tree


def test_a_file_with_the_bytes_of_a_part_beside_it_is_half_published(tmp_path: Path) -> None:
    folder = tmp_path / "mugs"
    folder.mkdir()
    part = folder / f".part-0123abcd-7-{hashlib.sha256(b'red').hexdigest()}"
    part.write_bytes(b"red")
    (folder / "red.png").write_bytes(b"red")  # not linked: some file systems number two links as two files
    (folder / "blue.png").write_bytes(b"blue")
    assert not Files(tmp_path, ledger_id="99999999").is_half_published("mugs/red.png")  # another ledger records it
    files = Files(tmp_path, ledger_id="0123abcd")
    assert files.is_half_published("mugs/red.png")
    assert not files.is_half_published("mugs/blue.png")
    assert not files.is_half_published("gone/red.png")
    (folder / "link.png").symlink_to("red.png")
    os.mkfifo(folder / "fifo.png")  # which nobody writes to: to open it would wait for ever
    assert not files.is_half_published("mugs/link.png")
    assert not files.is_half_published("mugs/fifo.png")


def test_a_second_link_to_its_own_image_is_not_in_the_way(tmp_path: Path) -> None:
    for name in ("old", "other"):
        (tmp_path / f"{name}.png").write_bytes(b"image")
    (tmp_path / "new.png").hardlink_to(tmp_path / "old.png")  # a move that was killed
    files = Files(tmp_path)
    assert [files.in_the_way("new", own) for own in ("old.png", "other.png", None)] == [None, "new.png", "new.png"]


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


RECORDED_NS = 10**18


def _artifact(path: str, data: bytes, mtime_ns: int) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    return Artifact(
        path=path, sha256=digest, mime="image/png", width=1, height=1, size_bytes=len(data), mtime_ns=mtime_ns
    )


def _make_same(path: Path) -> None:
    path.write_bytes(b"image")


def _make_touched(path: Path) -> None:
    _make_same(path)
    os.utime(path, ns=(1, 1))


def _make_longer(path: Path) -> None:
    path.write_bytes(b"longer than it was")
    os.utime(path, ns=(RECORDED_NS, RECORDED_NS))


def _make_edited(path: Path) -> None:
    path.write_bytes(b"IMAGE")
    os.utime(path, ns=(1, 1))


def _make_folder_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(_make_same, FileComparison.SAME, id="same"),
        pytest.param(_make_touched, FileComparison.TOUCHED, id="touched"),
        pytest.param(_make_edited, FileComparison.CHANGED, id="edited"),
        pytest.param(lambda path: path.write_bytes(b"longer than it was"), FileComparison.CHANGED, id="size"),
        pytest.param(_make_longer, FileComparison.CHANGED, id="size-at-the-same-time"),
        pytest.param(lambda path: path.mkdir(), FileComparison.CHANGED, id="a-folder"),
        pytest.param(lambda path: path.symlink_to("elsewhere"), FileComparison.CHANGED, id="a-link"),
        pytest.param(lambda path: None, FileComparison.MISSING, id="gone"),
        pytest.param(lambda path: path.parent.rmdir(), FileComparison.MISSING, id="folder-gone"),
        pytest.param(_make_folder_a_file, FileComparison.MISSING, id="folder-is-a-file"),
    ],
)
def test_P4_P6_a_plan_and_a_start_compare_files_alike(
    tmp_path: Path, make: Callable[[Path], object], expected: FileComparison
) -> None:
    path = tmp_path / "a" / "x.png"
    path.parent.mkdir()
    make(path)
    mtime_ns = path.lstat().st_mtime_ns if expected is FileComparison.SAME else RECORDED_NS
    is_file = path.is_file() or not os.path.lexists(path)
    artifact = _artifact("a/x.png", b"image" if is_file else bytes(path.lstat().st_size), mtime_ns)
    outputs = Tree(tmp_path, Disk(), warn=lambda _: None)
    try:
        ((_, _, found),) = compare_files(outputs, [(None, artifact)])
    finally:
        outputs.close()
    assert found is Files(tmp_path).compare(artifact) is expected


@pytest.mark.parametrize(
    ("path", "size_bytes", "version", "expected"),
    [
        ("a/x.png", 5, 7, FileComparison.SAME),
        ("a/x.png", 5, 8, FileComparison.CHANGED),
        ("a/x.png", 6, 7, FileComparison.CHANGED),
        ("a/x.jpg", 5, 7, FileComparison.MISSING),
    ],
)
def test_an_object_is_compared_by_its_size_and_version(
    path: str, size_bytes: int, version: int, expected: FileComparison
) -> None:
    objects = Objects([(path, size_bytes, version)], lambda _path: False)
    assert objects.compare(_artifact("a/x.png", b"image", 7)) is expected


def test_a_file_that_may_not_be_read_is_changed_and_a_dead_disk_says_nothing_of_it() -> None:
    assert comparison_of(PermissionError(errno.EACCES, "denied")) is FileComparison.CHANGED
    with pytest.raises(OSError, match="dead"):
        comparison_of(OSError(errno.EIO, "dead"))

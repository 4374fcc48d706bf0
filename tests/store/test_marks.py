"""Marks: written while a run goes on, merged by time, a damaged file left as it is."""

import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import LedgerError, StorageError, TryLater
from pipeline.model import Mark
from pipeline.store.marks import NAME, Marks, read_marks

SHA, OTHER = "a" * 64, "b" * 64


def test_nothing_is_marked_before_there_is_a_file(tmp_path: Path) -> None:
    assert read_marks(tmp_path, manifest="m") == {}
    assert list(tmp_path.iterdir()) == []


def test_a_change_of_one_field_leaves_the_others(tmp_path: Path) -> None:
    with Marks(tmp_path, manifest="m") as one, Marks(tmp_path, manifest="m") as two:
        one.edit({"j/a": {"sha256": SHA, "kind": "picked"}}, at_ms=1)
        two.edit({"j/a": {"sha256": SHA, "note": "warm"}}, at_ms=2)
    assert read_marks(tmp_path, manifest="m") == {"j/a": Mark(kind="picked", note="warm", sha256=SHA, at_ms=2)}
    assert read_marks(tmp_path, manifest="other") == {}


def test_a_mark_of_another_image_starts_afresh(tmp_path: Path) -> None:
    with Marks(tmp_path, manifest="m") as marks:
        marks.edit({"j/a": {"sha256": SHA, "kind": "rejected", "note": "dull"}}, at_ms=1)
        marks.edit({"j/a": {"sha256": OTHER, "stars": 4}}, at_ms=2)
    assert read_marks(tmp_path, manifest="m") == {"j/a": Mark(stars=4, sha256=OTHER, at_ms=2)}


def test_windows_are_told_what_is_new_and_only_that(tmp_path: Path) -> None:
    with Marks(tmp_path, manifest="m") as one, Marks(tmp_path, manifest="m") as two:
        one.edit({"j/a": {"sha256": SHA, "stars": 1}}, at_ms=1)
        change, found = two.since(0)
        assert list(found) == ["j/a"]
        assert two.since(change) == (change, {})
        one.edit({"j/b": {"sha256": SHA, "stars": 2}}, at_ms=2)
        assert list(two.since(change)[1]) == ["j/b"]


def test_a_merge_keeps_what_is_later(tmp_path: Path) -> None:
    with Marks(tmp_path, manifest="m") as marks:
        marks.edit({"j/a": {"sha256": SHA, "kind": "picked"}}, at_ms=5)
        taken = marks.merge({"j/a": Mark(kind="rejected", at_ms=4), "j/b": Mark(kind="rejected", at_ms=4)})
    assert taken == 1
    assert {name: mark.kind for name, mark in read_marks(tmp_path, manifest="m").items()} == {
        "j/a": "picked",
        "j/b": "rejected",
    }


def test_all_of_a_change_or_nothing(tmp_path: Path) -> None:
    with Marks(tmp_path, manifest="m") as marks:
        with pytest.raises(sqlite3.IntegrityError):
            marks.edit({"j/a": {"sha256": SHA, "stars": 1}, "j/b": {"sha256": SHA, "stars": 9}}, at_ms=1)
        assert marks.since(0) == (0, {})


def test_a_full_disk_is_named_and_the_marks_are_not_to_be_moved_away(tmp_path: Path) -> None:
    with Marks(tmp_path, manifest="m") as marks:
        marks._connection.execute("PRAGMA max_page_count = 5")
        for _ in range(2):
            with pytest.raises(StorageError, match="the disk is full"):
                marks.edit({f"j/{number}": {"note": "n" * 3000} for number in range(9)}, at_ms=1)
        marks.edit({"j/a": {"stars": 1}}, at_ms=2)
    assert list(read_marks(tmp_path, manifest="m")) == ["j/a"]


def test_a_reader_that_stays_holds_up_only_the_change_that_met_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.marks.BUSY_S", 0.01)
    with Marks(tmp_path, manifest="m") as marks:
        with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as backup:
            backup.execute("BEGIN")
            backup.execute("SELECT count(*) FROM mark").fetchone()
            with pytest.raises(TryLater, match="is locked by another program"):
                marks.edit({"j/a": {"stars": 1}}, at_ms=1)
        marks.edit({"j/b": {"stars": 1}}, at_ms=2)
    assert list(read_marks(tmp_path, manifest="m")) == ["j/b"]


def mark_many(state_dir: str, name: str) -> None:
    with Marks(Path(state_dir), manifest="m") as marks:
        for number in range(20):
            marks.edit({f"{name}/{number}": {"sha256": SHA, "kind": "picked"}}, at_ms=number)


def test_several_processes_write_at_once_and_lose_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=mark_many, args=(str(tmp_path), name)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(read_marks(tmp_path, manifest="m")) == 40


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no database, and longer than a header" * 9),
        lambda path: execute(path, "PRAGMA application_id = 7"),
        lambda path: (path.unlink(), path.symlink_to("/etc/hosts")),
        lambda path: execute(path, "PRAGMA user_version = 99"),
    ],
    ids=["damaged", "of another program", "a link", "newer"],
)
def test_a_file_that_is_not_ours_is_left_as_it_is(tmp_path: Path, spoil) -> None:
    path = tmp_path / NAME
    with Marks(tmp_path, manifest="m") as marks:
        marks.edit({"j/a": {"sha256": SHA, "stars": 1}}, at_ms=1)
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"marks\.sqlite"):
        read_marks(tmp_path, manifest="m")
    with pytest.raises(LedgerError, match=r"marks\.sqlite"):
        Marks(tmp_path, manifest="m")
    assert path.read_bytes() == before


def test_what_a_killed_writer_left_is_rolled_back(tmp_path: Path) -> None:
    with Marks(tmp_path, manifest="m") as marks:
        marks.edit({"j/a": {"sha256": SHA, "stars": 1}}, at_ms=1)
    connection = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    connection.executescript("PRAGMA cache_spill = 1; PRAGMA cache_size = 1; BEGIN IMMEDIATE;")
    for number in range(400):  # more than the cache holds: pages reach the file before the commit
        connection.execute(
            "INSERT INTO mark VALUES ('m', ?, '', 2, ?, '', 2, ?)", [f"x/{number}", "n" * 400, number + 9]
        )
    for name in (NAME, f"{NAME}-journal"):
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / name).write_bytes((tmp_path / name).read_bytes())
    connection.execute("ROLLBACK")
    connection.close()
    assert list(read_marks(tmp_path / "copy", manifest="m")) == ["j/a"]

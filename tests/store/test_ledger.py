"""The one writer: group commit, order, one error beside others, disks that are full and ledgers that are locked."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import InputError, LedgerError, StorageError, TryLater
from pipeline.store.files import Disk
from pipeline.store.ledger import Ledger
from pipeline.store.ledger_file import connect, create
from pipeline.store.tree import Tree


@pytest.fixture
def path(tmp_path: Path) -> Path:
    state = Tree(tmp_path, Disk(), warn=lambda _: None)
    create(state, lambda connection: connection.execute("CREATE TABLE note (text TEXT UNIQUE)"))
    state.close()
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path, busy_s=0.05)
    yield ledger
    ledger.close()


def note(text: str):
    return lambda connection: connection.execute("INSERT INTO note VALUES (?)", (text,)).lastrowid


def notes(ledger: Ledger) -> list[str]:
    return ledger.run(lambda c: [text for (text,) in c.execute("SELECT text FROM note ORDER BY rowid")])


class Held:
    """Keeps the writer busy, so that what is handed in meanwhile becomes one group."""

    def __init__(self, ledger: Ledger) -> None:
        self._go = threading.Event()
        self._busy = threading.Event()
        self.future = ledger.submit(self._wait)
        self._busy.wait(5)

    def _wait(self, _connection: sqlite3.Connection) -> None:
        self._busy.set()
        self._go.wait(5)

    def release(self) -> None:
        self._go.set()
        self.future.result(5)


def test_what_waits_is_one_transaction_in_order(ledger: Ledger) -> None:
    held = Held(ledger)
    before = ledger.groups
    futures = [ledger.submit(note(str(number))) for number in range(100)]
    held.release()
    assert [future.result(5) for future in futures] == list(range(1, 101))
    assert ledger.groups == before + 1
    assert notes(ledger) == [str(number) for number in range(100)]


def test_one_error_does_not_undo_the_others(ledger: Ledger) -> None:
    held = Held(ledger)
    first, second, third = (ledger.submit(note(text)) for text in ("a", "a", "b"))
    held.release()
    assert (first.result(5), third.result(5)) == (1, 2)
    with pytest.raises(sqlite3.IntegrityError):
        second.result(5)
    assert notes(ledger) == ["a", "b"]


def test_a_bug_in_one_piece_reaches_only_its_caller(ledger: Ledger) -> None:
    def bug(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO note VALUES ('half')")
        raise KeyError("bug")

    held = Held(ledger)
    broken, sound = ledger.submit(bug), ledger.submit(note("whole"))
    held.release()
    with pytest.raises(KeyError):
        broken.result(5)
    assert sound.result(5) is not None
    assert notes(ledger) == ["whole"]


def test_a_result_is_there_only_after_the_commit(ledger: Ledger, path: Path) -> None:
    seen: list[int] = []

    def count(_future: "Future[object]") -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            seen.append(other.execute("SELECT count(*) FROM note").fetchone()[0])
        other.close()

    held = Held(ledger)
    future = ledger.submit(note("a"))
    future.add_done_callback(count)
    held.release()
    future.result(5)
    ledger.close()
    assert seen == [1]


def test_cancelled_before_its_turn_is_never_done(ledger: Ledger) -> None:
    held = Held(ledger)
    future = ledger.submit(note("a"))
    assert future.cancel()
    held.release()
    assert notes(ledger) == []


def test_close_commits_what_was_handed_in(ledger: Ledger, path: Path) -> None:
    held = Held(ledger)
    future = ledger.submit(note("a"))
    closing = threading.Thread(target=ledger.close)
    closing.start()
    held.release()
    closing.join(5)
    assert future.result(0) == 1
    with pytest.raises(StorageError, match="is closed"):
        ledger.run(note("b"))


def test_l04_locked_ledger_is_try_later(ledger: Ledger, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(TryLater, match="locked by another program"):
            ledger.run(note("a"))
    finally:
        other.close()
    assert ledger.run(note("b")) == 1


def test_l05_full_disk_is_relieved_once(path: Path) -> None:
    relieved: list[bool] = []

    def relieve() -> bool:
        relieved.append(True)
        allow.set()
        return True

    allow = threading.Event()
    ledger = Ledger(path, relieve=relieve)
    ledger.run(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())

    def big(connection: sqlite3.Connection) -> int:
        if allow.is_set():
            connection.execute("PRAGMA max_page_count = 100000").fetchone()
        return connection.execute("INSERT INTO note VALUES (?)", ("x" * 100_000,)).rowcount

    assert ledger.run(big) == 1
    assert relieved == [True]
    ledger.close()


def test_l05_full_disk_is_a_storage_error_and_heals(ledger: Ledger) -> None:
    ledger.run(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())
    with pytest.raises(StorageError, match="the disk is full"):
        ledger.run(note("x" * 100_000))
    ledger.run(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
    assert ledger.run(note("x" * 100_000)) == 1


def test_l05_after_an_io_error_nothing_is_written_any_more(ledger: Ledger) -> None:
    def fails(_connection: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    with pytest.raises(StorageError, match="disk I/O error"):
        ledger.run(fails)
    with pytest.raises(StorageError, match="disk I/O error"):
        ledger.run(note("a"))


def test_a_file_system_that_cannot_share_memory_is_named_with_what_helps(ledger: Ledger) -> None:
    def fails(_connection: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMMAP
        raise error

    with pytest.raises(InputError, match="cannot share memory, which the ledger needs; name a local `state_dir`"):
        ledger.run(fails)


def test_damage_met_while_running_is_a_ledger_error(ledger: Ledger) -> None:
    def fails(_connection: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(LedgerError, match="imgpipe rebuild"):
        ledger.run(fails)


def test_settings_of_the_connection(ledger: Ledger) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
    found = ledger.run(lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in names])
    assert found == ["wal", 2, 1, 0]


def test_writer_that_cannot_open_raises_where_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        Ledger(tmp_path / "nothing.sqlite")


def test_connection_refuses_a_schema_that_is_not_trusted(path: Path) -> None:
    connection = connect(path, "mode=ro", busy_s=0)
    assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
    connection.close()

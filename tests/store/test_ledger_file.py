"""The ledger as a file: what is looked at before it is touched, and what is never touched."""

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import struct
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InputError, LedgerError, TryLater
from pipeline.model import TaskState
from pipeline.store.files import Disk
from pipeline.store.ledger_file import MIGRATIONS, check, create, migrate
from pipeline.store.reader import LedgerReader
from pipeline.store.rebuild import find_traces
from pipeline.store.resources import open_resources
from pipeline.store.tree import Tree
from tests.store.conftest import Bench
from tests.store.fakes import FaultyDisk, done, files, image, recover, settings, states, task, verified
from tests.store.test_disk_faults import Room


@pytest.fixture
def used(quick_path: Path) -> Path:
    """A store that was used and closed: 30 images done."""
    Room(quick_path).live(*((task(number), number) for number in range(30)))
    return quick_path


def everything(state: Path) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files(state).items() if name != "lock"}


def garbage(data: bytes) -> bytes:
    return random.Random(1).randbytes(len(data))


def sprinkled(data: bytes) -> bytes:
    """400 flipped bits in the second half, where pages are."""
    changed = bytearray(data)
    for place in random.Random(2).sample(range(len(data)), 400):
        changed[place] ^= 1 << place % 8
    return bytes(changed)


DAMAGE = {
    "garbage": garbage,
    "zero-bytes": lambda _: b"",
    "header-only": lambda data: data[:100],
    "truncated": lambda data: data[: len(data) // 2 + 100],
    "a-page-short": lambda data: data[:-4096],
    "400-bits": sprinkled,
    "zeroed-pages": lambda data: data[:8192] + bytes(len(data) - 8192),
    "text": lambda _: b"this is no database, really\n" * 20,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=[f"L01-{name}" for name in DAMAGE])
def test_damaged_ledger_is_left_as_it_is(used: Path, damage) -> None:
    """P12."""
    path = used / "state/ledger.sqlite"
    path.write_bytes(damage(path.read_bytes()))
    before = everything(used / "state")
    with pytest.raises(LedgerError, match="imgpipe rebuild"):
        open_resources(settings(used))
    assert everything(used / "state") == before


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM meta",
        "UPDATE task SET made = 'another'",
        "UPDATE attempt SET cost_microusd = -1",
    ],
)
def test_a_ledger_that_contradicts_itself_is_damaged(used: Path, harm: str) -> None:
    with closing(sqlite3.connect(used / "state/ledger.sqlite", isolation_level=None)) as connection:
        connection.executescript(f"PRAGMA ignore_check_constraints = 1; {harm}")
    with pytest.raises(LedgerError, match="is damaged"):
        open_resources(settings(used))


@pytest.mark.parametrize(
    ("pragma", "text"),
    [
        ("application_id = 7", "belongs to another program"),
        ("user_version = 99", "newer imgpipe"),
        ("user_version = 0", "is damaged"),
    ],
    ids=["L06-foreign", "L06-newer", "L06-none"],
)
@pytest.mark.parametrize("in_wal", [False, True], ids=["main-file", "write-ahead-log"])
def test_foreign_and_newer_ledgers_are_left_as_they_are(used: Path, pragma: str, text: str, in_wal: bool) -> None:
    path = used / "state/ledger.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA {pragma}")
    if in_wal:  # a copy made now has the change only in its log, as after a crash
        crashed = used / "crashed"
        shutil.copytree(used / "state", crashed)
        connection.close()
        shutil.rmtree(used / "state")
        crashed.rename(used / "state")
        (used / "state/ledger.sqlite-shm").unlink()
    else:
        connection.close()
    before = everything(used / "state")
    with pytest.raises(LedgerError, match=text):
        open_resources(settings(used))
    after = everything(used / "state")
    after.pop("ledger.sqlite-shm", None)
    assert after == before
    with pytest.raises(LedgerError), LedgerReader(used / "state", manifest="m") as reader:
        states(reader)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER spy AFTER INSERT ON attempt BEGIN UPDATE attempt SET cost_microusd = 0; END",
        "CREATE VIEW spy AS SELECT 1",
    ],
    ids=["trigger", "view"],
)
def test_a_ledger_with_a_trigger_or_a_view_is_not_ours(used: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(used / "state/ledger.sqlite")) as connection:
        connection.execute(statement)
    before = everything(used / "state")
    with pytest.raises(LedgerError, match="which imgpipe never makes"):
        open_resources(settings(used))
    assert everything(used / "state") == before
    with pytest.raises(LedgerError, match="which imgpipe never makes"), LedgerReader(used / "state", manifest="m"):
        pass


@pytest.mark.parametrize(("mode", "is_told"), [(0o777, True), (0o770, True), (0o755, False), (0o700, False)])
def test_a_state_directory_that_others_may_write_is_told(used: Path, mode: int, is_told: bool) -> None:
    told: list[str] = []
    (used / "state").chmod(mode)
    open_resources(replace(settings(used), warn=told.append)).close()
    assert [text for text in told if "can be written by others" in text and "chmod go-w" in text] == told
    assert bool(told) is is_told


def test_ledger_with_a_log_is_judged_with_it(used: Path) -> None:
    """A crash leaves a write-ahead log; the check reads it and writes nothing."""
    path = used / "state/ledger.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE meta SET version = 'newest'")
    shutil.copytree(used / "state", used / "copy")
    connection.close()
    (used / "copy/ledger.sqlite-shm").unlink()
    before = {name: sha for name, sha in everything(used / "copy").items() if not name.endswith("-shm")}
    assert check(used / "copy/ledger.sqlite") == len(MIGRATIONS)
    after = {name: sha for name, sha in everything(used / "copy").items() if not name.endswith("-shm")}
    assert before == after
    assert "ledger.sqlite-wal" in before


def test_l03_the_log_of_a_lost_ledger_is_not_read_into_a_new_one(used: Path) -> None:
    connection = sqlite3.connect(used / "state/ledger.sqlite", isolation_level=None)
    connection.execute("UPDATE task SET reason = 'a crash leaves this in the log'")
    shutil.copy(used / "state/ledger.sqlite-wal", used / "log")
    connection.close()
    (used / "state/ledger.sqlite").unlink()
    shutil.move(used / "log", used / "state/ledger.sqlite-wal")
    with pytest.raises(LedgerError, match="imgpipe rebuild"):
        open_resources(settings(used))
    assert [Path(trace).name for trace in find_traces(used / "out", used / "state")] == ["ledger.sqlite-wal"]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position // 8] ^= 1 << position % 8
    path.write_bytes(data)


def flips(path: Path, count: int) -> list[int]:
    """Choose bits, most of them where something is written."""
    data = path.read_bytes()
    busy = [index for index, byte in enumerate(data) if byte]
    chance = random.Random(20261122)
    return [chance.choice(busy) * 8 + chance.randrange(8) for _ in range(count)]


def check_flips(used: Path, count: int) -> int:
    """L02: every flipped bit is found, or harms nothing: no done task becomes due, nothing escapes as a traceback."""
    original = used / "state/ledger.sqlite"
    shutil.rmtree(used / "state/rejected", ignore_errors=True)
    outputs = files(used / "out")
    found = 0
    for position in flips(original, count):
        state = used / "flipped"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        shutil.copy(original, state / "ledger.sqlite")
        flip(state / "ledger.sqlite", position)
        try:
            recover(used, state_dir=state)
            spends = [number for number in range(30) if is_due(used, state, number)]
        except (LedgerError, InputError):  # InputError: the bit that says play money
            found += 1
        else:
            assert spends == [], f"bit {position}"
        assert files(used / "out") == outputs, f"bit {position}"
    return found


def is_due(used: Path, state: Path, number: int) -> bool:
    """Say whether a plan would send a request: not known as done, and no file in its way."""
    with LedgerReader(state, manifest="m", output_dir=used / "out") as reader:
        known = reader.known(f"cats/{number}")
        reader.spend()
        reader.attempts(f"cats/{number}")
    if known is not None and known.state is TaskState.DONE and known.fingerprint == task(number).fingerprint:
        return False
    own = known.artifact.path if known and known.artifact else None
    return own == f"cats/{number}.png"


def test_l02_flipped_bits_are_found_or_harmless(used: Path) -> None:
    assert check_flips(used, 40) > 4


def _link(path: Path) -> None:
    moved = path.with_name("elsewhere.sqlite")
    path.rename(moved)
    path.symlink_to(moved)


def _hard_link(path: Path) -> None:
    path.with_name("second.sqlite").hardlink_to(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _linked_log(path: Path) -> None:
    path.with_name("ledger.sqlite-wal").symlink_to(path.with_name("anything"))


LINKS = {"symlink": _link, "hard-link": _hard_link, "directory": _directory, "linked-log": _linked_log}


@pytest.mark.parametrize("put", LINKS.values(), ids=[f"L13-{name}" for name in LINKS])
def test_ledger_that_is_no_plain_file_is_refused(used: Path, put) -> None:
    put(used / "state/ledger.sqlite")
    before = everything(used / "state")
    with pytest.raises(LedgerError, match=r"hard-linked|not a plain file"):
        open_resources(settings(used))
    assert everything(used / "state") == before


def test_l04_ledger_locked_at_start_is_try_later(used: Path) -> None:
    other = sqlite3.connect(used / "state/ledger.sqlite", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("UPDATE meta SET version = 'shell'")
    try:
        with pytest.raises(TryLater, match="locked by another program"):
            open_resources(settings(used, busy_s=0.05))
    finally:
        other.close()


def test_half_made_ledger_never_has_the_name(quick_path: Path) -> None:
    """Killed while it was created: the leftover is replaced."""
    state = quick_path / "state"
    state.mkdir()
    (state / "ledger.sqlite.new").write_bytes(b"half a ledger")
    (state / "ledger.sqlite.new-journal").write_bytes(b"half a journal")
    open_resources(settings(quick_path)).close()
    assert sorted(files(state)) == ["ledger.sqlite"]
    assert check(state / "ledger.sqlite") == len(MIGRATIONS)


def test_the_name_of_a_new_ledger_is_durable(tmp_path: Path) -> None:
    disk = FaultyDisk()
    state = Tree(tmp_path, disk, warn=lambda _: None)
    create(state, lambda _connection: None)
    state.close()
    assert [call for call, _ in disk.calls if call.startswith(("rename", "fsync"))] == ["rename_exclusive", "fsync_dir"]


def test_header_says_whose_it_is(used: Path) -> None:
    header = (used / "state/ledger.sqlite").read_bytes()[:100]
    assert struct.unpack(">I", header[68:72])[0] == int.from_bytes(b"imgp", "big")


def test_tables_are_strict(used: Path) -> None:
    with closing(sqlite3.connect(used / "state/ledger.sqlite", isolation_level=None)) as connection:
        tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    assert {name for name, strict in tables if not strict} == {"sqlite_schema", "sqlite_sequence"}


def test_r34_older_ledger_is_migrated_once_with_a_copy(used: Path) -> None:
    newer = (*MIGRATIONS, "ALTER TABLE run ADD COLUMN host TEXT;")
    state = Tree(used / "state", Disk(), warn=lambda _: None)
    version = check(used / "state/ledger.sqlite", migrations=newer)
    assert version == len(MIGRATIONS)
    (used / f"state/ledger-v{version}.sqlite").write_bytes(b"half a copy, of a migration that was killed")
    backup = migrate(state, version, migrations=newer)
    assert backup == used / f"state/ledger-v{version}.sqlite"
    assert check(backup) == version
    assert oct(backup.stat().st_mode & 0o777) == "0o600"
    assert check(used / "state/ledger.sqlite", migrations=newer) == version + 1
    assert migrate(state, version + 1, migrations=newer) is None
    state.close()
    with pytest.raises(LedgerError, match="newer imgpipe"):
        check(used / "state/ledger.sqlite")


def made_by_the_first_version(path: Path) -> None:
    """Take away what later migrations added."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE earlier")
        connection.execute("ALTER TABLE record DROP COLUMN fingerprint")
        connection.execute("ALTER TABLE meta DROP COLUMN ledger")
        connection.execute("ALTER TABLE task DROP COLUMN released")
        connection.execute("ALTER TABLE task DROP COLUMN accepted")
        for index in ("task_made", "task_pixels", "task_look"):
            connection.execute(f"DROP INDEX {index}")
        for table, column in (
            ("task", "pixels_digest"),
            ("task", "edit"),
            ("task", "flags"),
            ("task", "look"),
            ("digest", "pixels"),
            ("run", "found"),
        ):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("DROP TABLE hold")
        connection.execute("CREATE TABLE hold (one INTEGER PRIMARY KEY, not_before INTEGER, reason TEXT) STRICT")
        connection.execute("INSERT INTO hold VALUES (1, 7, 'quota')")
        connection.execute("PRAGMA user_version = 1")


def test_r34_older_ledger_is_read_as_it_is_and_migrated_by_the_next_run(used: Path) -> None:
    path, asked = used / "state/ledger.sqlite", task(1)
    made_by_the_first_version(path)
    before = path.read_bytes()
    with LedgerReader(used / "state", manifest="m") as reader:
        record = reader.record(asked.id, fingerprint=asked.fingerprint)
        assert record is not None
        assert record["prompt"] == asked.prompt
    assert path.read_bytes() == before
    open_resources(settings(used)).close()
    assert check(path) == len(MIGRATIONS)
    with LedgerReader(used / "state", manifest="m") as reader:
        assert reader.record(asked.id, fingerprint=asked.fingerprint) == record
        assert [(hold.model, hold.reason) for hold in reader.holds()] == [("", "quota")]
        assert reader.ledger_id


def test_r34_migration_that_fails_changes_nothing(used: Path) -> None:
    newer = (*MIGRATIONS, "ALTER TABLE run ADD COLUMN host TEXT; INSERT INTO no_such_table VALUES (1);")
    state = Tree(used / "state", Disk(), warn=lambda _: None)
    with pytest.raises(LedgerError):
        migrate(state, len(MIGRATIONS), migrations=newer)
    state.close()
    assert check(used / "state/ledger.sqlite") == len(MIGRATIONS)
    with closing(sqlite3.connect(used / "state/ledger.sqlite", isolation_level=None)) as connection:
        assert "host" not in [name for _, name, *_ in connection.execute("PRAGMA table_info(run)")]


async def test_play_money_and_real_money_never_share_a_ledger(bench: Bench) -> None:
    await bench.store.aclose()
    with pytest.raises(InputError, match="keeps real money and this run would spend play money"):
        open_resources(settings(bench.root, is_play_money=True))


def test_l11_check_of_many_rows_is_quick(used: Path) -> None:
    """Not a stopwatch: quick_check does not walk the indexes, which integrity_check does."""
    statements: list[str] = []
    original = sqlite3.Connection.execute

    class Spy(sqlite3.Connection):
        def execute(self, sql: str, *arguments):  # type: ignore[no-untyped-def]
            statements.append(sql)
            return original(self, sql, *arguments)

    connect, sqlite3.connect = sqlite3.connect, lambda *a, **k: connect(*a, factory=Spy, **k)  # type: ignore[assignment]
    try:
        check(used / "state/ledger.sqlite")
    finally:
        sqlite3.connect = connect
    assert any("quick_check" in sql for sql in statements)
    assert not any("integrity_check" in sql for sql in statements)


def test_ledger_survives_a_move_with_its_images(used: Path) -> None:
    """L08: nothing in it is absolute."""
    moved = used / "elsewhere"
    moved.mkdir()
    for name in ("out", "state"):
        (used / name).rename(moved / name)
    recover(moved)
    assert (done(moved), verified(moved)) == (30, ([], []))
    assert os.fsencode(used) not in (moved / "state/ledger.sqlite").read_bytes()
    assert (moved / "out/cats/3.png").read_bytes() == image(3).data

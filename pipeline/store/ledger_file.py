"""The ledger as an SQLite file: checked before it is touched, created, migrated; statements by name, errors translated.

`schema.sql` holds the migrations in order, `queries.sql` the named statements; times are integer microseconds since
1970 UTC. On an error the file is left byte for byte as it was (P12).
"""

import contextlib
import errno
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final

from pipeline.errors import ImgpipeError, LedgerError, StorageError, TryLater
from pipeline.store.files import Disk, rename_without_clobbering
from pipeline.store.lock import unsuited
from pipeline.store.tree import Tree
from pipeline.text import visible

# -- time --------------------------------------------------------------------------------------------------------------

Clock = Callable[[], datetime]
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def utc_now() -> datetime:
    return datetime.now(UTC)


def to_us(moment: datetime) -> int:
    """Exact, unlike `timestamp()`."""
    return (moment - EPOCH) // MICROSECOND


def from_us(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


# -- statements --------------------------------------------------------------------------------------------------------


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _blocks(text: str, heading: str) -> dict[str, str]:
    """Split `-- <heading> <name>` blocks; comment lines stay, SQLite skips them."""
    parts = re.split(rf"^-- {heading} ([^:\n]+)(?::.*)?$", text, flags=re.MULTILINE)
    return {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


MIGRATIONS: Final[tuple[str, ...]] = tuple(_blocks(_read("schema.sql"), "migration").values())
_QUERIES: Final[Mapping[str, str]] = {
    name: re.sub(r"^--.*\n?", "", body, flags=re.MULTILINE)
    for name, body in _blocks(_read("queries.sql"), "name:").items()
}


def query(name: str) -> str:
    """Return the statement called `name` in queries.sql."""
    return _QUERIES[name]


# -- errors ------------------------------------------------------------------------------------------------------------

LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR})
NO_SHARED_MEMORY: Final = frozenset(
    {sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMMAP}
)  # of a write-ahead log: mergerfs, ntfs3 and folders that virtual machines share, see https://sqlite.org/wal.html
OUR_BUG: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE}
)
FROM_SQLITE: Final = (sqlite3.Error, UnicodeDecodeError)  # the latter: a message that quotes damaged bytes
REBUILD: Final = "It was left as it is; `imgpipe rebuild FILE` makes a new one from the images"


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's primary result code; None where Python itself raised (text that is not UTF-8)."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_full(error: BaseException) -> bool:
    """Say whether space is what is missing."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def damaged(path: Path, what: str) -> "DamagedLedgerError":
    """Return the error for a ledger that cannot be trusted."""
    return DamagedLedgerError(f"{path} is damaged ({what}). {REBUILD}")


def storage_error_of(
    error: sqlite3.Error | UnicodeDecodeError, path: Path, damage: Callable[[Path, str], ImgpipeError] = damaged
) -> ImgpipeError | None:
    """Return the error for a person; None: this is a bug and keeps its traceback."""
    code = primary_code(error)
    if code in OUR_BUG:
        return None
    if code in LOCKED:
        return TryLater(f"{path} is locked by another program (a database shell?); close it and run this again")
    if code is None or code in DAMAGED:
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
            return None
        return damage(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return StorageError(f"{path} cannot grow: the disk is full; free some space, then run this again")
    if getattr(error, "sqlite_errorcode", None) in NO_SHARED_MEMORY:
        return unsuited(path.parent, "a file system that cannot share memory, which the ledger needs")
    return StorageError(f"{path}: {error}; fix the disk, then run this again")


class DamagedLedgerError(LedgerError):
    """The bytes of the ledger are not what SQLite or this program wrote; a rebuild may set them aside."""


@contextlib.contextmanager
def translated(path: Path, damage: Callable[[Path, str], ImgpipeError] = damaged) -> Iterator[None]:
    """Raise what SQLite says of a file as an error for a person; a bug keeps its traceback. `damage`: of bad bytes."""
    try:
        yield
    except FROM_SQLITE as error:
        raise storage_error_of(error, path, damage) or error from error


# -- the file ----------------------------------------------------------------------------------------------------------

NAME: Final = "ledger.sqlite"
NEW: Final = "ledger.sqlite.new"
SIDES: Final = ("-wal", "-shm", "-journal")
APPLICATION_ID: Final = 0x696D6770  # "imgp", at byte 68 of the ledger
HEADER_BYTES: Final = 100  # https://www.sqlite.org/fileformat.html#the_database_header
NO_SHARING: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})  # a directory nobody may write
MAGIC: Final = b"SQLite format 3\0"


def check(path: Path, *, busy_s: float = 30.0, migrations: Sequence[str] = MIGRATIONS) -> int | None:
    """Return the ledger's version; None where there is no ledger. Nothing is written, not even beside it.

    Raises LedgerError: corrupt, foreign, newer, or not a plain file. TryLater: locked for longer than `busy_s`.
    """
    if not _is_plain(path):
        return None
    _check_header(path, len(migrations))
    # without a write-ahead log the file is immutable while we hold the lock; with one it is read
    options = "mode=ro" if _has_log(path) else "mode=ro&immutable=1"
    try:
        with contextlib.closing(connect(path, options, busy_s=busy_s)) as connection:
            connection.execute("PRAGMA query_only = ON")
            version = _identify(connection, path, len(migrations))
            findings = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
            findings += [
                f"a row of {table} contradicts itself" for (table,) in connection.execute(query("broken_rows"))
            ]
            (meta,) = connection.execute("SELECT count(*) FROM meta").fetchone()
    except FROM_SQLITE as error:
        raise storage_error_of(error, path) or damaged(path, str(error)) from error
    if findings != ["ok"]:
        raise damaged(path, "; ".join(finding.replace("\n", " ") for finding in findings if finding != "ok"))
    if meta != 1:
        raise damaged(path, "it does not say whether its money is play money")
    return version


def open_for_reading(path: Path, *, busy_s: float = 30.0) -> sqlite3.Connection | None:
    """Open for a reader, also while a run writes; None where there is no ledger.

    Raises LedgerError, TryLater, StorageError.
    """
    if not _is_plain(path):
        return None
    _check_header(path, len(MIGRATIONS))
    with translated(path):
        try:
            return _open_reader(path, "mode=ro", busy_s)
        except sqlite3.OperationalError as error:
            if primary_code(error) not in NO_SHARING or _has_log(path):
                raise
        return _open_reader(path, "mode=ro&immutable=1", busy_s)


def _open_reader(path: Path, options: str, busy_s: float) -> sqlite3.Connection:
    connection = connect(path, options, busy_s=busy_s, is_shared=True)
    try:
        version = _identify(connection, path, len(MIGRATIONS))
        if version < len(MIGRATIONS):
            connection = _migrated_copy(connection, version)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM meta").fetchone()
    except BaseException:  # passed on; only the connection is let go
        connection.close()
        raise
    return connection


def _migrated_copy(old: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """Return an older ledger in today's shape, in memory: who only looks writes nothing, and the next run migrates."""
    copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    with contextlib.ExitStack() as undo:
        undo.callback(copy.close)
        with contextlib.closing(old):
            old.backup(copy)
        _apply(copy, MIGRATIONS, done=version)
        undo.pop_all()
    return copy


def _has_log(path: Path) -> bool:
    """Say whether there is a write-ahead log with something in it."""
    wal = path.with_name(path.name + "-wal")
    return wal.exists() and wal.stat().st_size > 0


def _identify(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """Return the version as SQLite sees it, its write-ahead log included."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    _check_identity(path, application_id, version, newest)
    found = connection.execute("SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view')").fetchone()
    if found is not None:  # ours has none, and a trigger does what whoever put it there wants
        raise LedgerError(
            f"{path} has a {found[0]} {visible(str(found[1]))!r}, which imgpipe never makes. It was left as it is; name"
            " another state_dir, or move that file away and use `imgpipe rebuild FILE`"
        )
    return int(version)


def sides_of(path: Path) -> list[Path]:
    """Return what lies beside a ledger and belongs to it."""
    return [candidate for side in SIDES if os.path.lexists(candidate := path.with_name(path.name + side))]


def _is_plain(path: Path) -> bool:
    """Say whether there is a ledger; refuse what could be two files or someone else's."""
    for side in ("", *SIDES):
        candidate = path.with_name(path.name + side)
        try:
            status = candidate.lstat()
        except FileNotFoundError:
            if side == "":
                return False
            continue
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            kind = "hard-linked" if stat.S_ISREG(status.st_mode) else "not a plain file"
            what = f"{candidate} is {kind}; SQLite loses data that way"
            raise LedgerError(f"{what}. Put a plain file there, or name another state_dir")
    return True


def _check_header(path: Path, newest: int) -> None:
    """Judge the first bytes without SQLite, which would look beside the file."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise damaged(path, "file is not a database")
    _check_identity(path, int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big"), newest)


def _check_identity(path: Path, application_id: int, version: int, newest: int) -> None:
    if application_id != APPLICATION_ID:
        raise LedgerError(
            f"{path} belongs to another program (application id {application_id:#010x}). It was left as it is; name"
            " another state_dir, or move that file away and use `imgpipe rebuild FILE`"
        )
    if version > newest:
        raise LedgerError(
            f"{path} was written by a newer imgpipe (ledger version {version}, this one supports {newest}). It was left"
            " as it is; update imgpipe, or move the file away and use `imgpipe rebuild FILE`"
        )
    if version < 1:
        raise damaged(path, f"ledger version {version}")


def connect(path: Path, options: str, *, busy_s: float, is_shared: bool = False) -> sqlite3.Connection:
    """Open a ledger, or its marks, by URI; `is_shared`: the caller sees to it that one thread at a time uses it."""
    uri = f"{path.absolute().as_uri()}?{options}"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=not is_shared)
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        undo.pop_all()
    return connection


def create(
    state: Tree, fill: Callable[[sqlite3.Connection], object], *, migrations: Sequence[str] = MIGRATIONS
) -> None:
    """Make a ledger: whole under another name first, so that half a ledger never has the real one.

    Raises LedgerError: what is left of one would be taken for the new one's.
    """
    disk: Disk = state.disk
    if leftovers := [side.name for side in sides_of(state.root / NAME) if not side.name.endswith("-shm")]:
        raise damaged(state.root / NAME, f"it is gone, {leftovers[0]} is still there")
    for leftover in (NEW, *(NEW + side for side in SIDES)):
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(leftover, dir_fd=state.fd)
    disk.close(disk.create(NEW, dir_fd=state.fd, mode=0o600))
    path = state.root / NEW
    with translated(path), contextlib.closing(connect(path, "mode=rw", busy_s=0)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _apply(connection, migrations, done=0)
        fill(connection)
        connection.execute("PRAGMA journal_mode = WAL")
    rename_without_clobbering(disk, NEW, NAME, dir_fd=state.fd, new_dir_fd=state.fd)
    state.sync(state.fd)


def migrate(state: Tree, version: int, *, busy_s: float = 30.0, migrations: Sequence[str] = MIGRATIONS) -> Path | None:
    """Bring an older ledger to today's shape in one transaction; return the copy made before, None: no need."""
    if version >= len(migrations):
        return None
    path = state.root / NAME
    backup = state.root / f"ledger-v{version}.sqlite"
    with translated(path), contextlib.closing(connect(path, "mode=rw", busy_s=busy_s)) as connection:
        _back_up(connection, backup)
        connection.execute("PRAGMA synchronous = FULL")
        _apply(connection, migrations, done=version)
    state.sync(state.fd)
    return backup


def _back_up(connection: sqlite3.Connection, backup: Path) -> None:
    """Copy the ledger aside; a copy that an interrupted migration left is replaced."""
    backup.unlink(missing_ok=True)
    os.close(os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    with contextlib.closing(sqlite3.connect(backup)) as copy:
        connection.backup(copy)


def _apply(connection: sqlite3.Connection, migrations: Sequence[str], *, done: int) -> None:
    body = "\n".join(migrations[done:])
    connection.executescript(f"BEGIN IMMEDIATE;\n{body}\nPRAGMA user_version = {len(migrations)};\nCOMMIT;")

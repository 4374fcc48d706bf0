"""SQLite's details in one place: time as integer microseconds since 1970 UTC, statements by name, errors translated.

`schema.sql` holds the migrations in order, `queries.sql` the named statements. Opens no database.
"""

import errno
import re
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final

from pipeline.errors import ImgpipeError, InputError, LedgerError, StorageError, TryLater

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


APPLICATION_ID: Final = 0x696D6770  # "imgp", at byte 68 of the ledger


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _blocks(text: str, heading: str) -> dict[str, str]:
    """Split `-- <heading> <name>` blocks; comment lines stay, SQLite skips them."""
    parts = re.split(rf"^-- {heading} ([^:\n]+)(?::.*)?$", text, flags=re.MULTILINE)
    return {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _bare(statement: str) -> str:
    return "\n".join(line for line in statement.splitlines() if not line.startswith("--"))


MIGRATIONS: Final[tuple[str, ...]] = tuple(_blocks(_read("schema.sql"), "migration").values())
_QUERIES: Final[Mapping[str, str]] = {
    name: _bare(body) for name, body in _blocks(_read("queries.sql"), "name:").items()
}


def query(name: str) -> str:
    """Return the statement called `name` in queries.sql."""
    return _QUERIES[name]


LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR})
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


def storage_error_of(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> ImgpipeError | None:
    """Return the error for a person; None: this is a bug and keeps its traceback."""
    code = primary_code(error)
    if code in OUR_BUG:
        return None
    if code in LOCKED:
        return TryLater(f"{path} is locked by another program (a database shell?); close it and run this again")
    if code is None or code in DAMAGED:
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
            return None
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return StorageError(f"{path} cannot grow: the disk is full; free some space, then run this again")
    return StorageError(f"{path}: {error}; fix the disk, then run this again")


class DamagedLedgerError(LedgerError):
    """The bytes of the ledger are not what SQLite or this program wrote; a rebuild may set them aside."""


def damaged(path: Path, what: str) -> DamagedLedgerError:
    """Return the error for a ledger that cannot be trusted."""
    return DamagedLedgerError(f"{path} is damaged ({what}). {REBUILD}")


def unusable(directory: Path, error: OSError) -> ImgpipeError:
    """Return the error for a directory that cannot be used at start."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return StorageError(f"{directory}: {error.strerror}; nothing was sent")
    return InputError(
        f"{directory} cannot be written: {error.strerror}; name another directory or change its permissions"
    )

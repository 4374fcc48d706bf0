"""Marks, stars and notes of images: `marks.sqlite` in the state directory, beside the ledger's own file.

A file of its own, because marks are written while a run holds the lock and the ledger's one connection:

- a second writer in the ledger's write-ahead log can corrupt it (the WAL-reset bug, SQLite 3.7.0 to 3.51.2, see
  https://www.sqlite.org/wal.html#walresetbug); one connection in one thread is what keeps the ledger clear of it;
- a paid image never waits for a person's mark, and a mark never waits for a group commit;
- a damaged file of marks leaves money and images readable, and a `rebuild` of the ledger leaves the marks alone.

So it has a rollback journal instead of a write-ahead log: any number of processes may write, each change is one
transaction of a few rows, synced before it is answered. `judge` writes, and `run` where a task got another id.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from pipeline.errors import LedgerError, StorageError
from pipeline.model import Mark
from pipeline.store.ledger_file import APPLICATION_ID, connect, translated
from pipeline.store.rows import text

NAME: Final = "marks.sqlite"
BUSY_S: Final = 10.0
VERSION: Final = 1
SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS mark (
  manifest TEXT NOT NULL,
  id TEXT NOT NULL,                           -- of the task
  kind TEXT NOT NULL CHECK (kind IN ('', 'picked', 'rejected')),
  stars INTEGER NOT NULL CHECK (stars BETWEEN 0 AND 5),
  note TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  change INTEGER NOT NULL,                    -- counts all changes of this file: what is new has a larger one
  PRIMARY KEY (manifest, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mark_change ON mark (change);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""
SET: Final = """
INSERT INTO mark (manifest, id, kind, stars, note, sha256, at_ms, change)
VALUES (:manifest, :id, :kind, :stars, :note, :sha256, :at_ms, (SELECT coalesce(max(change), 0) + 1 FROM mark))
ON CONFLICT DO UPDATE SET kind = excluded.kind, stars = excluded.stars, note = excluded.note,
  sha256 = excluded.sha256, at_ms = excluded.at_ms, change = excluded.change
"""
RENAME: Final = """
UPDATE OR IGNORE mark SET id = ?, change = (SELECT max(change) + 1 FROM mark) WHERE manifest = ? AND id = ?
"""
SELECT: Final = "SELECT id, kind, stars, note, sha256, at_ms FROM mark WHERE manifest = ?"


def read_marks(state_dir: Path, *, manifest: str) -> dict[str, Mark]:
    """Return every mark of a manifest by task id; none where nothing was marked yet.

    Raises LedgerError: damaged, or another program's. TryLater: locked for long. StorageError.
    """
    path = state_dir / NAME
    if not os.path.lexists(path) or path.lstat().st_size == 0:  # empty: another process is making it
        return {}
    mode = "rw" if path.with_name(f"{NAME}-journal").exists() else "ro"  # what a killed writer left is rolled back
    with _translated(path), contextlib.closing(_open(path, mode)) as connection:
        _check(connection, path)
        return dict(map(_mark, connection.execute(SELECT, [manifest])))


def rename_marks(state_dir: Path, manifest: str, renamed: Sequence[tuple[str, str]]) -> None:
    """Let marks go along with tasks that have a new id: former id, new id. Raises as `read_marks`."""
    if not (state_dir / NAME).exists():
        return
    with Marks(state_dir, manifest=manifest) as marks:
        marks.rename(renamed)


class Marks:
    """The marks of one manifest, open for writing, as a context manager. One thread at a time."""

    def __init__(self, state_dir: Path, *, manifest: str) -> None:
        """Open the file; make it where it is missing. Raises as `read_marks`."""
        self.path = state_dir / NAME
        self._manifest = manifest
        with _translated(self.path):
            if not os.path.lexists(self.path):
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._connection = _open(self.path, "rw")
            with contextlib.ExitStack() as undo:
                undo.callback(self._connection.close)
                if self.path.stat().st_size == 0:
                    self._connection.executescript(SCHEMA)
                _check(self._connection, self.path)
                self._connection.execute("PRAGMA synchronous = FULL")
                undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def since(self, change: int) -> tuple[int, dict[str, Mark]]:
        """Return the number of the last change, and what was marked after the change `change` (0: everything)."""
        with _translated(self.path):
            (last,) = self._connection.execute("SELECT coalesce(max(change), 0) FROM mark").fetchone()
            if last <= change:
                return int(last), {}
            found = self._connection.execute(f"{SELECT} AND change > ?", [self._manifest, change])
            return int(last), dict(map(_mark, found))

    def edit(self, edits: Mapping[str, Mapping[str, object]], *, at_ms: int) -> None:
        """Change those fields of marks that are named, all or none: two windows that change one task lose nothing.

        `edits`: task id -> some of the fields of `Mark`. A mark of another image starts afresh.
        """
        with self._transaction() as connection:
            for task_id, fields in edits.items():
                row = connection.execute(f"{SELECT} AND id = ?", [self._manifest, text(task_id)]).fetchone()
                before = Mark() if row is None else _mark(row)[1]
                if fields.get("sha256", before.sha256) != before.sha256:
                    before = Mark()
                self._set(task_id, msgspec.convert({**msgspec.to_builtins(before), **fields, "at_ms": at_ms}, Mark))

    def merge(self, marks: Mapping[str, Mark]) -> int:
        """Take over the marks that are later than those that are there; return how many were."""
        with self._transaction() as connection:
            there = {row[0]: row[5] for row in connection.execute(SELECT, [self._manifest])}
            later = {task_id: mark for task_id, mark in marks.items() if mark.at_ms > there.get(text(task_id), -1)}
            for task_id, mark in later.items():
                self._set(task_id, mark)
        return len(later)

    def rename(self, renamed: Sequence[tuple[str, str]]) -> None:
        """Move marks from a former id to a new one that has none."""
        values = [(text(new), self._manifest, text(former)) for former, new in renamed]
        with self._transaction() as connection:
            connection.executemany(RENAME, values)

    def _set(self, task_id: str, mark: Mark) -> None:
        values = {name: getattr(mark, name) for name in mark.__struct_fields__}
        self._connection.execute(SET, {"manifest": self._manifest, "id": text(task_id), **values})

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:  # passed on: half a change is none
                if self._connection.in_transaction:  # a full disk has SQLite take it back by itself
                    self._connection.execute("ROLLBACK")
                raise


def _open(path: Path, mode: str) -> sqlite3.Connection:
    """Open the file; refuse a link, which could lead anywhere."""
    if not path.is_file() or path.is_symlink():
        raise _unusable(path, "it is not a plain file")
    return connect(path, f"mode={mode}", busy_s=BUSY_S)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise _unusable(path, "it belongs to another program")
    if version > VERSION:
        raise LedgerError(f"{path} was written by a newer imgpipe. It was left as it is; update imgpipe")


def _mark(row: tuple[str, str, int, str, str, int]) -> tuple[str, Mark]:
    """Return the columns of `SELECT` as the id of a task and its mark."""
    task_id, kind, stars, note, sha256, at_ms = row
    return task_id, Mark(kind=kind, stars=stars, note=note, sha256=sha256, at_ms=at_ms)


def _unusable(path: Path, what: str) -> LedgerError:
    return LedgerError(
        f"{path} cannot be read ({what}). It was left as it is; move it away to begin with no marks. Images and money"
        " do not depend on it"
    )


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        with translated(path, _unusable):
            yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error

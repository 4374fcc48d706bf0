"""The ledger's one writer: runs functions of a connection in a thread, in the order they were submitted.

All work that waits at a moment is one transaction with one sync (group commit); one error does not undo the others.
Cancelling a waiter undoes nothing: what was submitted is carried out.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pipeline.errors import ImgpipeError, StorageError
from pipeline.store.ledger_file import FROM_SQLITE, connect, is_full, primary_code, query, storage_error_of

T = TypeVar("T")


def awaited(future: "Future[T]") -> "asyncio.Future[T]":
    """Return what the running event loop may await; cancelling that leaves `future` alone."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[T] = loop.create_future()

    def copy_result() -> None:
        if waiter.done():
            return
        if future.cancelled():
            waiter.cancel()
        elif (error := future.exception()) is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(future.result())

    def copy_in_loop(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(copy_result)

    future.add_done_callback(copy_in_loop)
    return waiter


Work = Callable[[sqlite3.Connection], object]

GROUP: Final = 512  # pieces of work in one transaction; more does not get faster
BROKEN: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Ledger:
    """A thread and its connection. `submit` may be called from any thread."""

    def __init__(self, path: Path, *, busy_s: float = 30.0, relieve: Callable[[], bool] = lambda: False) -> None:
        """Open for writing. `relieve` frees space when the disk is full and says whether it could.

        Raises TryLater, LedgerError, StorageError.
        """
        self.path = path
        self._busy_s = busy_s
        self._relieve = relieve
        self._queue: queue.SimpleQueue[tuple[Work, Future[object]] | None] = queue.SimpleQueue()
        self._broken: ImgpipeError | None = None
        self._is_closed = False
        self._closing = threading.Lock()  # nothing is queued after the end
        self.groups = 0
        self.pieces = 0
        opened: Future[object] = Future()
        self._thread = threading.Thread(target=self._run_groups, args=(opened,), name="ledger", daemon=True)
        self._thread.start()
        opened.result()

    def __repr__(self) -> str:
        return (
            f"<Ledger {self.path}, {self.pieces} pieces in {self.groups} transactions, {self._queue.qsize()} waiting>"
        )

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """Hand work in; the future has its result once it is committed.

        `work` may be run a second time, after its first run was undone. Cancelling the future before its turn comes
        takes the work back; after that it is carried out all the same.

        Errors of the future: what `work` raised; TryLater, LedgerError, StorageError from SQLite.
        """
        future: Future[T] = Future()
        with self._closing:
            if self._is_closed:
                future.set_exception(StorageError(f"{self.path} is closed"))
            else:
                self._queue.put((work, cast("Future[object]", future)))
        return future

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Hand work in and wait for it; never from the event loop."""
        return self.submit(work).result()

    def first(self, name: str, **values: object) -> Any:
        """Return the first row that a statement finds, None for no row; never from the event loop."""
        return self.run(lambda c: c.execute(query(name), values).fetchone())

    def change(self, name: str, values: Mapping[str, object]) -> int:
        """Carry out a statement; return how many rows it changed. Never from the event loop."""
        return self.run(lambda c: c.execute(query(name), values).rowcount)

    def receive(self, attempt: int, sha256: str, path: str) -> None:
        """Write down which image is about to lose its part to a rename, and its final name."""
        self.change("receive", {"attempt": attempt, "sha256": sha256, "kept": path})

    def close(self) -> None:
        """Commit what was handed in, then close. Safe to call twice."""
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
        self._thread.join()

    def _run_groups(self, opened: "Future[object]") -> None:
        try:
            connection = self._open()
        except BaseException as error:  # whoever constructs sees it
            opened.set_exception(error)
            return
        opened.set_result(None)
        try:
            while (group := self._next_group()) is not None:
                if group:
                    self._commit(connection, group)
                    group.clear()  # work holds its image, and the next group may be long in coming
        finally:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        try:
            connection = connect(self.path, "mode=rw", busy_s=self._busy_s)
            with contextlib.ExitStack() as undo:
                undo.callback(connection.close)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA temp_store = MEMORY")
                undo.pop_all()
        except FROM_SQLITE as error:
            raise self._translated(error) from error
        return connection

    def _next_group(self) -> list[tuple[Work, "Future[object]"]] | None:
        """Wait for work, then take all there is; None: closed and nothing is left."""
        item = self._queue.get()
        group: list[tuple[Work, Future[object]]] = []
        while item is not None:
            if item[1].set_running_or_notify_cancel():
                group.append(item)
            if len(group) >= GROUP or self._queue.empty():
                return group
            item = self._queue.get()
        if group:
            self._queue.put(None)  # the end is read again after this group
            return group
        return None

    def _commit(self, connection: sqlite3.Connection, group: list[tuple[Work, "Future[object]"]]) -> None:
        self.groups += 1
        self.pieces += len(group)
        try:
            if self._broken is not None:
                raise self._broken
            outcomes = self._attempt(connection, [work for work, _ in group])
        except BaseException as error:  # every waiter of this group sees it
            for _, future in group:
                future.set_exception(error)
            return
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, _Raised):
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome)

    def _attempt(self, connection: sqlite3.Connection, group: list[Work]) -> list[object]:
        """Run a group in one transaction. When that fails, once more with a savepoint around each piece.

        Savepoints are almost half of all statements, and errors are rare: so they are only used to tell whose it was.
        """
        try:
            try:
                return self._transaction(connection, group, lambda connection, work: work(connection))
            except Exception as error:  # whoever handed the piece in sees it, after the second pass
                if not (self._relieve() if is_full(error) else not _is_of_the_disk(error)):
                    raise  # neither space that can be freed nor one wrong piece: the same group gets no further
            return self._transaction(connection, group, self._piece)
        except FROM_SQLITE as error:
            raise self._translated(error) from error

    def _transaction(
        self, connection: sqlite3.Connection, group: list[Work], run: Callable[[sqlite3.Connection, Work], object]
    ) -> list[object]:
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [run(connection, work) for work in group]
            connection.execute("COMMIT")
        except BaseException:  # passed on; the transaction is undone
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return outcomes

    def _piece(self, connection: sqlite3.Connection, work: Work) -> object:
        connection.execute("SAVEPOINT piece")
        try:
            result = work(connection)
        except Exception as error:  # whoever awaits this piece sees it
            if _is_of_the_disk(error) or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO piece")
            connection.execute("RELEASE piece")
            return _Raised(self._translated(error) if isinstance(error, FROM_SQLITE) else error)
        connection.execute("RELEASE piece")
        return result

    def _translated(self, error: sqlite3.Error | UnicodeDecodeError) -> Exception:
        """Turn SQLite's error into ours; after an I/O error the connection is not trusted again."""
        ours = storage_error_of(error, self.path)
        if ours is not None and primary_code(error) in BROKEN:
            self._broken = ours
        return ours or error


class _Raised:
    """What a piece of work raised, carried past the commit of the others."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _is_of_the_disk(error: Exception) -> bool:
    return primary_code(error) in BROKEN | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM}

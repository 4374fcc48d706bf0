"""Copies what can still be read of a damaged ledger into the ledger that replaces it (P9, P12).

The damaged files are copied before SQLite opens them. Nothing that is read is trusted: it must satisfy the new ledger's
constraints. Money counts also where its task can no longer be read. Returns an account of what was and was not read.
"""

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.store import ledger_file, rows
from pipeline.store.ledger_file import FROM_SQLITE, query

Row = tuple[Any, ...]
FARTHEST: Final = 1 << 40  # no row has a greater number; beyond it the search for readable pages ends
DEAREST_MICROUSD: Final = 1_000_000_000  # one image cannot cost more: the number was damaged
EARLIEST_US: Final = 1_577_836_800_000_000  # 2020: the program did not exist
LEDGER_ID: Final = re.compile(r"[0-9a-f]{8}")
READING: Final = "reading"  # in the state directory, for as long as a rebuild reads
LOST: Final = "lost"  # job and id of the task whose attempts have no task any more


@dataclass(slots=True, kw_only=True)
class SalvagedLedger:
    """What a damaged ledger still said."""

    source: Path
    attempts: int = 0
    spent_microusd: int = 0
    unknown_microusd: int = 0  # maybe billed
    is_complete: bool = True  # all of its money could be read
    is_anonymous: bool = False  # some of it only as sums: whose it was is unknown

    @property
    def doubt(self) -> str | None:
        """Say why its money may be too little; None: it is all there."""
        return None if self.is_complete else f"not all of {self.source.name} could be read"


def salvage_ledger(connection: sqlite3.Connection, source: Path, *, now: int) -> SalvagedLedger:
    """Copy what can be read of `source` into an empty ledger, whose transaction the caller ends."""
    salvaged = SalvagedLedger(source=source)
    with _folder(source.parent / READING) as folder:
        copy = folder / ledger_file.NAME
        for side in ("", *ledger_file.SIDES):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(source.with_name(source.name + side), copy.with_name(copy.name + side))
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as damaged:
            damaged.text_factory = lambda data: data.decode("utf-8", "replace")
            _Copier(connection, damaged, salvaged, now=now).run()
    return salvaged


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Lend an empty folder; what a killed rebuild left of it goes."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class _Copier:
    """Copies the rows of a damaged ledger into a new one."""

    def __init__(
        self, ledger: sqlite3.Connection, damaged: sqlite3.Connection, salvaged: SalvagedLedger, *, now: int
    ) -> None:
        self._ledger = ledger
        self._damaged = damaged
        self._salvaged = salvaged
        self._now = now
        self._place: tuple[int, int] | None = None  # run and task of what has lost its own
        self._is_broken = False  # the table that is being read

    def run(self) -> None:
        """Copy tables in the order in which rows refer to each other, then the money."""
        self._copy_ledger_id()
        for table in ("manifest", "run", "task", "given", "edit", "record", "earlier", "hold"):
            for row in self._readable(table):
                self._put(table, row)
        if not self._copy_attempts():
            self._salvaged.is_complete = self._copy_money()
        elif self._is_contradicted():
            self._salvaged.is_complete = False
        self._ledger.execute(query("sum_up_tasks"))
        self._raise_sequence()

    def _copy_ledger_id(self) -> None:
        """Go on under the damaged ledger's name, which its parts carry; one from before parts had it has none."""
        with contextlib.suppress(*FROM_SQLITE):
            (ledger_id,) = self._damaged.execute(query("ledger_id")).fetchone() or (None,)
            if isinstance(ledger_id, str) and LEDGER_ID.fullmatch(ledger_id):
                self._ledger.execute(query("keep_ledger_id"), {"ledger": ledger_id})

    def _readable(self, table: str) -> Iterator[Row]:
        """Walk a table by number; over pages that cannot be read, each time the leap is twice as far.

        SQLite's error takes the row before it along: so after one the next row is asked for alone.
        """
        last, leap, most = -1, 1, -1
        while last < FARTHEST:
            found = 0
            try:
                for number, *row in self._damaged.execute(query(f"read_{table}"), {"after": last, "most": most}):
                    last, leap, found = number, 1, found + 1
                    yield tuple(row)
            except FROM_SQLITE:
                self._is_broken = True
                if most == 1:
                    last, leap = last + leap, leap * 2
                most = 1
                continue
            if most != 1 or not found:
                return
            most = -1

    def _put(self, table: str, row: Row) -> bool:
        """Write a row that keeps the rules of the new ledger; say whether it does."""
        try:
            return self._ledger.execute(query(f"carry_{table}"), row).rowcount > 0
        except (*FROM_SQLITE, OverflowError):
            return False

    def _copy_attempts(self) -> bool:
        """Say whether every attempt could be read and is now in the new ledger."""
        self._is_broken = False
        is_whole = True
        for row in self._readable("attempt"):
            attempt, run, task, number, state, fingerprint, model, reserved, cost, sent_at, *rest = row
            sent_at = self._likely(sent_at)
            sound = (attempt, run, task, number, state, fingerprint, model, reserved, cost, sent_at, *rest)
            if _is_price(cost) and _is_price(reserved) and self._put("attempt", sound):
                self._count(state, cost, reserved)
            elif not self._copy_lost(attempt, state, cost, reserved, sent_at, sha256=rest[-2]):
                is_whole = False
        return is_whole and not self._is_broken

    def _is_contradicted(self) -> bool:
        """Say whether the index of money says otherwise of a request: a bit flipped in one of the two."""
        with contextlib.suppress(*FROM_SQLITE):
            for attempt, *money, _sent_at in self._damaged.execute(query("read_money_forwards")):
                if self._ledger.execute(query("money_of"), (attempt,)).fetchone() != tuple(money):
                    return True
        return False

    def _copy_money(self) -> bool:
        """Read the index of money, a second copy elsewhere in the file; say whether all of it could be read."""
        for order in ("read_money_forwards", "read_money_backwards"):
            try:
                known = [self._copy_lost(*row) for row in self._damaged.execute(query(order))]
            except FROM_SQLITE:
                continue
            return all(known)
        return False

    def _copy_lost(
        self, attempt: Any, state: Any, cost: Any, reserved: Any, sent_at: Any, *, sha256: Any = None
    ) -> bool:
        """Keep the money of an attempt whose task or run cannot be read; say whether it counts now."""
        if not (_is_price(cost) and _is_price(reserved)):
            return False
        run, task = self._place_of_the_lost()
        row = {
            "attempt": attempt,
            "run": run,
            "task": task,
            "state": "unknown" if state == "sent" else state,
            "cost": cost,
            "reserved": reserved,
            "sent_at": self._likely(sent_at),
            "sha256": sha256 if isinstance(sha256, str) else None,
        }
        try:
            is_new = self._ledger.execute(query("carry_lost_attempt"), row).rowcount > 0
        except (*FROM_SQLITE, OverflowError):
            return False
        if is_new:
            self._count(row["state"], cost, reserved)
            self._salvaged.is_anonymous |= row["sha256"] is None
        return True

    def _likely(self, moment: Any) -> int:
        """Return when it was; a moment that cannot be is today, where it counts."""
        return moment if isinstance(moment, int) and EARLIEST_US <= moment <= self._now else self._now

    def _place_of_the_lost(self) -> tuple[int, int]:
        if self._place is None:
            name = self._salvaged.source.name
            manifest = {"manifest": name, "output": name.encode()}
            run = rows.begin_run(self._ledger, manifest, now=self._now)
            values = {**manifest, "id": LOST, "now": self._now}
            task = self._ledger.execute(query("place_of_the_lost"), values).lastrowid
            assert task is not None
            self._place = (run, task)
        return self._place

    def _count(self, state: str, cost: int, reserved: int) -> None:
        self._salvaged.attempts += 1
        if state in ("ok", "paid"):
            self._salvaged.spent_microusd += cost
        elif state != "free":
            self._salvaged.unknown_microusd += reserved

    def _raise_sequence(self) -> None:
        """No number is given twice, not even that of an attempt that could not be read: parts on disk carry it."""
        with contextlib.suppress(*FROM_SQLITE):
            (last,) = self._damaged.execute(query("last_attempt")).fetchone()
            if isinstance(last, int) and 0 < last < FARTHEST:
                rows.raise_sequence(self._ledger, last)


def _is_price(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= DEAREST_MICROUSD

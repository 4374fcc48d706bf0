"""Read-only access to the ledger for plans, reports, `status`, `explain` and `cost`.

Synchronous: it opens while a run writes, never blocks it and never checkpoints. A ledger that does not exist yet is an
empty one.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from pipeline.model import Artifact, BucketUrl, Known, Spend, Task, TaskState, is_object
from pipeline.settings import FORMER_DEFAULTS, day_of
from pipeline.store import ledger_file, rows
from pipeline.store.ledger_file import damaged, from_us, query, to_us, translated
from pipeline.store.rows import Columns, Cost, Hold, Maker, PastAttempt, RunSnapshot, Unknown
from pipeline.text import name_key

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

A = TypeVar("A")
T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")

QUARTER_US: Final = 900_000_000  # a quarter of an hour: what every time zone's day is made of
BUSY_S: Final = 30.0
BATCH: Final = 500  # rows that are read at once where each takes long
LATEST: Final = datetime.max.replace(tzinfo=UTC)
_COUNTS: Final = msgspec.json.Decoder(dict[str, int])
_RECORD: Final = msgspec.json.Decoder(dict[str, object])


def _list(texts: Iterable[str]) -> str:
    return msgspec.json.encode([*texts]).decode()


class LedgerReader:
    """One manifest's view of a ledger. Use it as a context manager; one thread at a time."""

    def __init__(self, state_dir: Path, *, manifest: str, output_dir: Path | BucketUrl | None = None) -> None:
        """`output_dir` None: the one the ledger remembers for this manifest.

        Raises LedgerError: corrupt, foreign, newer. TryLater: locked by another program for 30 s.
        """
        self.state_dir = state_dir
        self.manifest = manifest
        self._output = None if output_dir is None else rows.relative_bytes(output_dir, state_dir)
        self.path = state_dir / ledger_file.NAME
        self._connection = ledger_file.open_for_reading(self.path, busy_s=BUSY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def is_missing(self) -> bool:
        """Say whether there is no ledger."""
        return self._connection is None

    @property
    def is_play_money(self) -> bool | None:
        """Whether its money is the simulator's; None without a ledger."""
        return self._value(bool, "is_play_money")

    @property
    def ledger_id(self) -> str | None:
        """What its parts carry; None without a ledger."""
        return self._value(str, "ledger_id")

    # --- tasks

    def known(self, task_id: str) -> Known | None:
        """Return what is remembered of one task."""
        return self.known_among([task_id]).get(task_id)

    def known_among(self, task_ids: Iterable[str]) -> dict[str, Known]:
        """Return what is remembered of several tasks, by id; those it has never seen are left out."""
        stored = {task_id: rows.text(task_id) for task_id in task_ids}
        found = {row[0]: row for row in self._rows("known_among", ids=_list(stored.values()))}
        return {task_id: self._known(found[text]) for task_id, text in stored.items() if text in found}

    def all_known(self) -> Iterator[Known]:
        """Walk every task of this manifest, oldest first."""
        return map(self._known, self._rows("all_known"))

    def all_done(self) -> Iterator[tuple[str, Artifact]]:
        """Walk id and image of every done task of this manifest.

        In batches: an open statement keeps SQLite's log growing, and images may be hashed for hours beside a run.
        """
        after = 0
        while batch := list(self._rows("all_done", after=after, most=BATCH)):
            for after, task_id, *columns in batch:  # noqa: B007 - the last one is where the next batch begins
                artifact = self._decoded(rows.artifact_of, columns)
                assert artifact is not None
                yield str(task_id), artifact

    def flags(self) -> Counter[str]:
        """Count this manifest's done images by what checks found in them."""
        return self._counts("flags")

    def looks(self, job: str, *, most: int) -> dict[str, str]:
        """Return the perceptual hashes of a job's latest images by task, oldest first."""
        return dict(reversed(list(self._rows("looks", job=rows.text(job), most=most))))

    def jobs(self) -> Counter[str]:
        """Count this manifest's tasks by job, those that it no longer has included."""
        return self._counts("jobs")

    def attempts(self, task_id: str) -> list[PastAttempt]:
        """Return one task's whole history, in the order it was sent."""
        return self._all(PastAttempt, self._rows("attempts", id=rows.text(task_id)))

    def record(self, task_id: str, *, fingerprint: str | None = None) -> dict[str, object] | None:
        """Return what a task asks for: prompt, model, parameters; inputs relative to the state directory.

        `fingerprint` None: its latest request; else that one of its requests. None: nothing was written down.
        """
        name = "record" if fingerprint is None else "record_of"
        row = self._one(name, id=rows.text(task_id), fingerprint=fingerprint)
        return None if row is None else {**self._decoded(_RECORD.decode, row[0]), "fingerprint": row[1]}

    def made_for(self, task: Task) -> list[str]:
        """Return the ids of other tasks whose image is what `task` asks for, oldest first."""
        digests = {"prompt": task.digests.prompt, "params": task.digests.params, "pixels": task.digests.pixels}
        found = self._rows("made_for", **digests, fingerprint=task.fingerprint, id=rows.text(task.id))
        return [str(row[0]) for row in found]

    def made_by_former_defaults(self) -> Iterator[Columns]:
        """Yield the ids of tasks whose image is of a retired default model, and all other digests of each."""
        return self._rows("made_by_models", models=_list(FORMER_DEFAULTS))

    @property
    def has_images(self) -> bool:
        """Say whether a task of this manifest has an image."""
        return self._one("has_images") is not None

    def orphans(self, ids: Iterable[str]) -> Iterator[Known]:
        """Walk the known tasks that are not among `ids` (removed from the manifest). Memory stays flat."""
        with closing(sqlite3.connect("")) as scratch:
            scratch.execute("CREATE TABLE present (id TEXT PRIMARY KEY) WITHOUT ROWID")
            scratch.executemany("INSERT OR IGNORE INTO present VALUES (?)", ((rows.text(each),) for each in ids))
            for known in self.all_known():
                if scratch.execute("SELECT 1 FROM present WHERE id = ?", (known.id,)).fetchone() is None:
                    yield known

    def claimed_elsewhere(self, names: Iterable[str]) -> dict[str, str]:
        """Return, by output name, `manifest: id` of another manifest's task that has it in the same directory."""
        keys = {name: name_key(rows.text(name)) for name in names}
        claims = self._rows("claimed_elsewhere", name_keys=_list(keys.values()), output=self._output)
        found = {key: f"{manifest}: {task_id}" for key, manifest, task_id in claims}
        return {name: found[key] for name, key in keys.items() if key in found}

    def twins(self, asked: Iterable[tuple[str, Iterable[str]]]) -> Counter[str]:
        """Count, by other manifest, the tasks it has with one of these ids and one of its fingerprints."""
        found = [(rows.text(task_id), each) for task_id, fingerprints in asked for each in set(fingerprints)]
        pairs = msgspec.json.encode(found).decode()
        return self._counts("twins", pairs=pairs, models=_list(FORMER_DEFAULTS))

    # --- images

    def makers(self, *, path: str | None = None, sha256: str | None = None) -> list[Maker]:
        """Return whose image a path (relative to the output directory) or a hash is, superseded images too."""
        found = [*self._rows("made_by_path", path=rows.text(path))] if path is not None else []
        if sha256 is not None:
            found += self._rows("made_by_sha256", sha256=sha256)
        return list(dict.fromkeys(self._all(Maker, found)))

    def output_dir(self) -> Path | BucketUrl | None:
        """Return the output directory or bucket this manifest used last; None: it is not known here."""
        stored = self._value(bytes, "output_of")
        if stored is None:
            return None
        place = os.fsdecode(stored)
        return BucketUrl.of(place) if is_object(place) else Path(os.path.normpath(self.state_dir / place))

    def is_made_elsewhere(self, attempt: int) -> bool:
        """Say whether an attempt was made for another manifest that shares the ledger."""
        return self._one("made_elsewhere", attempt=attempt) is not None

    def is_recorded(self, path: str) -> bool:
        """Say whether some task of this output directory has its image at `path`, in whatever case it is written."""
        key = name_key(rows.text(path))
        found = self._rows("recorded_near", path=rows.text(path), name_key=key.rpartition(".")[0])
        return any(name_key(recorded) == key for (recorded,) in found)

    # --- money

    def spend(self, since: datetime | None = None, until: datetime = LATEST) -> Spend:
        """Sum what was billed and what may have been, of all manifests; from a moment to another, both included."""
        if since is None:
            return self._spend("spend_all")
        return self._spend("spend_since", since=to_us(since), until=to_us(until))

    def spend_of_last_run(self) -> Spend:
        """Sum the money of this manifest's last run; a rebuild is none."""
        return self._spend("spend_of_last_run")

    def dearest(self, since: datetime) -> dict[tuple[str, str, str], int]:
        """Return what the dearest answer since then cost, by model, size and tier; of all manifests.

        Only answers that accounted for their tokens: of others it is not known.
        """
        return {(model, size, tier): cost for model, size, tier, cost in self._rows("dearest", since=to_us(since))}

    def doubt(self, since: datetime) -> tuple[datetime, str] | None:
        """Return since when, and why, more may have been spent than is known; None: all of it is known."""
        row = self._one("doubt", since=to_us(since))
        return None if row is None else (from_us(row[0]), str(row[1]).removeprefix(f"{rows.REBUILT}: "))

    @property
    def has_attempts(self) -> bool:
        """Say whether a request was ever written down here."""
        return self._one("any_attempt") is not None

    def unknowns(self, *, of_nobody: bool = False) -> list[Unknown]:
        """Return this manifest's requests that may have been billed and brought nothing.

        `of_nobody`: those of a damaged ledger whose task could not be read; the budgets count them all the same.
        """
        found = self._rows("unknowns_of_nobody" if of_nobody else "unknowns")
        rest = ((*row[:3], row[3] == "sent", *row[4:]) for row in found)  # its state: whether it is open
        return self._all(Unknown, rest)

    def costs(self, *, by: Sequence[str], since: datetime | None = None, tz: tzinfo = UTC) -> list[Cost]:
        """Sum this manifest's money by any of `job`, `model`, `day` (of `tz`); by none: all of it."""
        totals: dict[tuple[str, ...], tuple[int, ...]] = {}
        for job, model, quarter, *numbers in self._rows("costs", since=0 if since is None else to_us(since)):
            day = day_of(from_us(quarter * QUARTER_US), tz).label.isoformat()
            names = {"job": job, "model": model, "day": day}
            key = tuple(names[name] for name in by)
            totals[key] = tuple(map(sum, zip(totals.get(key, (0, 0, 0, 0)), numbers, strict=True)))
        return [rows.read(Cost, (key, *total)) for key, total in sorted(totals.items())]

    # --- runs

    def holds(self) -> list[Hold]:
        """Return until when nothing may be sent, to whom; those in the past are returned too."""
        return self._all(Hold, self._rows("holds"))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read inside the block be of one moment; a writer goes on beside it."""
        if self._connection is None:
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def run_that_goes_on(self) -> RunSnapshot | None:
        """Return the last run, if it has no end. Whether its process still lives only the lock says."""
        row = self._one("run_that_goes_on")
        if row is None:
            return None
        run, started_at, found, manifest = row
        counts = self._decoded(_COUNTS.decode, found)
        attempts = self._counts("attempts_of_run", run=run)
        return RunSnapshot(
            run=run,
            manifest=manifest,
            started_at=from_us(started_at),
            due=counts.pop("due", 0),
            workers=counts.pop("workers", 0),
            workers_lost=counts.pop("workers_lost", 0),
            found={TaskState(state): number for state, number in counts.items()},
            asked={TaskState(state): number for state, number in self._rows("states_of_run", run=run)},
            in_flight=attempts["sent"],
            images=attempts["ok"],
            seen_at=datetime.now(UTC),
        )

    def runs(self) -> list[datetime]:
        """Return when each run began, the oldest first."""
        return [from_us(row[0]) for row in self._rows("runs")]

    def pace(self, *, fewest: int) -> float | None:
        """Return the images a second of this manifest's last run that brought `fewest` or more; None: no such run."""
        row = self._one("pace", fewest=fewest)
        return None if row is None else float(row[0] / row[1])

    def digest(self, location: str, size_bytes: int, mtime_ns: int) -> tuple[str, str] | None:
        """Return the remembered SHA-256 of an input file that still has this size and time: of all, of its pixels."""
        key = rows.relative_bytes(location, self.state_dir)
        row = self._one("digest", path=key, size_bytes=size_bytes, mtime_ns=mtime_ns)
        return None if row is None else (str(row[0]), str(row[1]))

    # --- rows

    def _known(self, row: Columns) -> Known:
        return self._decoded(rows.known_of, row)

    def _spend(self, name: str, **values: object) -> Spend:
        row = self._one(name, **values)
        return Spend() if row is None else Spend(spent_microusd=row[0], unknown_microusd=row[1])

    def _counts(self, name: str, **values: object) -> Counter[str]:
        return Counter(dict(self._rows(name, **values)))

    def _all(self, kind: type[D], found: Iterable[Columns]) -> list[D]:
        return [self._decoded(partial(rows.read, kind), row) for row in found]

    def _value(self, kind: Callable[[A], T], name: str) -> T | None:
        row = self._one(name)
        return None if row is None else kind(row[0])

    def _one(self, name: str, **values: object) -> Columns | None:
        if self._connection is None:
            return None
        with translated(self.path):
            row: Columns | None = self._connection.execute(
                query(name), {"manifest": self.manifest, **values}
            ).fetchone()
            return row

    def _rows(self, name: str, **values: object) -> Iterator[Columns]:
        if self._connection is None:
            return
        with translated(self.path):
            yield from self._connection.execute(query(name), {"manifest": self.manifest, **values})

    def _decoded(self, decode: Callable[[A], T], value: A) -> T:
        """Run `decode`; what a flipped bit made unreadable is damage, not a traceback."""
        try:
            return decode(value)
        except (ValueError, TypeError, OverflowError, msgspec.DecodeError) as error:
            raise damaged(self.path, f"a row cannot be read: {error}") from error

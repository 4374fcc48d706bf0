"""A stream of tasks, each beside what the ledger knows -> rows; rows -> totals, and a spool of due tasks.

Memory stays flat at 1,000,000 tasks: rows pass by, due tasks wait on disk. The spool is also the snapshot of the
manifest: what is edited after the plan was made does not change the run.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

from pipeline.errors import InputError
from pipeline.model import Due, Known, Quote, Task, TaskState
from pipeline.plan.alike import Alike
from pipeline.plan.judge import FileView, Rules, Verdict, judge
from pipeline.plan.totals import LISTED, SETTLED, Plan, why

MOVE: Final = "move"  # what a run does without a request
ACCEPT: Final = "accept"
_FREE: Final = Quote(0, 0)
BATCH: Final = 500  # tasks the ledger is asked about at once: of one at a time, half of a large plan's CPU was asking


class Ledger(Protocol):
    """What planning asks of the ledger."""

    def known_among(self, task_ids: Sequence[str]) -> Mapping[str, Known]: ...
    def claimed_elsewhere(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return, by name, the id of another manifest's task that claims this output name."""
        ...


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One task and where it stands."""

    task: Task
    known: Known | None
    verdict: Verdict
    rival: str | None = None  # another manifest's task that claims the same output name


class Spool:
    """Due tasks on disk: written once, then read in order as often as needed. The files die with the process.

    What was paid for before and brought no image comes last: it may do so again, and takes nobody else's money.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._last: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Due)

    def add(self, due: Due) -> None:
        frame = self._encoder.encode(due)
        (self._last if due.faults else self._file).write(len(frame).to_bytes(4, "big") + frame)

    def clear(self) -> None:
        """Forget what was added."""
        for file in (self._file, self._last):
            file.seek(0)
            file.truncate()

    def __iter__(self) -> Iterator[Due]:
        for file in (self._file, self._last):
            file.seek(0)
            while head := file.read(4):
                yield self._decoder.decode(file.read(int.from_bytes(head, "big")))

    def close(self) -> None:
        self._file.close()
        self._last.close()


def survey(tasks: Iterable[Task], ledger: Ledger, files: FileView, rules: Rules) -> Iterator[Row]:
    """Set each task beside what is known of it."""
    for batch in _batches(tasks):
        known = ledger.known_among([task.id for task in batch])
        rivals = ledger.claimed_elsewhere([task.name for task in batch])
        for task in batch:
            mine = known.get(task.id)
            verdict = judge(task, mine, files, rules)
            yield Row(task=task, known=mine, verdict=verdict, rival=rivals.get(task.name))


def _batches(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    """Yield tasks by the batch, also those before an InputError, which is raised behind them."""
    batch: list[Task] = []
    try:
        for task in tasks:
            batch.append(task)
            if len(batch) == BATCH:
                yield batch
                batch = []
    except InputError:
        yield batch
        raise
    yield batch


def tally(
    rows: Iterable[Row],
    *,
    quote: Callable[[Task], Quote | None],
    problem: Callable[[Task], str | None],
    spool: Spool | None = None,
    free: Spool | None = None,
) -> Plan:
    """Count rows into a plan; due tasks go to `spool`, what is done without a request (MOVE, ACCEPT) to `free`.

    Problems are collected, not raised.
    """
    plan, alike = Plan(), Alike()
    for row in rows:
        is_due = row.verdict.reason is not None
        its_quote = _FREE if why(row.verdict) in SETTLED else quote(row.task)
        plan.add(row, its_quote)
        price = None if its_quote is None else its_quote.least
        alike.add(row.task.id, row.task.fingerprint, is_due=is_due, price=price)
        wrong = problem(row.task) if is_due else None
        if wrong is None and (is_due or row.verdict.moves_to is not None or row.verdict.state is TaskState.CONFLICT):
            wrong = _claimed(row)
        if wrong is not None and len(plan.problems) < LISTED:
            plan.problems.append(wrong)
        _spool(row, spool, free)
    plan.alike, plan.alike_example = alike.sum(), alike.example
    return plan


def _spool(row: Row, spool: Spool | None, free: Spool | None) -> None:
    task, verdict, known = row.task, row.verdict, row.known
    if verdict.reason is not None and spool is not None:
        is_same = known is not None and known.fingerprint == task.fingerprint
        unknowns, faults = (known.unknowns, known.faults) if known is not None and is_same else (0, ())
        spool.add(Due(task=task, reason=verdict.reason, unknowns=unknowns, faults=faults))
    if free is not None and verdict.is_accepted:
        free.add(Due(task=task, reason=ACCEPT))
    if free is not None and verdict.moves_to is not None:
        free.add(Due(task=task, reason=MOVE))


def _claimed(row: Row) -> str | None:
    task, other = row.task, row.rival
    return other and f"{task.id} and {other} claim one output name, {task.name!r}; change `output` of one of them"

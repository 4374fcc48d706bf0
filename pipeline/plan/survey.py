"""A stream of tasks, each beside what the ledger knows -> rows; rows -> totals, and a spool of due tasks.

Memory stays flat at 1,000,000 tasks: rows pass by, due tasks wait on disk. The spool is also the snapshot of the
manifest: what is edited after the plan was made does not change the run.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

from pipeline.model import Due, Known, Task, TaskState
from pipeline.plan.judge import FileView, Rules, Verdict, judge

LISTED: Final = 1000  # notes kept for people; beyond, they are only counted
MOVE: Final = "move"  # what a run does without a request
ACCEPT: Final = "accept"


class Ledger(Protocol):
    """What planning asks of the ledger."""

    def known(self, task_id: str) -> Known | None: ...
    def claimed_elsewhere(self, name: str) -> str | None:
        """Return the id of another manifest's task that claims this output name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task and where it stands."""

    task: Task
    known: Known | None
    verdict: Verdict


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a run would do. Money in micro-dollars; None: a due task's price is not known."""

    total: int = 0
    due: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    states: Counter[TaskState] = field(default_factory=Counter)  # of the tasks that are not due
    jobs: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # job -> reason or state
    job_prices: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # micro-dollars
    price_microusd: int | None = 0  # each due task bought once
    unpriced: Counter[str] = field(default_factory=Counter)  # models without a price
    models: set[str] = field(default_factory=set)  # of the due tasks
    missing: int = 0
    matched: int = 0  # tasks the ledger knows
    notes: list[str] = field(default_factory=list)
    moves: int = 0  # done tasks whose image gets another name, without a request
    accepted: int = 0  # done tasks whose change is taken as good, without a request
    problems: list[str] = field(default_factory=list)

    @property
    def skip(self) -> int:
        return self.total - self.due

    def add(self, row: Row, price: int | None) -> None:
        """Count one row; `price` is that of its image."""
        self.total += 1
        self.matched += row.known is not None
        job, verdict = row.task.job, row.verdict
        if verdict.reason is None:
            self.states[verdict.state] += 1
            self.jobs[job][verdict.state] += 1
            self.missing += verdict.is_missing
            self._note(row)
            return
        self.due += 1
        self.models.add(row.task.model)
        self.reasons[verdict.reason] += 1
        self.jobs[job][verdict.reason] += 1
        if price is None:
            self.unpriced[row.task.model] += 1
            self.price_microusd = None
        else:
            self.job_prices[job][verdict.reason] += price
            self.price_microusd = None if self.price_microusd is None else self.price_microusd + price

    def _note(self, row: Row) -> None:
        verdict = row.verdict
        self.moves += verdict.moves_to is not None
        self.accepted += verdict.is_accepted
        if (verdict.is_missing or verdict.state is not TaskState.DONE) and len(self.notes) < LISTED:
            self.notes.append(f"{row.task.id}: {verdict.note or verdict.state}")


def merged(*plans: Plan) -> Plan:
    """Return several plans as one."""
    whole = Plan()
    for plan in plans:
        whole.total += plan.total
        whole.due += plan.due
        whole.reasons += plan.reasons
        whole.states += plan.states
        for job, counts in plan.jobs.items():
            whole.jobs[job] += counts
            whole.job_prices[job] += plan.job_prices[job]
        whole.unpriced += plan.unpriced
        whole.models |= plan.models
        whole.missing += plan.missing
        whole.matched += plan.matched
        whole.notes += plan.notes
        whole.moves += plan.moves
        whole.accepted += plan.accepted
        whole.problems += plan.problems
    prices = [plan.price_microusd for plan in plans]
    whole.price_microusd = None if None in prices else sum(price for price in prices if price is not None)
    return whole


class Spool:
    """Due tasks on disk: written once, then read in order as often as needed. The file dies with the process."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Due)

    def add(self, due: Due) -> None:
        frame = self._encoder.encode(due)
        self._file.write(len(frame).to_bytes(4, "big"))
        self._file.write(frame)

    def clear(self) -> None:
        """Forget what was added."""
        self._file.seek(0)
        self._file.truncate()

    def __iter__(self) -> Iterator[Due]:
        self._file.seek(0)
        while head := self._file.read(4):
            yield self._decoder.decode(self._file.read(int.from_bytes(head, "big")))

    def close(self) -> None:
        self._file.close()


def survey(tasks: Iterable[Task], ledger: Ledger, files: FileView, rules: Rules) -> Iterator[Row]:
    """Set each task beside what is known of it."""
    for task in tasks:
        known = ledger.known(task.id)
        yield Row(task=task, known=known, verdict=judge(task, known, files, rules))


def tally(
    rows: Iterable[Row],
    *,
    price: Callable[[Task], int | None],
    problem: Callable[[Task], str | None],
    ledger: Ledger,
    spool: Spool | None = None,
    free: Spool | None = None,
) -> Plan:
    """Count rows into a plan; due tasks go to `spool`, what is done without a request (MOVE, ACCEPT) to `free`.

    Problems are collected, not raised.
    """
    plan = Plan()
    for row in rows:
        is_due = row.verdict.reason is not None
        plan.add(row, price(row.task) if is_due else None)
        wrong = problem(row.task) if is_due else None
        if wrong is None and (is_due or row.verdict.moves_to is not None):
            wrong = _claimed(row.task, ledger)
        if wrong is not None and len(plan.problems) < LISTED:
            plan.problems.append(wrong)
        _spool(row, spool, free)
    return plan


def _spool(row: Row, spool: Spool | None, free: Spool | None) -> None:
    task, verdict, known = row.task, row.verdict, row.known
    if verdict.reason is not None and spool is not None:
        is_same = known is not None and known.fingerprint == task.fingerprint
        spool.add(Due(task=task, reason=verdict.reason, unknowns=known.unknowns if known and is_same else 0))
    if free is not None and verdict.is_accepted:
        free.add(Due(task=task, reason=ACCEPT))
    if free is not None and verdict.moves_to is not None:
        free.add(Due(task=task, reason=MOVE))


def _claimed(task: Task, ledger: Ledger) -> str | None:
    other = ledger.claimed_elsewhere(task.name)
    return other and f"{task.id} and {other} claim one output name, {task.name!r}; change `output` of one of them"

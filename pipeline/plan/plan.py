"""Sums a stream of tasks and ledger rows to counts and prices by job and reason, and spools the due tasks to disk.

Memory stays flat at 1,000,000 tasks: rows are streamed, due tasks wait on disk. The spool is also the snapshot of the
manifest: an edit after the plan was made does not change the run.

Tasks that ask for the same image are counted by fingerprint. The variant is part of it, so the variants of one row are
not alike; two rows with one prompt are. Memory: 8 bytes a task, whatever a fingerprint's length; a false match on 8
bytes among a million tasks happens once in 40 million plans.
"""

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from pipeline.errors import InputError
from pipeline.model import Due, Edit, Known, Quote, Task, TaskState
from pipeline.plan.decide import MISSING, FileView, Rules, Verdict, changed_aspects, decide
from pipeline.store.reader import LedgerReader

LISTED: Final = 1000  # notes kept for people; beyond, they are only counted
ALIKE: Final = 3  # problems of a job with the same words that are listed
SAMPLES: Final = 3  # prompts that a plan shows
UNCHANGED: Final = "unchanged"
RENAMED: Final = "renamed"
ACCEPTED: Final = "accepted"
SETTLED: Final = frozenset({UNCHANGED, RENAMED, ACCEPTED, *Edit})  # done, and nothing is missing


class Key(NamedTuple):
    """What the tasks of one group have in common. `why`: a reason of `decide` when due, else where they stand."""

    job: str
    why: str
    is_due: bool


@dataclass(slots=True)
class Group:
    """Tasks that stand alike, and what they cost; `unpriced` are not in the price."""

    tasks: int = 0
    price_microusd: int = 0
    unpriced: int = 0

    def add(self, price_microusd: int | None) -> None:
        """Add one task; None: its price is not known."""
        self.tasks += 1
        self.price_microusd += price_microusd or 0
        self.unpriced += price_microusd is None

    def __add__(self, other: "Group") -> "Group":
        return Group(
            self.tasks + other.tasks, self.price_microusd + other.price_microusd, self.unpriced + other.unpriced
        )

    @property
    def known_price(self) -> int | None:
        """Micro-dollars; None when the price of one of them is not known."""
        return None if self.unpriced else self.price_microusd


def why(verdict: Verdict) -> str:
    """Return the one word that says where a task stands: `new`, `unchanged`, `missing`, `refused` ..."""
    if verdict.reason is not None:
        return verdict.reason
    if verdict.is_missing:
        return MISSING
    if verdict.state is not TaskState.DONE:
        return verdict.state.value
    if verdict.former or verdict.moves_to is not None:
        return RENAMED
    if verdict.edit is not None and not verdict.is_edit_new:
        return verdict.edit.value
    return ACCEPTED if verdict.is_accepted or verdict.is_edit_new else UNCHANGED


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a run would do."""

    total: int = 0
    states: Counter[TaskState] = field(default_factory=Counter)  # of the tasks that are not due
    groups: dict[Key, Group] = field(default_factory=dict)  # in the order of the stream, at the price of the pixels
    least: Group = field(default_factory=Group)  # each due task bought once, at the price of its pixels
    most: Group = field(default_factory=Group)  # each due task bought once, at what is reserved for it
    unpriced: Counter[str] = field(default_factory=Counter)  # models of due tasks without a price
    models: set[str] = field(default_factory=set)  # of the due tasks
    missing: int = 0  # done, their file gone or changed, and not due
    alike: Group = field(default_factory=Group)  # due tasks whose image another task asks for as well
    alike_examples: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    moves: int = 0  # done tasks whose image gets another name, without a request
    given_up: int = 0  # refused, and that is taken as it is
    flagged: Group = field(default_factory=Group)  # done, not due, and a check found something; priced as a redo
    redos: Group = field(default_factory=Group)  # due tasks whose image a check may have asked for again, at the most
    accepted: int = 0  # done tasks whose change is taken as good, without a request
    problems: list[str] = field(default_factory=list)  # the first ones of each kind
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)  # of those: job and words
    unlisted: int = 0  # problems beyond
    barriers: Counter[str] = field(default_factory=Counter)  # what keeps tasks waiting that would be due
    due_examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # of a few jobs: (name, prompt)

    @property
    def due(self) -> int:
        return self.least.tasks

    @property
    def samples(self) -> list[tuple[str, str]]:
        """A few due tasks as (name of the image, prompt), of different jobs where there are several."""
        rounds = zip_longest(*self.due_examples.values())
        return [sample for turn in rounds for sample in turn if sample is not None][:SAMPLES]

    def add(self, row: "PlanRow", quote: Quote | None) -> None:
        """Count one row; `quote` is what its image costs, None when that is not known."""
        verdict, is_due = row.verdict, row.verdict.reason is not None
        least = None if quote is None else quote.least
        self.total += 1
        self.groups.setdefault(Key(row.task.job, why(verdict), is_due), Group()).add(least)
        if is_due:
            self.least.add(least)
            self._add_due(row.task, None if quote is None else quote.most)
        else:
            self._add_standing(row)

    def _add_due(self, task: Task, most: int | None) -> None:
        self.most.add(most)
        self.models.add(task.model)
        if most is None:
            self.unpriced[task.model] += 1
        if task.checks.redo:
            self.redos.add(None if most is None else most * task.checks.most_redos)
        if task.job in self.due_examples or len(self.due_examples) < SAMPLES:
            examples = self.due_examples.setdefault(task.job, [])
            if len(examples) < SAMPLES:
                examples.append((task.name, task.prompt))

    def _add_standing(self, row: "PlanRow") -> None:
        verdict = row.verdict
        if verdict.barrier is not None:
            self.barriers[verdict.barrier] += 1
        self.states[verdict.state] += 1
        self.given_up += verdict.is_given_up
        self.missing += verdict.is_missing
        self.moves += verdict.moves_to is not None or verdict.former != ""
        self.accepted += verdict.is_accepted or verdict.is_edit_new
        is_wrong = verdict.is_missing or (verdict.state is not TaskState.DONE and not verdict.is_given_up)
        if is_wrong and len(self.notes) < LISTED:
            self.notes.append(f"{row.task.id}: {verdict.note or verdict.state}")

    def add_problem(self, task: Task, text: str) -> None:
        """Keep the first three of one job with the same words: what is wrong with a job is wrong with all its tasks."""
        kind = (task.job, text.removeprefix(task.id))
        if len(self.problems) < LISTED and self.kinds[kind] < ALIKE:
            self.problems.append(text)
            self.kinds[kind] += 1
        else:
            self.unlisted += 1

    def due_of(self, job: str) -> Group:
        """Sum up the due tasks of a job."""
        return sum((group for key, group in self.groups.items() if key.is_due and key.job == job), start=Group())

    def sum_of(self, *words: str) -> Group:
        """Sum up the groups that are not due and stand as one of `words` says."""
        meant = (group for key, group in self.groups.items() if not key.is_due and key.why in words)
        return sum(meant, start=Group())


def merged(one: Plan, other: Plan) -> Plan:
    """Return two plans as one."""
    return Plan(**{each.name: _sum(getattr(one, each.name), getattr(other, each.name)) for each in fields(Plan)})


def _sum(one: Any, other: Any) -> Any:
    """Return one field of two plans as one; what both mappings hold under a key is added up."""
    if isinstance(one, set):
        return one | other
    if isinstance(one, dict) and not isinstance(one, Counter):
        return one | other | {key: one[key] + other[key] for key in one.keys() & other.keys()}
    return one + other


NAMED: Final = 10_000  # tasks remembered by name, to tell which ones are meant

_Keys = list["array[int]"]  # 64 bits of each fingerprint, apart by their first byte: sets are made one byte at a time


class Alike:
    """Counts the due tasks whose image is asked for by another task too."""

    def __init__(self) -> None:
        self._due: dict[int | None, _Keys] = {}  # by price; there are as many as pairs of model and size
        self._others = _keys()
        self._names: dict[int, tuple[str, bool]] = {}
        self.examples: list[tuple[str, str]] = []  # the first pair, if it was found beside the first 10,000 tasks

    def add(self, task_id: str, fingerprint: str, *, is_due: bool, price: int | None) -> None:
        """Note one task. `fingerprint`: hex; `price`: micro-dollars of its image, None: not known."""
        key = int(fingerprint[:16], 16)
        if is_due and price not in self._due:
            self._due[price] = _keys()
        (self._due[price] if is_due else self._others)[key >> 56].append(key)
        if self.examples:
            return
        first, is_first_due = self._names.get(key, ("", False))
        if first and (is_due or is_first_due):
            self.examples.append((first, task_id))
        elif not first and len(self._names) < NAMED:
            self._names[key] = (task_id, is_due)

    def sum(self) -> Group:
        """Sum up the due tasks that ask for an image that another one asks for as well, or has."""
        whole = Group()
        for price, keys in self._due.items():
            tasks = sum(len(due) - len(set(due) - set(others)) for due, others in zip(keys, self._others, strict=True))
            whole += Group(tasks, tasks * (price or 0), tasks if price is None else 0)
        return whole


def _keys() -> _Keys:
    return [array("Q") for _ in range(256)]


MOVE: Final = "move"  # what a run does without a request
ACCEPT: Final = "accept"
TAKE_OVER: Final = "take over"
_FREE: Final = Quote(0, 0)
BATCH: Final = 500  # tasks the ledger is asked about at once: of one at a time, half of a large plan's CPU was asking


class PlanRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task and where it stands."""

    task: Task
    known: Known | None
    verdict: Verdict
    rival: str | None = None  # another manifest's task that claims the same output name


class Spool:
    """Due tasks on disk: written once, then read in order as often as needed. The files die with the process.

    What was paid for before and brought no image comes last: it may do so again, and the budget is for the
    others first.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._last: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Due)

    def add(self, due: Due) -> None:
        try:
            frame = self._encoder.encode(due)
        except UnicodeEncodeError:  # the name of an input is not UTF-8
            frame = json.dumps(msgspec.to_builtins(due)).encode()
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
                frame = file.read(int.from_bytes(head, "big"))
                is_json = frame.startswith(b"{")  # which no message pack of a task does
                yield msgspec.convert(json.loads(frame), Due) if is_json else self._decoder.decode(frame)

    def close(self) -> None:
        self._file.close()
        self._last.close()


def survey(
    tasks: Iterable[Task],
    ledger: LedgerReader,
    files: FileView,
    rules: Rules,
    *,
    former: Callable[[Task], Known | None] = lambda _task: None,
) -> Iterator[PlanRow]:
    """Set each task beside what is known of it.

    `former` returns what is known of the task that made this one's image before it was renamed; None: there is none.
    """
    for batch in _batches(tasks):
        known = ledger.known_among([task.id for task in batch])
        rivals = ledger.claimed_elsewhere([task.name for task in batch])
        for task in batch:
            mine = known.get(task.id)
            verdict = decide(task, mine, files, rules)
            if _has_none(mine, verdict) and (other := former(task)) is not None:
                taken_over = decide(task, other, files, rules)
                if taken_over.reason is None:  # also where its file is gone or was edited: only --repair buys it again
                    mine, verdict = other, msgspec.structs.replace(taken_over, former=other.id)
            yield PlanRow(task=task, known=mine, verdict=verdict, rival=rivals.get(task.name))


def _has_none(known: Known | None, verdict: Verdict) -> bool:
    """Say whether a task has no image, and nothing but its lack stands between it and one."""
    is_wanted = verdict.reason is not None or verdict.state is TaskState.CONFLICT
    return is_wanted and (known is None or known.artifact is None)


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
    rows: Iterable[PlanRow],
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
        verdict, is_due = row.verdict, row.verdict.reason is not None
        its_quote = _FREE if why(verdict) in SETTLED else quote(row.task)
        plan.add(row, its_quote)
        if not is_due and row.known is not None and row.known.flags:
            again = quote(row.task)
            plan.flagged.add(None if again is None else again.most)
        price = None if its_quote is None else its_quote.least
        alike.add(row.task.id, row.task.fingerprint, is_due=is_due, price=price)
        wrong = problem(row.task) if is_due else None
        claims = is_due or verdict.moves_to is not None or verdict.state is TaskState.CONFLICT
        if wrong is None and claims and row.rival:
            both = f"{row.task.id} and {row.rival} claim one output name, {row.task.name!r}"
            wrong = f"{both}; change `output` of one of them"
            if row.rival.endswith(f": {row.task.id}"):
                former = row.rival.removesuffix(f": {row.task.id}")
                wrong += f"; if this is manifest {former} by another name, write `name: {former}`: it has the images"
        if wrong is not None:
            plan.add_problem(row.task, wrong)
        if is_due and spool is not None:
            spool.add(_due(row))
        if free is not None:
            for what in _without_request(verdict):
                free.add(Due(task=row.task, reason=what, former=verdict.former if what == TAKE_OVER else ""))
    plan.alike, plan.alike_examples = alike.sum(), alike.examples
    return plan


def _due(row: PlanRow) -> Due:
    task, known, reason = row.task, row.known, row.verdict.reason
    assert reason is not None
    if known is None or changed_aspects(task, known):
        return Due(task=task, reason=reason)
    return Due(task=task, reason=reason, unknowns=known.unknowns, faults=known.faults)


def _without_request(verdict: Verdict) -> Iterator[str]:
    """Yield what a run does with a task without a request, in this order."""
    if verdict.former:
        yield TAKE_OVER
    if verdict.is_edit_new and verdict.edit is not None:
        yield verdict.edit.value
    if verdict.is_accepted:
        yield ACCEPT
    if verdict.moves_to is not None:
        yield MOVE

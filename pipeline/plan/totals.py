"""Rows -> how many tasks, why, and for how much: in total, by job and by reason. It knows no disk and no ledger."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeline.model import Quote, TaskState
from pipeline.plan.judge import MISSING, Verdict

if TYPE_CHECKING:
    from pipeline.plan.survey import Row

LISTED: Final = 1000  # notes kept for people; beyond, they are only counted
SAMPLES: Final = 3  # prompts that a plan shows
UNCHANGED: Final = "unchanged"
RENAMED: Final = "renamed"
ACCEPTED: Final = "accepted"
SETTLED: Final = frozenset({UNCHANGED, RENAMED, ACCEPTED})  # done, and nothing is missing


class Key(NamedTuple):
    """What the tasks of one group have in common. `why`: a reason of `judge` when due, else where they stand."""

    job: str
    why: str
    is_due: bool


@dataclass(slots=True)
class Group:
    """Tasks of one job that stand alike. The price is that of each one's pixels; `unpriced` are not in it."""

    tasks: int = 0
    price_microusd: int = 0
    unpriced: int = 0

    def add(self, other: "Group") -> None:
        self.tasks += other.tasks
        self.price_microusd += other.price_microusd
        self.unpriced += other.unpriced

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
    if verdict.moves_to is not None:
        return RENAMED
    return ACCEPTED if verdict.is_accepted else UNCHANGED


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a run would do. Money in micro-dollars; None: a due task's price is not known."""

    total: int = 0
    due: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    states: Counter[TaskState] = field(default_factory=Counter)  # of the tasks that are not due
    groups: defaultdict[Key, Group] = field(default_factory=lambda: defaultdict(Group))  # in the order of the stream
    least_microusd: int | None = 0  # each due task bought once, at the price of its pixels
    most_microusd: int | None = 0  # each due task bought once, at what is reserved for it
    unpriced: Counter[str] = field(default_factory=Counter)  # models of due tasks without a price
    models: set[str] = field(default_factory=set)  # of the due tasks
    missing: int = 0  # done, their file gone or changed, and not due
    alike: Group = field(default_factory=Group)  # due tasks whose image another task asks for as well
    alike_example: tuple[str, str] | None = None
    notes: list[str] = field(default_factory=list)
    moves: int = 0  # done tasks whose image gets another name, without a request
    given_up: int = 0  # refused, and that is taken as it is
    accepted: int = 0  # done tasks whose change is taken as good, without a request
    problems: list[str] = field(default_factory=list)
    barriers: Counter[str] = field(default_factory=Counter)  # what keeps tasks waiting that would be due
    due_examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # of a few jobs: (name, prompt)

    @property
    def samples(self) -> list[tuple[str, str]]:
        """A few due tasks as (name of the image, prompt), of different jobs where there are several."""
        rounds = zip_longest(*self.due_examples.values())
        return [sample for turn in rounds for sample in turn if sample is not None][:SAMPLES]

    @property
    def skip(self) -> int:
        return self.total - self.due

    def add(self, row: "Row", quote: Quote | None) -> None:
        """Count one row; `quote` is what its image costs, None when that is not known."""
        verdict = row.verdict
        is_due = verdict.reason is not None
        self.total += 1
        group = self.groups[Key(row.task.job, why(verdict), is_due)]
        group.add(Group(1, 0 if quote is None else quote.least, quote is None))
        if is_due:
            self._add_due(row, quote)
        else:
            if verdict.barrier is not None:
                self.barriers[verdict.barrier] += 1
            self.states[verdict.state] += 1
            self.given_up += verdict.is_given_up
            self.missing += verdict.is_missing
            self._note(row)

    def _add_due(self, row: "Row", quote: Quote | None) -> None:
        assert row.verdict.reason is not None
        self.due += 1
        self.models.add(row.task.model)
        if row.task.job in self.due_examples or len(self.due_examples) < SAMPLES:
            examples = self.due_examples.setdefault(row.task.job, [])
            if len(examples) < SAMPLES:
                examples.append((row.task.name, row.task.prompt))
        self.reasons[row.verdict.reason] += 1
        if quote is None:
            self.unpriced[row.task.model] += 1
        self.least_microusd = _sum(self.least_microusd, None if quote is None else quote.least)
        self.most_microusd = _sum(self.most_microusd, None if quote is None else quote.most)

    def _note(self, row: "Row") -> None:
        verdict = row.verdict
        self.moves += verdict.moves_to is not None
        self.accepted += verdict.is_accepted
        is_wrong = verdict.is_missing or (verdict.state is not TaskState.DONE and not verdict.is_given_up)
        if is_wrong and len(self.notes) < LISTED:
            self.notes.append(f"{row.task.id}: {verdict.note or verdict.state}")

    def sum_of(self, *words: str) -> Group:
        """Sum up the groups that are not due and stand as one of `words` says."""
        whole = Group()
        for key, group in self.groups.items():
            if not key.is_due and key.why in words:
                whole.add(group)
        return whole


def merged(*plans: Plan) -> Plan:
    """Return several plans as one."""
    whole = Plan()
    for plan in plans:
        whole.total += plan.total
        whole.due += plan.due
        whole.reasons += plan.reasons
        whole.states += plan.states
        for key, group in plan.groups.items():
            whole.groups[key].add(group)
        whole.unpriced += plan.unpriced
        whole.models |= plan.models
        whole.missing += plan.missing
        whole.alike.add(plan.alike)
        whole.alike_example = whole.alike_example or plan.alike_example
        whole.notes += plan.notes
        whole.moves += plan.moves
        whole.accepted += plan.accepted
        whole.given_up += plan.given_up
        whole.problems += plan.problems
        whole.least_microusd = _sum(whole.least_microusd, plan.least_microusd)
        whole.most_microusd = _sum(whole.most_microusd, plan.most_microusd)
        whole.due_examples |= plan.due_examples
        whole.barriers += plan.barriers
    return whole


def _sum(one: int | None, other: int | None) -> int | None:
    """Add two prices; None when one of them is not known."""
    return None if one is None or other is None else one + other

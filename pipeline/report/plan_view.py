"""A plan as a bill, and as the JSON of `plan --json`.

In: plain lines, one for each job and reason. Out: what a run would do, why, and for how much. It decides nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.report.figures import count, duration, money, usd_or_none
from pipeline.report.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MOST_SHOWN = 20  # problems and notes; the JSON form has all


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """The tasks of one job that share a reason to be asked for, or a reason not to be.

    `reason` is `new`, `prompt changed`, `missing`, `retry`; or `unchanged`, `refused`, `orphaned` ...
    """

    job: str
    reason: str
    tasks: int
    is_due: bool
    price_microusd: int | None = 0  # of all of them, each bought once; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A whole plan. `max_microusd`: with every repeat that the manifest allows; None: not known."""

    lines: Sequence[PlanLine]
    min_microusd: int | None
    max_microusd: int | None
    is_play_money: bool = False
    seconds: float | None = None  # at the pace of an earlier run, or of the limits; None: not known
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def due(self) -> int:
        """Tasks a run would ask for."""
        return sum(line.tasks for line in self.lines if line.is_due)

    @property
    def total(self) -> int:
        """Tasks of the manifest; what is only in the ledger is not among them."""
        return sum(line.tasks for line in self.lines if line.reason != "orphaned")


def plan_json(bill: Bill) -> dict[str, object]:
    """Return the object of `plan --json`."""
    reasons: dict[str, int] = {}
    for line in bill.lines:
        if line.is_due:
            reasons[line.reason] = reasons.get(line.reason, 0) + line.tasks
    return {
        "tasks": bill.total,
        "due": bill.due,
        "skip": bill.total - bill.due,
        "reasons": reasons,
        "cost_usd": {"min": usd_or_none(bill.min_microusd), "max": usd_or_none(bill.max_microusd)},
        "problems": list(bill.problems),
    }


def show_plan(bill: Bill, console: "Console") -> None:
    """Print the bill: a table, the sum in one sentence, then what a person should know."""
    if bill.lines:
        console.print(plan_table(bill))
    console.print(plan_sentence(bill), highlight=False, markup=False)
    for title, texts in (("problem", bill.problems), ("note", bill.notes)):
        for text in texts[:_MOST_SHOWN]:
            console.print(f"{title}: {visible(text)}", highlight=False, markup=False, soft_wrap=True)
        if len(texts) > _MOST_SHOWN:
            console.print(f"{title}: and {len(texts) - _MOST_SHOWN:,} more", highlight=False)


def plan_sentence(bill: Bill) -> str:
    """Return `12 of 100 tasks are due, for $0.468; at most $2.34 with every repeat; about 1 min 12 s.`"""
    if bill.due == 0:
        return f"Nothing is due: {count(bill.total, 'task')}, no request, no cost."
    verb = "is" if bill.due == 1 else "are"
    parts = [f"{bill.due:,} of {count(bill.total, 'task')} {verb} due, for {_price(bill.min_microusd, bill)}"]
    if bill.max_microusd is not None and bill.max_microusd != bill.min_microusd:
        parts.append(f"at most {_price(bill.max_microusd, bill)} with every repeat")
    if bill.seconds is not None:
        parts.append(f"about {duration(bill.seconds)}")
    return "; ".join(parts) + "."


def plan_table(bill: Bill) -> "Table":
    """Return the table of all jobs: what is due first, then what is left alone."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_footer=True, footer_style="bold")
    table.add_column("job", "in total", overflow="fold")
    table.add_column("why", f"{bill.due:,} due", overflow="fold")
    table.add_column("tasks", f"{bill.total:,}", justify="right")
    table.add_column("price", _price(bill.min_microusd, bill) if bill.due else "", justify="right")
    for job, lines in _by_job(bill.lines):
        for number, line in enumerate(lines):
            name = Text(visible(job)) if number == 0 else Text("")
            price = _price(line.price_microusd, bill) if line.is_due else ""
            style = "" if line.is_due else "dim"
            table.add_row(name, Text(line.reason, style), Text(f"{line.tasks:,}", style), Text(price, style))
    return table


def _by_job(lines: Iterable[PlanLine]) -> Iterable[tuple[str, list[PlanLine]]]:
    """Group lines by job in the order of their first line; due before not due."""
    jobs: dict[str, list[PlanLine]] = {}
    for line in lines:
        jobs.setdefault(line.job, []).append(line)
    return ((job, sorted(group, key=lambda line: not line.is_due)) for job, group in jobs.items())


def _price(microusd: int | None, bill: Bill) -> str:
    return "unknown price" if microusd is None else money(microusd, bill.is_play_money)

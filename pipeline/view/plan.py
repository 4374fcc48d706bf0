"""Shows a plan and its price, or the JSON of `plan --json`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.text import InUsdOrNone, clipped, count, duration, money, visible
from pipeline.view.console import say, show_line, table_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_NARROW = 50  # columns of a terminal, below which the table has no room for padding
_SAMPLE_WIDTH = 200  # characters of a sample prompt
_MOST_SHOWN = 10  # problems and notes; the JSON form has all


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
    price_usd = InUsdOrNone()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How long a run takes. `basis`: where that is known from, such as `at the pace of the last run`."""

    seconds: float
    basis: str
    is_least: bool = False  # it may take longer, never less

    def __str__(self) -> str:
        return f"{'at least' if self.is_least else 'about'} {duration(self.seconds)} {self.basis}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBill:
    """A whole plan; None: not known."""

    lines: Sequence[PlanLine]
    min_microusd: int | None  # of the pixels
    max_microusd: int | None  # of what is reserved, within the budgets: prompts, input images and thoughts as well
    repeats_microusd: int | None = None  # with every repeat that manifest and budgets allow
    alike: int = 0  # due tasks that ask for the same image as another task: one purchase would serve
    alike_microusd: int | None = 0  # of them; None: not known
    is_play_money: bool = False
    forecast: Forecast | None = None  # None: not known
    samples: Sequence[tuple[str, str]] = ()  # a few due tasks: name of the image, prompt
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    min_usd = InUsdOrNone()
    max_usd = InUsdOrNone()
    repeats_usd = InUsdOrNone()
    alike_usd = InUsdOrNone()

    @property
    def due(self) -> int:
        """Tasks a run would ask for."""
        return sum(line.tasks for line in self.lines if line.is_due)

    @property
    def total(self) -> int:
        """Tasks of the manifest; what is only in the ledger is not among them."""
        return sum(line.tasks for line in self.lines if line.reason != "orphaned")


def plan_json(bill: PlanBill) -> dict[str, object]:
    """Return the object of `plan --json`."""
    reasons: Counter[str] = Counter()
    for line in bill.lines:
        if line.is_due or line.reason == "renamed":
            reasons[line.reason] += line.tasks
    return {
        "tasks": bill.total,
        "due": bill.due,
        "skip": bill.total - bill.due,
        "reasons": reasons,
        "cost_usd": {"min": bill.min_usd, "max": bill.max_usd},
        "problems": bill.problems,
        "seconds": None if bill.forecast is None else round(bill.forecast.seconds, 1),
        "duplicates": {"tasks": bill.alike, "cost_usd": bill.alike_usd},
        "groups": [_group_json(line) for line in bill.lines],
        "notes": bill.notes,
        "samples": [{"name": name, "prompt": prompt} for name, prompt in bill.samples],
    }


def _group_json(line: PlanLine) -> dict[str, object]:
    price = line.price_usd if line.is_due else 0.0
    return {"job": line.job, "why": line.reason, "tasks": line.tasks, "due": line.is_due, "cost_usd": price}


def show_plan(bill: PlanBill, console: "Console") -> None:
    """Print the bill: a table, the sum in one sentence, then what a person should know."""
    if bill.lines:
        console.print(plan_table(bill, is_narrow=console.width < _NARROW))
    say(plan_sentence(bill), console)
    for name, prompt in bill.samples:
        text = f"sample: {visible(name)}: {clipped(' '.join(prompt.split()), _SAMPLE_WIDTH)}"
        say(clipped(text, console.width) if console.is_terminal else text, console)
    for title, texts in (("problem", bill.problems), ("note", bill.notes)):
        for text in texts[:_MOST_SHOWN]:
            say(f"{title}: {visible(text)}", console)
        if len(texts) > _MOST_SHOWN:
            show_line(f"{title}: and {len(texts) - _MOST_SHOWN:,} more", console)


def plan_sentence(bill: PlanBill) -> str:
    """Return `12 of 100 tasks are due, for $0.468 to $0.611; at most $2.34 with every repeat; about 1 min ...`."""
    if bill.due == 0:
        return f"Nothing is due: {count(bill.total, 'task')}, no request, no cost."
    verb = "is" if bill.due == 1 else "are"
    parts = [f"{bill.due:,} of {count(bill.total, 'task')} {verb} due, {_span(bill)}"]
    least, most, repeats = bill.min_microusd, bill.max_microusd, bill.repeats_microusd
    if least is not None and most is not None and most < least:
        parts.append(f"at most {money(most, bill.is_play_money)} in one run")
    elif repeats is not None and (most is None or repeats > most):
        parts.append(f"at most {money(repeats, bill.is_play_money)} with every repeat")
    if bill.forecast is not None:
        parts.append(str(bill.forecast))
    return "; ".join(parts) + "."


def plan_table(bill: PlanBill, *, is_narrow: bool = False) -> "Table":
    """Return the table of all jobs, in each what is due first, then what is not; then the sums.

    Duplicates are paid for twice, so they have a line of their own.
    """
    columns = (("job", False), ("why", False), ("tasks", True), ("price", True))
    table = table_of(*columns, padding=0 if is_narrow else (0, 1), show_footer=True, footer_style="bold")
    least = _price(bill.min_microusd, bill) if bill.due else ""
    for column, footer in zip(table.columns, ("in total", f"{bill.due:,} due", f"{bill.total:,}", least), strict=True):
        column.footer = footer
    table.columns[1].min_width = len("unchanged")
    jobs: dict[str, list[PlanLine]] = {}
    for line in bill.lines:
        jobs.setdefault(line.job, []).append(line)
    for job, lines in jobs.items():
        _add_rows(table, job, lines, bill)
    if len(jobs) > 1 and len(bill.lines) > len(jobs):
        table.add_section()
        _add_rows(table, "all jobs", _sums(bill.lines), bill)
    if bill.alike:
        table.add_section()
        table.add_row("of these", "duplicates", f"{bill.alike:,}", _price(bill.alike_microusd, bill))
    return table


def _add_rows(table: "Table", name: str, lines: Iterable[PlanLine], bill: PlanBill) -> None:
    from rich.text import Text

    for line in sorted(lines, key=lambda line: not line.is_due):
        price = _price(line.price_microusd, bill) if line.is_due or line.reason == "renamed" else ""
        style = "" if line.is_due else "dim"
        cells = (Text(line.reason, style), Text(f"{line.tasks:,}", style), Text(price, style))
        table.add_row(Text(visible(name)), *cells)
        name = ""


def _sums(lines: Iterable[PlanLine]) -> list[PlanLine]:
    """Sum up the lines of one reason over all jobs."""
    sums: dict[tuple[str, bool], PlanLine] = {}
    for line in lines:
        one = sums.setdefault((line.reason, line.is_due), replace(line, tasks=0, price_microusd=0))
        prices = (one.price_microusd, line.price_microusd)
        price = None if prices[0] is None or prices[1] is None else prices[0] + prices[1]
        sums[line.reason, line.is_due] = replace(one, tasks=one.tasks + line.tasks, price_microusd=price)
    return list(sums.values())


def _price(microusd: int | None, bill: PlanBill) -> str:
    return "not known" if microusd is None else money(microusd, bill.is_play_money)


def _span(bill: PlanBill) -> str:
    """Return `for $0.468 to $0.611`: what the pixels cost, and what is reserved."""
    least, most = bill.min_microusd, bill.max_microusd
    if least is None:
        return "at an unknown price"
    if most is None or most <= least:
        return f"for {_price(least, bill)}"
    return f"for {_price(least, bill)} to {_price(most, bill)}"

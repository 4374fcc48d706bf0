"""Shows tasks by state and money, one task's history, and the sums of `cost`: for people, or their JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.model import Artifact, Edit, TaskState
from pipeline.text import as_json, count, duration, moment, money, size, usd, visible
from pipeline.view.console import say, show_line, table_of
from pipeline.view.explain import AttemptLine, Request, facts, request_lines, show_attempts
from pipeline.view.run import exceeded_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipeline.engine.wallet import Excess
    from pipeline.store.rows import Cost, RunSnapshot, Unknown

_MOST_UNKNOWN = 10  # listed for people; the JSON form has all


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusTask:
    """One task of `status --tasks`."""

    id: str
    job: str
    state: TaskState
    artifact: Artifact | None
    attempts: int
    cost_microusd: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHistory:
    """One task from its first request to what a run would ask next."""

    task: StatusTask
    attempts: Sequence[AttemptLine]
    asked: Sequence[tuple[str, Request]]  # `attempts 1, 2 asked for`, ..., `a run asks next for`


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Money is that of the last run, and of today and this month in the budget's time zone."""

    states: Mapping[TaskState, int]
    run_microusd: int = 0
    day_microusd: int = 0
    month_microusd: int = 0
    unknown_microusd: int = 0
    unknowns: "Sequence[Unknown]" = ()
    not_before: str | None = None  # RFC 3339, UTC
    holds: Sequence[str] = ()  # who asked to wait, until when, why
    is_play_money: bool = False
    missing: int = 0  # done, and their file is gone or was changed since
    going: "RunSnapshot | None" = None  # a run that goes on beside this
    command: str = "FILE"  # what is typed behind `imgpipe VERB` to mean the same manifest
    flags: Mapping[str, int] = field(default_factory=dict)  # done images in which a check found something
    edits: Mapping[Edit, int] = field(default_factory=dict)  # done, what a person did to them, and it was accepted
    to_come: Mapping[str, int] = field(default_factory=dict)  # done, and due again since, by reason
    orphaned: int = 0  # known to the ledger, no longer in the manifest; not among `states`
    doubt: str | None = None  # why more may have been spent
    budget_left_microusd: int | None = None  # what a run may still spend; None: there is no budget
    exceeded: "Sequence[Excess]" = ()  # budgets of which more than all is spent


def status_json(status: Status) -> dict[str, object]:
    """Return the object of `status --json`."""
    return {
        "tasks": status.states,
        "cost_usd": {
            "run": usd(status.run_microusd),
            "day": usd(status.day_microusd),
            "month": usd(status.month_microusd),
            "unknown": usd(status.unknown_microusd),
        },
        "unknown": [
            {
                "task": one.task_id,
                "attempt": one.number,
                "sent_at": moment(one.sent_at),
                **as_json(one, "price_microusd", "request_id"),
            }
            for one in status.unknowns
        ],
        "not_before": status.not_before,
        "running": None if status.going is None else _running_json(status.going),
        "missing": status.missing,
        "flagged": status.flags,
        **{edit.value: status.edits.get(edit, 0) for edit in Edit},
        "orphaned": status.orphaned,
    }


def _running_json(going: "RunSnapshot") -> dict[str, object]:
    seconds = going.seconds_left
    return {
        **as_json(going, "run", "in_flight", "images", "left"),
        "images_per_s": going.per_s and round(going.per_s, 3),
        "seconds_left": None if seconds is None else round(seconds, 1),
        **({"workers": {"started": going.workers, "lost": going.workers_lost}} if going.workers else {}),
    }


def running_sentence(going: "RunSnapshot") -> str:
    """Return `Run 3 is in progress: 8 in flight, 120 images so far at 2.1 a second, 380 to go, about 3 min.`"""
    text = f"Run {going.run} is in progress: {going.in_flight:,} in flight, {count(going.images, 'image')} so far"
    text += f" at {going.per_s:.2g} a second" if going.per_s else ""
    if going.workers:
        text += f", by {count(going.workers, 'worker')}"
        text += f" ({going.workers_lost:,} lost)" if going.workers_lost else ""
    seconds = going.seconds_left
    return text + f", {going.left:,} to go" + (f", about {duration(seconds)}." if seconds is not None else ".")


def task_json(task: StatusTask) -> dict[str, object]:
    """Return one line of `status --tasks --json`."""
    return {
        **as_json(task, "id", "job", "state"),
        **as_json(task.artifact, "path", "sha256", "mime", "width", "height"),
        **as_json(task, "attempts", "cost_microusd", "reason"),
    }


def status_lines(status: Status, tasks: Iterable[StatusTask]) -> Iterator[dict[str, object]]:
    """Yield the objects of `status --json --tasks`: the status, then one for each task."""
    yield status_json(status)
    yield from map(task_json, tasks)


def show_status(status: Status, console: "Console") -> None:
    """Print tasks by state, money by period, notes, and unknown requests."""
    from rich.columns import Columns

    if status.going is not None:
        say(running_sentence(status.going), console)
    say(status_sentence(status), console)
    console.print()
    console.print(Columns([_states(status), _spend(status)], padding=(0, 6)))
    for text in _notes(status):
        say(text, console)
    for one in status.unknowns[:_MOST_UNKNOWN]:
        price = money(one.price_microusd, status.is_play_money)
        text = f"unknown: {one.task_id}, attempt {one.number} sent {moment(one.sent_at)}, {price}"
        show_line(text + (f", request id {one.request_id}" if one.request_id is not None else ""), console)
    if len(status.unknowns) > _MOST_UNKNOWN:
        show_line(f"unknown: and {len(status.unknowns) - _MOST_UNKNOWN:,} more", console)
    for hold in status.holds:
        say(f"hold: {visible(hold)}", console)
    if status.not_before is not None:
        command = f"`imgpipe run {status.command} --now`"
        show_line(f"Nothing is sent before {status.not_before}; {command} sends anyway.", console)


def status_sentence(status: Status) -> str:
    """Return `311 of 313 images are there; 1 unknown, 1 failed.`"""
    absent = status.edits.get(Edit.ABSENT, 0)  # not wanted any more
    total = sum(status.states.values()) - absent
    there = status.states.get(TaskState.DONE, 0) - absent - status.missing - sum(status.to_come.values())
    others = {state.value: number for state, number in status.states.items() if state is not TaskState.DONE}
    others |= {"missing or changed": status.missing}
    others |= {f"still to come ({reason})": number for reason, number in status.to_come.items()}
    rest = ", ".join(f"{n:,} {name}" for name, n in others.items() if n)
    if total == 0:
        return "All images were removed, and that was accepted." if absent else "No task is selected."
    if not rest:
        return "The image is there." if total == 1 else f"All {total:,} images are there."
    return f"{there:,} of {count(total, 'image')} {'is' if there == 1 else 'are'} there; {rest}."


def _notes(status: Status) -> Iterator[str]:
    if status.doubt is not None:
        yield f"warning: {status.doubt}"
    yield from exceeded_lines(status.exceeded, is_play_money=status.is_play_money)
    if status.missing:
        what = f"missing: {count(status.missing, 'image')} gone or changed since"
        run = f"imgpipe run {visible(status.command)}"
        accept = f"accept that with `{run} --accept edited,absent`"
        again = f"buy them again with `{run} --repair` (changed ones: --repair --force)"
        yield f"{what}; put them back, {accept}, or {again}"
    for name, number in status.flags.items():
        what = f"flagged {name}: {count(number, 'image')}; look at them: imgpipe judge {visible(status.command)}"
        yield f"{what}, or replace them: imgpipe redo {visible(status.command)} --flagged --select flag:{name}"
    if edited := status.edits.get(Edit.EDITED):
        yield f"edited: {count(edited, 'image')} changed by a person and accepted; only --force replaces them"
    if absent := status.edits.get(Edit.ABSENT):
        what = f"absent: {count(absent, 'image')} removed and accepted; to buy one again"
        yield f"{what}: imgpipe retry {visible(status.command)} ID"
    if status.orphaned:
        what = f"orphaned: {count(status.orphaned, 'task')} no longer in the manifest"
        yield f"{what}; images that they have stay until imgpipe prune {visible(status.command)} --orphans"


def show_tasks(tasks: Iterable[StatusTask], console: "Console", *, is_play_money: bool) -> None:
    """Print one line for each task: state, id, then its file or its reason."""
    for task in tasks:
        what = task.artifact.path if task.artifact is not None else task.reason
        price = money(task.cost_microusd, is_play_money)
        show_line(f"{task.state:<8} {price:>8}  {task.id}  {what}".rstrip(), console)


def show_history(history: TaskHistory, console: "Console", *, is_play_money: bool) -> None:
    """Print one task's whole history: its state, every attempt, and the request of each."""
    task, made = history.task, history.task.artifact
    cost = money(task.cost_microusd, is_play_money)
    show_line(f"{task.id}: {task.state}, {count(task.attempts, 'attempt')}, {cost}", console, "bold")
    if task.reason:
        show_line(task.reason, console)
    if made is not None:
        what = f"{made.width} × {made.height}  {size(made.size_bytes)}  sha256 {made.sha256}"
        show_line(f"{made.path}  {what}", console)
    if history.attempts:
        show_attempts(history.attempts, console, is_play_money=is_play_money)
    for when, request in history.asked:
        console.print()
        show_line(when, console, "bold")
        facts(request_lines(request), console)


def _states(status: Status) -> "Table":
    table = table_of(("state", False), ("tasks", True))
    for state in TaskState:
        if status.states.get(state):
            table.add_row(state.value, f"{status.states[state]:,}")
    table.add_row("in total", f"{sum(status.states.values()):,}", style="bold")
    return table


def _spend(status: Status) -> "Table":
    table = table_of(("spent", False), ("", True))
    rows = (("last run", status.run_microusd), ("today", status.day_microusd), ("this month", status.month_microusd))
    for name, amount in rows:
        table.add_row(name, money(amount, status.is_play_money))
    if status.unknown_microusd:
        table.add_row("maybe billed", money(status.unknown_microusd, status.is_play_money), style="yellow")
    if status.budget_left_microusd is not None:
        table.add_row("left to spend", money(status.budget_left_microusd, status.is_play_money))
    return table


def costs_json(names: Sequence[str], lines: "Sequence[Cost]") -> list[dict[str, object]]:
    """Return the array of `cost --json`."""
    sums = ("attempts", "images", "spent_microusd", "unknown_microusd")
    return [{**dict(zip(names, line.key, strict=True)), **as_json(line, *sums)} for line in lines]


def show_costs(names: Sequence[str], lines: "Sequence[Cost]", console: "Console", *, is_play_money: bool) -> None:
    """Print the whole sum in one sentence, then a line for each group."""
    say(costs_sentence(lines, is_play_money=is_play_money), console)
    if lines:
        console.print(_cost_table(names, lines, is_play_money=is_play_money))


def costs_sentence(lines: "Sequence[Cost]", *, is_play_money: bool) -> str:
    """Return `Spent $1.23 for 18 images, $0.0685 each, in 19 attempts; $0.04 more may have been billed.`"""
    if not lines:
        return "Nothing was spent."
    spent, unknown = sum(line.spent_microusd for line in lines), sum(line.unknown_microusd for line in lines)
    images, attempts = sum(line.images for line in lines), sum(line.attempts for line in lines)
    text = f"Spent {money(spent, is_play_money)} for {count(images, 'image')}"
    if images > 1:
        text += f", {money(round(spent / images), is_play_money)} each"
    text += f", in {count(attempts, 'attempt')}"
    if unknown:
        text += f"; {money(unknown, is_play_money)} more may have been billed"
    return f"{text}."


def _cost_table(names: Sequence[str], lines: "Sequence[Cost]", *, is_play_money: bool) -> "Table":
    """Return a line for each group; what may have been billed has a column only where there is any."""
    from rich.text import Text

    sums = ["attempts", "images", "spent"]
    if is_any_unknown := any(line.unknown_microusd for line in lines):
        sums.append("maybe billed")
    table = table_of(*((name, False) for name in names), *((name, True) for name in sums), padding=(0, 1, 0, 0))
    for name, column in zip(names, table.columns, strict=False):
        column.min_width = len("2026-11-22") if name == "day" else None
    for line in lines:
        amounts = [line.spent_microusd, line.unknown_microusd][: 1 + is_any_unknown]
        cells = [f"{line.attempts:,}", f"{line.images:,}", *(money(each, is_play_money) for each in amounts)]
        table.add_row(*(Text(visible(each)) for each in line.key), *cells)
    return table

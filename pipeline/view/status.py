"""Shows tasks by state and money, one task's history, or the JSON of `status --json`."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.model import Artifact, Edit, TaskState
from pipeline.text import InUsd, count, duration, moment, money, size, usd, visible
from pipeline.view.run import exceeded_lines, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipeline.engine.wallet import Excess
    from pipeline.store.history import Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked. Paths of inputs are absolute, or names where only those are known."""

    prompt: str
    model: str
    system: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    inputs: Sequence[tuple[str, str]] = ()  # path or name, sha256
    matrix: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()


def request_lines(request: Request) -> Iterator[tuple[str, str]]:
    """Yield name and value of each fact; a second input has no name."""
    yield "prompt", request.prompt
    if request.system is not None:
        yield "system", request.system
    yield "model", request.model
    for name, values in (("parameters", request.parameters), ("matrix", request.matrix), ("row", request.fields)):
        if values:
            yield name, ", ".join(f"{key} {_plain(value)}" for key, value in values.items())
    for number, (path, sha256) in enumerate(request.inputs):
        yield "inputs" if number == 0 else "", f"{path}  sha256 {sha256}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def facts(lines: Iterable[tuple[str, str]], console: "Console") -> None:
    """Print one fact a line; a value of several lines stays in its column."""
    from rich.text import Text

    for name, value in lines:
        first, *more = value.splitlines() or [""]
        console.print(Text.assemble((f"{name:<12}", "bold"), visible(first)), soft_wrap=True)
        for line in more:
            console.print(Text(f"{'':<12}{visible(line)}"), soft_wrap=True)


_MOST_UNKNOWN = 10  # listed for people; the JSON form has all


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNow:
    """A run that goes on, at one moment."""

    run: int
    in_flight: int
    images: int
    left: int  # tasks it will still ask for, those in flight included
    per_s: float | None  # images a second since it began; None: none yet
    workers: int = 0  # sender processes; 0: it sends itself
    workers_lost: int = 0

    @property
    def seconds_left(self) -> float | None:
        return None if not self.per_s else self.left / self.per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Money is that of the last run, and of today and this month in the budget's time zone."""

    states: Mapping[TaskState, int]
    run_microusd: int
    day_microusd: int
    month_microusd: int
    unknown_microusd: int
    unknowns: "Sequence[Unknown]" = ()
    not_before: str | None = None  # RFC 3339, UTC
    holds: Sequence[str] = ()  # who asked to wait, until when, why
    is_play_money: bool = False
    missing: int = 0  # done, and their file is gone or was changed since
    going: RunningNow | None = None  # a run that goes on beside this
    command: str = "FILE"  # what is typed behind `imgpipe VERB` to mean the same manifest
    flags: Mapping[str, int] = field(default_factory=dict)  # done images in which a check found something
    edits: Mapping[Edit, int] = field(default_factory=dict)  # done, what a person did to them, and it was accepted
    to_come: Mapping[str, int] = field(default_factory=dict)  # done, and asked for anew since, by reason
    orphaned: int = 0  # known to the ledger, no longer in the manifest; not among `states`
    doubt: str | None = None  # why more may have been spent
    budget_left_microusd: int | None = None  # what a run may still spend; None: there is no budget
    exceeded: "Sequence[Excess]" = ()  # budgets of which more than all is spent


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
class AttemptLine:
    """One attempt of a task's history."""

    attempt: int  # of this task, counted from 1
    sent_at: str
    outcome: str  # ok | the fault's name | sent
    seconds: float | None
    cost_microusd: int
    unknown_microusd: int
    reason: str
    request_id: str | None = None  # the provider's, for its support desk
    prompt: str | None = None  # None: no record has it
    cost_usd = InUsd()
    unknown_usd = InUsd()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHistory:
    """One task from its first request to what a run would ask next."""

    task: StatusTask
    attempts: Sequence[AttemptLine]
    asked: Sequence[tuple[str, Request]]  # `attempts 1, 2 asked for`, ..., `a run asks next for`


def status_json(status: Status) -> dict[str, object]:
    """Return the object of `status --json`."""
    return {
        "tasks": {state.value: number for state, number in status.states.items()},
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
                "price_usd": usd(one.price_microusd),
                "request_id": one.request_id,
            }
            for one in status.unknowns
        ],
        "not_before": status.not_before,
        "running": None if status.going is None else _running_json(status.going),
        "missing": status.missing,
        "flagged": dict(status.flags),
        **{edit.value: status.edits.get(edit, 0) for edit in Edit},
        "orphaned": status.orphaned,
    }


def _running_json(going: RunningNow) -> dict[str, object]:
    seconds = going.seconds_left
    return {
        "run": going.run,
        "in_flight": going.in_flight,
        "images": going.images,
        "left": going.left,
        "images_per_s": going.per_s and round(going.per_s, 3),
        "seconds_left": None if seconds is None else round(seconds, 1),
        **({"workers": {"started": going.workers, "lost": going.workers_lost}} if going.workers else {}),
    }


def running_sentence(going: RunningNow) -> str:
    """Return `Run 3 is going: 8 in flight, 120 images so far at 2.1 a second, 380 to go, about 3 min.`"""
    text = f"Run {going.run} is going: {going.in_flight:,} in flight, {count(going.images, 'image')} so far"
    text += f" at {going.per_s:.2g} a second" if going.per_s else ""
    if going.workers:
        text += f", by {count(going.workers, 'worker')}"
        text += f" ({going.workers_lost:,} lost)" if going.workers_lost else ""
    seconds = going.seconds_left
    return text + f", {going.left:,} to go" + (f", about {duration(seconds)}." if seconds is not None else ".")


def task_json(task: StatusTask) -> dict[str, object]:
    """Return one line of `status --tasks --json`."""
    artifact = task.artifact
    return {
        "id": task.id,
        "job": task.job,
        "state": task.state.value,
        "path": artifact and artifact.path,
        "sha256": artifact and artifact.sha256,
        "mime": artifact and artifact.mime,
        "width": artifact and artifact.width,
        "height": artifact and artifact.height,
        "attempts": task.attempts,
        "cost_usd": usd(task.cost_microusd),
        "reason": task.reason,
    }


def status_lines(status: Status, tasks: Iterable[StatusTask]) -> Iterator[dict[str, object]]:
    """Yield the objects of `status --json --tasks`: the status, then one for each task."""
    yield status_json(status)
    yield from map(task_json, tasks)


def show_status(status: Status, console: "Console") -> None:
    """Print tasks by state, money by period, and what nobody knows."""
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
        text = f"unknown: {visible(one.task_id)}, attempt {one.number} sent {moment(one.sent_at)}, {price}"
        text += f", request id {visible(one.request_id)}" if one.request_id is not None else ""
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if len(status.unknowns) > _MOST_UNKNOWN:
        console.print(f"unknown: and {len(status.unknowns) - _MOST_UNKNOWN:,} more", highlight=False)
    for hold in status.holds:
        say(f"hold: {visible(hold)}", console)
    if status.not_before is not None:
        command = f"`imgpipe run {visible(status.command)} --now`"
        text = f"Nothing is sent before {status.not_before}; {command} sends all the same."
        console.print(text, highlight=False, markup=False)


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
        return "All images were removed and are not wanted." if absent else "No task is selected."
    if not rest:
        return "The image is there." if total == 1 else f"All {total:,} images are there."
    return f"{there:,} of {count(total, 'image')} {'is' if there == 1 else 'are'} there; {rest}."


def _notes(status: Status) -> Iterator[str]:
    if status.doubt is not None:
        yield f"careful: {status.doubt}"
    yield from exceeded_lines(status.exceeded, is_play_money=status.is_play_money)
    if status.missing:
        what = f"missing: {count(status.missing, 'image')} gone or changed since"
        run = f"imgpipe run {visible(status.command)}"
        accept = f"accept that with `{run} --accept edited,absent`"
        yield f"{what}; put them back, {accept}, or buy them again with `{run} --repair`"
    for name, number in status.flags.items():
        what = f"flagged {name}: {count(number, 'image')}; look at them: imgpipe judge {visible(status.command)}"
        yield f"{what}, or make them anew: imgpipe redo {visible(status.command)} --flagged --select flag:{name}"
    if edited := status.edits.get(Edit.EDITED):
        yield f"edited: {count(edited, 'image')} changed by a person and accepted; only --force replaces them"
    if absent := status.edits.get(Edit.ABSENT):
        what = f"absent: {count(absent, 'image')} removed and accepted; asked again by"
        yield f"{what}: imgpipe retry {visible(status.command)} ID"
    if status.orphaned:
        what = f"orphaned: {count(status.orphaned, 'task')} no longer in the manifest"
        yield f"{what}; what they made is left where it is"


def show_tasks(tasks: Iterable[StatusTask], console: "Console", *, is_play_money: bool) -> None:
    """Print one line for each task: state, id, then its file or its reason."""
    for task in tasks:
        what = task.artifact.path if task.artifact is not None else task.reason
        price = money(task.cost_microusd, is_play_money)
        text = f"{task.state.value:<8} {price:>8}  {visible(task.id)}  {visible(what)}"
        console.print(text.rstrip(), highlight=False, markup=False, soft_wrap=True)


def show_history(history: TaskHistory, console: "Console", *, is_play_money: bool) -> None:
    """Print one task's whole history: where it stands, every attempt, and what each of them asked for."""
    from rich.text import Text

    task = history.task
    cost = money(task.cost_microusd, is_play_money)
    head = f"{visible(task.id)}: {task.state.value}, {count(task.attempts, 'attempt')}, {cost}"
    console.print(Text(head, "bold"), soft_wrap=True)
    if task.reason:
        console.print(Text(visible(task.reason)), soft_wrap=True)
    if task.artifact is not None:
        made = task.artifact
        text = f"{visible(made.path)}  {made.width} × {made.height}  {size(made.size_bytes)}  sha256 {made.sha256}"
        console.print(Text(text), soft_wrap=True)
    if history.attempts:
        show_attempts(history.attempts, console, is_play_money=is_play_money)
    for when, request in history.asked:
        console.print(Text(f"\n{when}", "bold"))
        facts(request_lines(request), console)


def _table(*headers: tuple[str, bool]) -> "Table":
    """Return an empty table; True: numbers, to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header, is_number in headers:
        table.add_column(header, justify="right" if is_number else "left", overflow="fold")
    return table


def _states(status: Status) -> "Table":
    table = _table(("state", False), ("tasks", True))
    for state in TaskState:
        if status.states.get(state):
            table.add_row(state.value, f"{status.states[state]:,}")
    table.add_row("in total", f"{sum(status.states.values()):,}", style="bold")
    return table


def _spend(status: Status) -> "Table":
    table = _table(("spent", False), ("", True))
    rows = (("last run", status.run_microusd), ("today", status.day_microusd), ("this month", status.month_microusd))
    for name, amount in rows:
        table.add_row(name, money(amount, status.is_play_money))
    if status.unknown_microusd:
        table.add_row("maybe billed", money(status.unknown_microusd, status.is_play_money), style="yellow")
    if status.budget_left_microusd is not None:
        table.add_row("left to spend", money(status.budget_left_microusd, status.is_play_money))
    return table


def show_attempts(attempts: Sequence[AttemptLine], console: "Console", *, is_play_money: bool) -> None:
    """Print one line for each attempt, then the request ids: whole, because a support desk asks for them."""
    from rich.text import Text

    console.print(_attempts(attempts, is_play_money))
    for one in attempts:
        if one.request_id:
            console.print(Text(f"attempt {one.attempt}: request id {visible(one.request_id)}"), soft_wrap=True)


def _attempts(attempts: Sequence[AttemptLine], is_play_money: bool) -> "Table":
    from rich.text import Text

    table = _table(
        ("attempt", True), ("sent", False), ("outcome", False), ("took", True), ("cost", True), ("why", False)
    )
    for column in table.columns[:-1]:
        column.no_wrap = True  # what is narrow stays whole, the reason takes what is left
    for one in attempts:
        cost = money(one.cost_microusd, is_play_money)
        if one.unknown_microusd:
            cost = f"maybe {money(one.unknown_microusd, is_play_money)}"
        took = "" if one.seconds is None else duration(one.seconds)
        table.add_row(str(one.attempt), one.sent_at, one.outcome, took, cost, Text(visible(one.reason)))
    return table

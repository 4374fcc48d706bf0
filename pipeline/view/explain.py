"""Shows the origin of one image and the history of one task: lines for people, or their JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.model import Artifact, TaskState
from pipeline.text import InUsd, InUsdOrNone, count, duration, money, size, usd, usd_or_none, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


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


def table_of(*headers: tuple[str, bool]) -> "Table":
    """Return an empty table; True: numbers, to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header, is_number in headers:
        table.add_column(header, justify="right" if is_number else "left", overflow="fold")
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

    table = table_of(
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


class FileState(StrEnum):
    """How the file stands to what is known of it."""

    CURRENT = "current"  # the task's image, where it belongs, byte for byte
    COPY = "copy"  # the task's image, lying elsewhere
    SUPERSEDED = "superseded"  # an earlier image of the task
    EDITED = "edited"  # at the place of the task's image, with other bytes
    MISSING = "missing"  # recorded, and no file is there
    CARRIED = "carried"  # no ledger knows it; what is said is what the file itself carries


MEANINGS = {
    FileState.CURRENT: "the task's image, as it was written",
    FileState.COPY: "a copy of the task's image",
    FileState.SUPERSEDED: "an earlier image of the task",
    FileState.EDITED: "edited since it was written",
    FileState.MISSING: "recorded, but the file is gone",
    FileState.CARRIED: "not in a ledger; read from the record in the file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that is known of one image. `request` None: no record says what was asked for it."""

    path: str
    standing: FileState
    sha256: str | None  # of the file; None: it is gone
    manifest: str
    task: str
    job: str
    row: str
    variant: int | None
    request: Request | None
    state_dir: str | None = None
    recorded_path: str | None = None  # where the task's present image is
    run: int | None = None
    attempt: int | None = None
    made_at: str | None = None  # RFC 3339, UTC
    model_version: str | None = None
    request_id: str | None = None
    response_id: str | None = None
    price_microusd: int | None = None  # of this image; None: not known
    task_microusd: int | None = None  # of all attempts of its task
    attempts: Sequence[AttemptLine] = ()
    is_play_money: bool = False
    is_signed: bool = False  # C2PA, inside the file
    notes: Sequence[str] = ()
    price_usd = InUsdOrNone()
    task_usd = InUsdOrNone()


def explain_json(image: Explanation) -> dict[str, object]:
    """Return the object of `explain --json`."""
    request = image.request
    return {
        "path": image.path,
        "standing": image.standing.value,
        "sha256": image.sha256,
        "manifest": image.manifest,
        "task": image.task,
        "job": image.job,
        "row": image.row,
        "variant": image.variant,
        "prompt": request and request.prompt,
        "system": request and request.system,
        "model": request and request.model,
        "parameters": request and dict(request.parameters),
        "inputs": request and [{"path": path, "sha256": sha256} for path, sha256 in request.inputs],
        "matrix": request and dict(request.matrix),
        "fields": request and dict(request.fields),
        "tags": request and list(request.tags),
        "state_dir": image.state_dir,
        "recorded_path": image.recorded_path,
        "run": image.run,
        "attempt": image.attempt,
        "made_at": image.made_at,
        "model_version": image.model_version,
        "request_id": image.request_id,
        "response_id": image.response_id,
        "price_usd": usd_or_none(image.price_microusd),
        "task_usd": usd_or_none(image.task_microusd),
        "attempts": [_attempt_json(attempt) for attempt in image.attempts],
        "signed": image.is_signed,
        "notes": list(image.notes),
    }


def _attempt_json(attempt: AttemptLine) -> dict[str, object]:
    return {
        "attempt": attempt.attempt,
        "sent_at": attempt.sent_at,
        "outcome": attempt.outcome,
        "seconds": attempt.seconds,
        "cost_usd": usd(attempt.cost_microusd),
        "unknown_usd": usd(attempt.unknown_microusd),
        "reason": attempt.reason,
        "request_id": attempt.request_id,
        "prompt": attempt.prompt,
    }


def show_explanation(image: Explanation, console: "Console") -> None:
    """Print what is known, one fact a line, then every attempt of the task."""
    from rich.text import Text

    facts(_lines(image), console)
    if image.attempts:
        console.print()
        show_attempts(image.attempts, console, is_play_money=image.is_play_money)
    for note in image.notes:
        console.print(Text(f"note: {visible(note)}"), soft_wrap=True)


def _lines(image: Explanation) -> Iterator[tuple[str, str]]:
    yield "image", f"{image.path} ({MEANINGS[image.standing]})"
    if image.recorded_path is not None and image.standing in (FileState.COPY, FileState.SUPERSEDED):
        yield "now", image.recorded_path
    if image.is_signed:
        yield "signature", "C2PA, by who made the image; a conversion or an edit loses it"
    yield "task", image.task
    yield "manifest", image.manifest
    if image.request is not None:
        yield from request_lines(image.request)
    if image.model_version is not None:
        yield "answered by", image.model_version
    if image.made_at is not None:
        where = ", ".join(
            f"{name} {value}"
            for name, value in (("attempt", image.attempt), ("run", image.run), ("request", image.request_id))
            if value is not None
        )
        yield "made", f"{image.made_at}{f' ({where})' if where else ''}"
    if image.price_microusd is not None:
        yield "price", _price(image, image.price_microusd)
    if image.sha256 is not None:
        yield "sha256", image.sha256
    if image.state_dir is not None:
        yield "ledger", image.state_dir


def _price(image: Explanation, price_microusd: int) -> str:
    text = money(price_microusd, image.is_play_money)
    if image.task_microusd in (None, price_microusd):
        return text
    return f"{text} (all attempts of the task: {money(image.task_microusd or 0, image.is_play_money)})"

"""Shows the origin of one image: lines for people, or their JSON. `status` shows requests and attempts so, too."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.text import InUsd, InUsdOrNone, as_json, duration, money, visible
from pipeline.view.console import show_line, table_of

if TYPE_CHECKING:
    from rich.console import Console


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
        for number, line in enumerate(value.splitlines() or [""]):
            head = (f"{'' if number else name:<12}", "bold")
            console.print(Text.assemble(head, visible(line)), soft_wrap=True)


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


def show_attempts(attempts: Sequence[AttemptLine], console: "Console", *, is_play_money: bool) -> None:
    """Print one line for each attempt, then the request ids, unbroken: support desks need them."""
    from rich.text import Text

    columns = (("attempt", True), ("sent", False), ("outcome", False), ("took", True), ("cost", True), ("why", False))
    table = table_of(*columns)
    for column in table.columns[:-1]:
        column.no_wrap = True  # what is narrow stays whole, the reason takes what is left
    for one in attempts:
        cost = money(one.cost_microusd, is_play_money)
        if one.unknown_microusd:
            cost = f"maybe {money(one.unknown_microusd, is_play_money)}"
        took = "" if one.seconds is None else duration(one.seconds)
        table.add_row(str(one.attempt), one.sent_at, one.outcome, took, cost, Text(visible(one.reason)))
    console.print(table)
    for one in attempts:
        if one.request_id:
            show_line(f"attempt {one.attempt}: request id {one.request_id}", console)


class FileState(StrEnum):
    """What a file is to its task, by path and by bytes; `MEANINGS` says it in words."""

    CURRENT = "current"
    COPY = "copy"
    SUPERSEDED = "superseded"
    EDITED = "edited"
    MISSING = "missing"
    CARRIED = "carried"


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
    made = ("state_dir", "recorded_path", "run", "attempt", "made_at", "model_version", "request_id", "response_id")
    return {
        **as_json(image, "path", "standing", "sha256", "manifest", "task", "job", "row", "variant"),
        **as_json(request, "prompt", "system", "model", "parameters"),
        "inputs": request and [{"path": path, "sha256": sha256} for path, sha256 in request.inputs],
        **as_json(request, "matrix", "fields", "tags"),
        **as_json(image, *made, "price_microusd", "task_microusd"),
        "attempts": [as_json(attempt) for attempt in image.attempts],
        "signed": image.is_signed,
        "notes": image.notes,
    }


def show_explanation(image: Explanation, console: "Console") -> None:
    """Print what is known, one fact a line, then every attempt of the task."""
    facts(_lines(image), console)
    if image.attempts:
        console.print()
        show_attempts(image.attempts, console, is_play_money=image.is_play_money)
    for note in image.notes:
        show_line(f"note: {note}", console)


def _lines(image: Explanation) -> Iterator[tuple[str, str]]:
    yield "image", f"{image.path} ({MEANINGS[image.standing]})"
    if image.recorded_path is not None and image.standing in (FileState.COPY, FileState.SUPERSEDED):
        yield "now", image.recorded_path
    if image.is_signed:
        yield "signature", "C2PA, by the maker of the image; a conversion or an edit removes it"
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

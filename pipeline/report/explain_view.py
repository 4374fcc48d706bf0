"""Where one image comes from: for people as lines, for machines as the JSON of `explain --json`.

In: an `Explanation`, made by whoever asks ledger and file. Out: text. It looks nothing up.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.report.figures import money, usd, usd_or_none
from pipeline.report.status_view import AttemptLine, attempts_table
from pipeline.report.visible import visible

if TYPE_CHECKING:
    from rich.console import Console


class Standing(StrEnum):
    """How the file stands to what is known of it."""

    CURRENT = "current"  # the task's image, where it belongs, byte for byte
    COPY = "copy"  # the task's image, lying elsewhere
    SUPERSEDED = "superseded"  # an earlier image of the task
    EDITED = "edited"  # at the place of the task's image, with other bytes
    MISSING = "missing"  # recorded, and no file is there
    CARRIED = "carried"  # no ledger knows it; what is told is what the file itself carries


MEANINGS = {
    Standing.CURRENT: "the task's image, as it was written",
    Standing.COPY: "a copy of the task's image",
    Standing.SUPERSEDED: "an earlier image of the task",
    Standing.EDITED: "edited since it was written",
    Standing.MISSING: "recorded, but the file is gone",
    Standing.CARRIED: "no ledger knows it; this is what the file itself says",
}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that is known of one image. `request` None: only a later request of the task is remembered."""

    path: str
    standing: Standing
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
    notes: Sequence[str] = ()


def explain_json(told: Explanation) -> dict[str, object]:
    """Return the object of `explain --json`."""
    request = told.request
    return {
        "path": told.path,
        "standing": told.standing.value,
        "sha256": told.sha256,
        "manifest": told.manifest,
        "task": told.task,
        "job": told.job,
        "row": told.row,
        "variant": told.variant,
        "prompt": request and request.prompt,
        "system": request and request.system,
        "model": request and request.model,
        "parameters": request and dict(request.parameters),
        "inputs": request and [{"path": path, "sha256": sha256} for path, sha256 in request.inputs],
        "matrix": request and dict(request.matrix),
        "fields": request and dict(request.fields),
        "tags": request and list(request.tags),
        "state_dir": told.state_dir,
        "recorded_path": told.recorded_path,
        "run": told.run,
        "attempt": told.attempt,
        "made_at": told.made_at,
        "model_version": told.model_version,
        "request_id": told.request_id,
        "response_id": told.response_id,
        "price_usd": usd_or_none(told.price_microusd),
        "task_usd": usd_or_none(told.task_microusd),
        "attempts": [_attempt_json(attempt) for attempt in told.attempts],
        "notes": list(told.notes),
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
    }


def show_explanation(told: Explanation, console: "Console") -> None:
    """Print what is known, one fact a line, then every attempt of the task."""
    from rich.text import Text

    for name, value in _lines(told):
        first, *more = value.splitlines() or [""]
        console.print(Text.assemble((f"{name:<12}", "bold"), visible(first)), soft_wrap=True)
        for line in more:
            console.print(Text(f"{'':<12}{visible(line)}"), soft_wrap=True)
    if told.attempts:
        console.print()
        console.print(attempts_table(told.attempts, told.is_play_money))
    for note in told.notes:
        console.print(Text(f"note: {visible(note)}"), soft_wrap=True)


def _lines(told: Explanation) -> Iterator[tuple[str, str]]:
    yield "image", f"{told.path} ({MEANINGS[told.standing]})"
    if told.recorded_path is not None and told.standing in (Standing.COPY, Standing.SUPERSEDED):
        yield "now", told.recorded_path
    yield "task", told.task
    yield "manifest", told.manifest
    if told.request is not None:
        yield from _request_lines(told.request)
    if told.model_version is not None:
        yield "answered by", told.model_version
    if told.made_at is not None:
        where = ", ".join(
            f"{name} {value}"
            for name, value in (("attempt", told.attempt), ("run", told.run), ("request", told.request_id))
            if value is not None
        )
        yield "made", f"{told.made_at}{f' ({where})' if where else ''}"
    if told.price_microusd is not None:
        yield "price", _price(told, told.price_microusd)
    if told.sha256 is not None:
        yield "sha256", told.sha256
    if told.state_dir is not None:
        yield "ledger", told.state_dir


def _request_lines(request: Request) -> Iterator[tuple[str, str]]:
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


def _price(told: Explanation, price_microusd: int) -> str:
    text = money(price_microusd, told.is_play_money)
    if told.task_microusd in (None, price_microusd):
        return text
    return f"{text} (all attempts of the task: {money(told.task_microusd or 0, told.is_play_money)})"

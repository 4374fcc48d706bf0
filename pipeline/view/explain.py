"""Shows the origin of one image: lines for people, or the JSON of `explain --json`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.text import money, usd, usd_or_none, visible
from pipeline.view.status import AttemptLine, Request, facts, request_lines, show_attempts

if TYPE_CHECKING:
    from rich.console import Console


class FileState(StrEnum):
    """How the file stands to what is known of it."""

    CURRENT = "current"  # the task's image, where it belongs, byte for byte
    COPY = "copy"  # the task's image, lying elsewhere
    SUPERSEDED = "superseded"  # an earlier image of the task
    EDITED = "edited"  # at the place of the task's image, with other bytes
    MISSING = "missing"  # recorded, and no file is there
    CARRIED = "carried"  # no ledger knows it; what is told is what the file itself carries


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
        "signed": told.is_signed,
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
        "request_id": attempt.request_id,
        "prompt": attempt.prompt,
    }


def show_explanation(told: Explanation, console: "Console") -> None:
    """Print what is known, one fact a line, then every attempt of the task."""
    from rich.text import Text

    facts(_lines(told), console)
    if told.attempts:
        console.print()
        show_attempts(told.attempts, console, is_play_money=told.is_play_money)
    for note in told.notes:
        console.print(Text(f"note: {visible(note)}"), soft_wrap=True)


def _lines(told: Explanation) -> Iterator[tuple[str, str]]:
    yield "image", f"{told.path} ({MEANINGS[told.standing]})"
    if told.recorded_path is not None and told.standing in (FileState.COPY, FileState.SUPERSEDED):
        yield "now", told.recorded_path
    if told.is_signed:
        yield "signature", "C2PA, by who made the image; a conversion or an edit loses it"
    yield "task", told.task
    yield "manifest", told.manifest
    if told.request is not None:
        yield from request_lines(told.request)
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


def _price(told: Explanation, price_microusd: int) -> str:
    text = money(price_microusd, told.is_play_money)
    if told.task_microusd in (None, price_microusd):
        return text
    return f"{text} (all attempts of the task: {money(told.task_microusd or 0, told.is_play_money)})"

"""Shows the origin of one image: lines for people, or the JSON of `explain --json`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.text import InUsdOrNone, money, usd, usd_or_none, visible
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

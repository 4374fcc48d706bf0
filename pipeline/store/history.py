"""Past attempts, runs and money as the ledger records them: types, and rows to types. Opens nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from pipeline.model import Digests, Edit, Fault, Known, TaskState
from pipeline.store.ledger_file import from_us
from pipeline.store.rows import artifact_of

_FLAGS = msgspec.json.Decoder(dict[str, str])
Row = tuple[Any, ...]  # columns as SQLite has them; the functions at the end give them their types


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    """One request of a task's history. `state`: sent, ok, free, paid or unknown."""

    attempt: int
    run: int
    number: int
    state: str
    model: str
    reserved_microusd: int
    cost_microusd: int
    sent_at: datetime
    ended_at: datetime | None
    seconds: float | None
    fault: str | None
    status: int | None
    code: str | None
    request_id: str | None
    response_id: str | None
    model_version: str | None
    reason: str
    sha256: str | None
    kept: str | None
    fingerprint: str  # of its request


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A request that may have been billed and brought nothing. `is_open`: it may still be in flight."""

    task_id: str
    attempt: int
    number: int
    is_open: bool
    sent_at: datetime
    price_microusd: int
    reason: str
    request_id: str | None = None  # for the provider's support desk


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """One execution. `ended_at` None: it goes on, or it died."""

    run: int
    manifest: str
    manifest_sha256: str
    version: str
    started_at: datetime
    ended_at: datetime | None
    exit: int | None
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """A run that goes on, at one moment. What it has not asked for yet is pending."""

    run: int
    manifest: str
    started_at: datetime
    due: int
    found: dict[TaskState, int]  # tasks that were not due when it began
    asked: dict[TaskState, int]  # tasks it has asked for
    in_flight: int
    images: int
    workers: int = 0  # sender processes; 0: it sends itself
    workers_lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Until when nothing may be sent to a provider with a key for a model, and why. Empty: whichever."""

    provider: str
    key: str  # the beginning of a digest
    model: str
    set_at: datetime
    not_before: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Whose image something is. `attempt` None: adopted by a rebuild."""

    manifest: str
    task_id: str
    attempt: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Money of one group; `key` follows the order asked for."""

    key: tuple[str, ...]
    attempts: int
    images: int
    spent_microusd: int
    unknown_microusd: int


def known_of(row: Row) -> Known:
    """Read the columns of `known`."""
    (task_id, state, fingerprint, prompt, inputs, params, model, name, attempts, unknowns, cost, reason, at, made,
     faults, is_accepted, pixels, edit, flags, *image) = row  # fmt: skip
    return Known(
        id=task_id,
        state=TaskState(state),
        fingerprint=fingerprint,
        digests=Digests(prompt=prompt, inputs=inputs, params=params, model=model, pixels=pixels),
        name=name,
        artifact=artifact_of(image),
        artifact_fingerprint=made,
        attempts=attempts,
        unknowns=unknowns,
        cost_microusd=cost,
        reason=reason,
        updated_at=from_us(at),
        is_accepted=bool(is_accepted),
        edit=Edit(edit) if edit else None,
        flags=_FLAGS.decode(flags) if flags else {},
        faults=tuple(map(Fault, faults.split(","))) if faults else (),
    )


def attempt_of(row: Row) -> PastAttempt:
    """Read the columns of `attempts`."""
    names = list(PastAttempt.__dataclass_fields__)
    values = dict(zip(names, row, strict=True))
    values["sent_at"] = from_us(values["sent_at"])
    values["ended_at"] = None if values["ended_at"] is None else from_us(values["ended_at"])
    return PastAttempt(**values)

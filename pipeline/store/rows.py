"""Types to rows of the ledger and back: what each step of an attempt writes, and what its history says.

Functions of a connection are one piece of work for `Ledger.submit`: no I/O of their own, no clock, no decision about
money or states. A statement takes what it names of a row; what else the row has is not looked at.
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from pipeline import __version__, model
from pipeline.store.ledger_file import from_us, query
from pipeline.text import name_key

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")

Row = Mapping[str, object]
Columns = tuple[Any, ...]  # as SQLite has them, in the order of a statement
ARTIFACT: Final = ("path", "sha256", "mime", "width", "height", "size_bytes", "mtime_ns")  # the columns of an image
TOKENS: Final = ("prompt_tokens", "image_tokens", "text_tokens")
MOMENTS: Final = frozenset({"sent_at", "ended_at", "set_at", "not_before"})
REASON_CHARS: Final = 2000
REBUILT: Final = "rebuilt"  # how the reason of a run begins that was none: a rebuild
ATTEMPT_STATES: Final = {model.Billed.NO: "free", model.Billed.MAYBE: "unknown", model.Billed.YES: "paid"}


def text(value: str) -> str:
    """Make text storable: a lone surrogate (a file name that is not UTF-8) becomes its escape."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def relative_bytes(path: Path | str | model.BucketUrl, state_dir: Path) -> bytes:
    """Return a path as the ledger keeps it: relative to the state directory, as bytes; a bucket as its address."""
    wanted, start = str(path), str(state_dir)
    if model.is_object(wanted):
        return wanted.encode()
    folder, _, name = wanted.rpartition("/")
    is_plain = folder.startswith("/") and name and "//" not in wanted and "/." not in wanted
    if not is_plain or f"{start}/".startswith(f"{wanted}/"):
        return os.fsencode(os.path.relpath(wanted, start))
    return os.fsencode(os.path.normpath(f"{_relative_folder(folder, start)}/{name}"))


@lru_cache(maxsize=256)  # neighbours share a folder, and this is asked once for each of a million input images
def _relative_folder(folder: str, state_dir: str) -> str:
    return os.path.relpath(folder, state_dir)


_APART: Final = ("images", "digests", "fingerprint", "is_default_model")
_RECORDED: Final = tuple(name for name in model.Task.__struct_fields__ if name not in _APART)


def record_of(task: model.Task, state_dir: Path) -> str:
    """Return what a task asks for, as JSON for people and reports; its fingerprint stands beside it."""
    fields = {name: getattr(task, name) for name in _RECORDED}
    images = [
        {
            "path": text(os.fsdecode(relative_bytes(image.path, state_dir))),
            "sha256": image.sha256,
            "size_bytes": image.size_bytes,
        }
        for image in task.images
    ]
    record: dict[str, object] = {**fields, "images": images}
    try:
        return msgspec.json.encode(record, enc_hook=str).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_storable(record), enc_hook=str).decode()


def _storable(value: object) -> object:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {text(str(key)): _storable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    return value


def task_row(task: model.Task, *, manifest: str, now: int) -> dict[str, object]:
    """Return the columns a task's request fills."""
    return {
        "manifest": manifest,
        "id": text(task.id),
        "job": text(task.job),
        "row": text(task.row),
        "variant": task.variant,
        "model": text(task.model),
        "fingerprint": task.fingerprint,
        "fingerprints": msgspec.json.encode(task.fingerprints).decode(),
        "prompt": task.digests.prompt,
        "inputs": task.digests.inputs,
        "params": task.digests.params,
        "model_digest": text(task.digests.model),
        "pixels": task.digests.pixels,
        "name": task.name,
        "name_key": name_key(text(task.name)),
        "now": now,
    }


def begin(
    connection: sqlite3.Connection, task: model.Task, row: Row, record: str, *, run: int, reserved: int
) -> model.Attempt:
    """Record an attempt as sent (B0)."""
    key, number, maker, *artifact = connection.execute(query("intend_task"), row).fetchone()
    remember(connection, key, str(row["fingerprint"]), record)
    values = {**row, "run": run, "task": key, "number": number, "reserved": reserved}
    attempt = connection.execute(query("intend_attempt"), values).lastrowid
    assert attempt is not None
    return model.Attempt(id=attempt, number=number, task=task, previous=artifact_of(artifact), previous_maker=maker)


def remember(connection: sqlite3.Connection, task: int, fingerprint: str, record: str) -> None:
    """Write down what a task asks for now, and keep what it asked for before."""
    values = {"task": task, "fingerprint": fingerprint, "record": record}
    connection.execute(query("keep_record"), values)
    connection.execute(query("set_record"), values)


def artifact_of(columns: Sequence[Any]) -> model.Artifact | None:
    """Read the columns `ARTIFACT`; None where there is no image."""
    return None if columns[0] is None else model.Artifact(**dict(zip(ARTIFACT, columns, strict=True)))


def artifact(image: model.Image, path: str, mtime_ns: int) -> model.Artifact:
    """Describe an image that stands under its final name; `mtime_ns` of an object: its version."""
    return model.Artifact(
        path=path,
        sha256=image.sha256,
        mime=image.mime,
        width=image.width,
        height=image.height,
        size_bytes=len(image.data),
        mtime_ns=mtime_ns,
    )


def artifact_row(artifact: model.Artifact) -> dict[str, object]:
    """Return the columns an image fills."""
    return {name: getattr(artifact, name) for name in ARTIFACT}


def finish(
    connection: sqlite3.Connection,
    attempt: int,
    artifact: model.Artifact,
    *,
    cost: int,
    now: int,
    seconds: float | None = None,
    reason: str = "",
) -> None:
    """Record an image as done (B5); `seconds` None: it was recovered, what was known of its answer stays."""
    flags = msgspec.json.encode(artifact.flags).decode() if artifact.flags else ""
    row = artifact_row(artifact) | {
        "attempt": attempt,
        "cost": cost,
        "now": now,
        "flags": text(flags),
        "look": artifact.look,
        "seconds": seconds,
        "status": None if seconds is None else 200,
        "request_id": artifact.request_id,
        "response_id": artifact.response_id,
        "model_version": artifact.model_version,
        "reason": text("; ".join(artifact.notes) or reason)[:REASON_CHARS],
        **_tokens(artifact.usage),
    }
    connection.execute(query("finish_task"), row)
    connection.execute(query("finish_attempt"), row)


def close(
    connection: sqlite3.Connection,
    attempt: int,
    failure: model.Failure,
    *,
    state: model.TaskState,
    cost: int,
    now: int,
    unknown: int | None = None,
    seconds: float | None = None,
) -> None:
    """Record the end of an attempt that left no image under a final name.

    `unknown`: micro-dollars that stay reserved for what may have been billed. `seconds` None: it was recovered.
    """
    attempt_state = ATTEMPT_STATES[failure.billed]
    is_unknown = attempt_state == "unknown"
    has_image = failure.image_sha256 is not None
    row = {
        "attempt": attempt,
        "attempt_state": attempt_state,
        "is_unknown": is_unknown,
        "state": state.value,
        "cost": cost,
        "reserved": unknown if is_unknown else None,
        "reason": text(failure.reason)[:REASON_CHARS],
        "seconds": seconds,
        "sha256": failure.image_sha256,
        "kept": failure.kept,
        "now": now,
        "fault": None if has_image else failure.fault.value,
        "status": 200 if has_image else failure.status,
        "code": failure.code,
        "request_id": failure.request_id,
        "response_id": failure.response_id,
        **_tokens(failure.usage),
    }
    connection.execute(query("close_task"), row)
    connection.execute(query("close_attempt"), row)


def begin_run(connection: sqlite3.Connection, manifest: Row, *, now: int, sha256: str = "", found: str = "") -> int:
    """Write a run down; return its number. `manifest`: its name, and its output directory, which is remembered."""
    connection.execute(query("set_manifest"), manifest)
    values = {**manifest, "manifest_sha256": sha256, "version": __version__, "now": now, "found": found}
    run = connection.execute(query("begin_run"), values).lastrowid
    assert run is not None
    return run


def rebuilt_run(connection: sqlite3.Connection, manifest: Row, *, doubt: str | None, now: int) -> int:
    """Write a rebuild down as a run: what it counted belongs to it; `doubt` says why that may be too little."""
    run = begin_run(connection, manifest, now=now)
    reason = REBUILT if doubt is None else f"{REBUILT}: {doubt}"
    connection.execute(query("end_run"), {"run": run, "now": now, "exit": None, "reason": text(reason)})
    return run


def lose(connection: sqlite3.Connection, attempt: int, *, reason: str, now: int) -> None:
    """Write down that the outcome of a request is unknown."""
    row = {"attempt": attempt, "reason": reason, "now": now}
    connection.execute(query("lose_task"), row)
    connection.execute(query("lose_attempt"), row)


def raise_sequence(connection: sqlite3.Connection, attempt: int) -> None:
    """See to it that no new attempt gets a number up to this one."""
    connection.execute(query("start_sequence"), {"attempt": attempt})
    connection.execute(query("raise_sequence"), {"attempt": attempt})


def touch(connection: sqlite3.Connection, manifest: str, touched: list[tuple[str, model.Artifact, int]]) -> None:
    """Write down new times of files whose bytes are the same, so that they are not hashed again."""
    rows = [
        {"manifest": manifest, "id": task_id, "sha256": artifact.sha256, "mtime_ns": mtime_ns}
        for task_id, artifact, mtime_ns in touched
    ]
    connection.executemany(query("touch_artifact"), rows)


def _tokens(usage: model.Usage | None) -> dict[str, int | None]:
    return {name: None if usage is None else getattr(usage, name) for name in TOKENS}


# -- past attempts, runs and money ------------------------------------------------------------------------------------

_FLAGS: Final = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    """One request of a task's history. `state`: sent, ok, free, paid or unknown."""

    attempt: int
    run: int
    number: int
    state: str
    reserved_microusd: int
    cost_microusd: int
    sent_at: datetime
    ended_at: datetime | None
    seconds: float | None
    fault: str | None
    status: int | None
    request_id: str | None
    response_id: str | None
    model_version: str | None
    reason: str
    sha256: str | None
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
class RunSnapshot:
    """A run that goes on, at one moment. What it has not asked for yet is pending."""

    run: int
    manifest: str
    started_at: datetime
    due: int
    found: dict[model.TaskState, int]  # tasks that were not due when it began
    asked: dict[model.TaskState, int]  # tasks it has asked for
    in_flight: int
    images: int
    seen_at: datetime
    workers: int = 0  # sender processes; 0: it sends itself
    workers_lost: int = 0

    @property
    def left(self) -> int:
        """Return how many tasks it will still ask for, those in flight included."""
        return max(0, self.due - sum(self.asked.values()) + self.in_flight)

    @property
    def per_s(self) -> float | None:
        """Return the images a second since it began; None: none yet."""
        seconds = (self.seen_at - self.started_at).total_seconds()
        return self.images / seconds if self.images and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        return None if self.per_s is None else self.left / self.per_s


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


def known_of(row: Columns) -> model.Known:
    """Read the columns of `known`."""
    (task_id, state, fingerprint, prompt, inputs, params, asked_model, name, attempts, unknowns, cost, reason, at, made,
     faults, is_accepted, pixels, edit, flags, *image) = row  # fmt: skip
    return model.Known(
        id=task_id,
        state=model.TaskState(state),
        fingerprint=fingerprint,
        digests=model.Digests(prompt=prompt, inputs=inputs, params=params, model=asked_model, pixels=pixels),
        name=name,
        artifact=artifact_of(image),
        artifact_fingerprint=made,
        attempts=attempts,
        unknowns=unknowns,
        cost_microusd=cost,
        reason=reason,
        updated_at=from_us(at),
        is_accepted=bool(is_accepted),
        edit=model.Edit(edit) if edit else None,
        flags=_FLAGS.decode(flags) if flags else {},
        faults=tuple(map(model.Fault, faults.split(","))) if faults else (),
    )


def read(kind: "type[D]", row: Columns) -> "D":
    """Make one of the dataclasses above from columns in the order of its fields."""
    named = dict(zip(_names(kind), row, strict=True))
    moments = {name: from_us(named[name]) for name in MOMENTS & named.keys() if named[name] is not None}
    return kind(**named | moments)


@lru_cache  # `fields` takes as long as the rest of reading an attempt
def _names(kind: "type[DataclassInstance]") -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))

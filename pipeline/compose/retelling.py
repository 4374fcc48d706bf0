"""One task's whole history: every attempt, and what each of them asked for.

Reads the ledger and, for what a run would ask next, the manifest; changes nothing.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pipeline.compose.looking import status_task
from pipeline.compose.planning import NEAR, DigestMemory, reading, rows
from pipeline.compose.preparing import Setup
from pipeline.errors import InputError, Problem
from pipeline.model import Known
from pipeline.plan import Row
from pipeline.report.asked import Asked, Request
from pipeline.report.figures import moment
from pipeline.report.status_view import AttemptLine, History, StatusTask
from pipeline.store import Attempt, Reader

PARAMETERS: Final = ("aspect_ratio", "size", "seed", "temperature", "params", "safety")

Record = Mapping[str, Any]


def history(setup: Setup, task_id: str) -> History:
    """Return one task, its attempts and requests. Raises InputError for an id that nobody knows."""
    with reading(setup) as reader:
        row, near = _find(setup, reader, task_id)
        known = reader.known(task_id)
        if row is None and known is None:
            raise InputError(Problem(what=f"no task has the id {task_id!r}", instead=_nearest(task_id, near)))
        attempts = reader.attempts(task_id)
        records = records_of(reader, task_id, attempts)
        return History(
            task=status_task(row) if row is not None else _orphan(known, reader.record(task_id)),
            attempts=[attempt_line(attempt, records.get(attempt.fingerprint)) for attempt in attempts],
            asked=[*_asked(attempts, records, setup.manifest.state_dir), *_next(row, records)],
        )


def _find(setup: Setup, reader: Reader, task_id: str) -> tuple[Row | None, list[str]]:
    """Return the task's row; where there is none, the ids to look for the nearest among."""
    near: list[str] = []
    for row in rows(setup, reader, DigestMemory(reader)):
        if row.task.id == task_id:
            return row, near
        if len(near) < NEAR:
            near.append(row.task.id)
    return None, near


def _orphan(known: Known | None, record: Record | None) -> StatusTask:
    """Return a task that only the ledger knows."""
    assert known is not None
    return StatusTask(
        id=known.id,
        job=str((record or {}).get("job", "")),
        state=known.state,
        artifact=known.artifact,
        attempts=known.attempts,
        cost_microusd=known.cost_microusd,
        reason="orphaned: no longer in the manifest" + (f"; {known.reason}" if known.reason else ""),
    )


def _nearest(task_id: str, ids: Sequence[str]) -> str:
    near = get_close_matches(task_id, ids, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "imgpipe status FILE --tasks lists the ids"


def records_of(reader: Reader, task_id: str, attempts: Sequence[Attempt]) -> dict[str, Record]:
    """Return what is written down of each request that was sent, by its fingerprint, oldest first."""
    fingerprints = dict.fromkeys(attempt.fingerprint for attempt in attempts)
    found = ((each, reader.record(task_id, fingerprint=each)) for each in fingerprints)
    return {fingerprint: record for fingerprint, record in found if record is not None}


def _asked(attempts: Sequence[Attempt], records: Mapping[str, Record], state_dir: Path) -> Iterator[Asked]:
    for fingerprint, record in records.items():
        numbers = [attempt.attempt for attempt in attempts if attempt.fingerprint == fingerprint]
        attempts_are = f"attempt{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        yield Asked(when=f"{attempts_are} asked for", request=recorded(record, state_dir))


def _next(row: Row | None, records: Mapping[str, Record]) -> Iterator[Asked]:
    """Yield what the manifest asks for now, where that was never sent."""
    if row is not None and (task := row.task).fingerprint not in records:
        when = "the manifest asks now for" if row.verdict.reason is None else "a run asks next for"
        images = [{"path": str(image.path), "sha256": image.sha256} for image in task.images]
        record = {name: getattr(task, name) for name in ("prompt", "system", "model", *PARAMETERS)}
        request = recorded({**record, "images": images, "matrix": task.matrix, "fields": task.fields}, Path("/"))
        yield Asked(when=when, request=request)


def recorded(record: Record, state_dir: Path) -> Request:
    """Read the ledger's record of a request."""
    return Request(
        prompt=str(record.get("prompt", "")),
        system=record.get("system"),
        model=str(record.get("model", "")),
        parameters={name: record[name] for name in PARAMETERS if record.get(name) not in (None, {})},
        inputs=[(os.path.normpath(state_dir / image["path"]), image["sha256"]) for image in record.get("images", ())],
        matrix=record.get("matrix", {}),
        fields=record.get("fields", {}),
        tags=record.get("tags", ()),
    )


def attempt_line(attempt: Attempt, record: Record | None) -> AttemptLine:
    """Return one attempt as histories show it; `record` None: nothing says what it asked for."""
    return AttemptLine(
        attempt=attempt.number,
        sent_at=moment(attempt.sent_at),
        outcome=attempt.fault or attempt.state,
        seconds=attempt.seconds,
        cost_microusd=attempt.cost_microusd,
        unknown_microusd=attempt.reserved_microusd if attempt.state in ("unknown", "sent") else 0,
        reason=attempt.reason,
        request_id=attempt.request_id,
        prompt=None if record is None else str(record.get("prompt", "")),
    )

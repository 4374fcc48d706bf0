"""Builds `status`: tasks by state, money, unknown requests and holds; or the whole history of one task.

Reads the ledger through `LedgerReader` and, for what a run would send next, the manifest. Never locks, never sends.
"""

import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from pipeline.app import consent
from pipeline.app.consent import doubts, wallet_of
from pipeline.app.context import Setup
from pipeline.app.orphans import NEAR, Orphans
from pipeline.app.planning import no_task, plan_rows, reading, selected_rows
from pipeline.errors import InputError
from pipeline.model import PARAMETERS, Edit, Known, TaskState, is_object
from pipeline.plan.decide import FileView
from pipeline.plan.plan import PlanRow
from pipeline.settings import day_of, month_of, zone_of
from pipeline.store.lock import is_held
from pipeline.store.reader import LedgerReader
from pipeline.store.rows import PastAttempt, RunSnapshot, record_of
from pipeline.text import moment
from pipeline.view.explain import AttemptLine, Request
from pipeline.view.status import Status, StatusTask, TaskHistory

CHANGED: Final = "the manifest asks for something else now"
IN_MEMORY_BYTES: Final = 16 * 2**20  # tens of thousands of tasks; of more, a file of the system's temporary folder


def status(setup: Setup) -> Status:
    """Count tasks by state and sum up money, all of one moment."""
    with _snapshot(setup) as (found, _):
        return found


@contextmanager
def status_with_tasks(setup: Setup) -> Iterator[tuple[Status, Iterator[StatusTask]]]:
    """Give the state of a manifest and its tasks, of one moment; they may be read as slowly as a pager shows them.

    Until its last reader ends, SQLite's log only grows: 30 KB for each image of a run beside it.
    """
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as scratch:
        with _snapshot(setup) as (found, tasks):
            for task in tasks:
                pickle.dump(task, scratch)
        scratch.seek(0)
        yield found, _unpickled(scratch)


def _unpickled(scratch: IO[bytes]) -> Iterator[StatusTask]:
    with suppress(EOFError):
        while True:
            yield pickle.load(scratch)  # noqa: S301 - our own file, without a name


@contextmanager
def _snapshot(setup: Setup) -> Iterator[tuple[Status, Iterator[StatusTask]]]:
    """Beside a run everything comes from the ledger: what that has in hand is neither a conflict nor unknown."""
    with reading(setup) as reader, reader.snapshot():
        going = reader.run_that_goes_on()
        if is_held(setup.manifest.state_dir) is False:  # its process died
            going = None
        yield _status(setup, reader, going), _tasks(setup, reader, is_running=going is not None)


def _status(setup: Setup, reader: LedgerReader, going: RunSnapshot | None) -> Status:
    if going is not None and setup.flags.selection.is_everything and going.manifest == setup.manifest.name:
        states = Counter(going.found) + Counter(going.asked)
        states[TaskState.PENDING] += max(0, going.due - sum(going.asked.values()))
        counted = Status(states={state: states[state] for state in TaskState}, flags=reader.flags())
    else:
        counted = _counted(setup, reader, is_running=going is not None)
    now, zone = datetime.now(UTC), zone_of(setup.limits.tz)
    unknowns = [*reader.unknowns(), *reader.unknowns(of_nobody=True)]
    unknowns = [each for each in unknowns if not (each.is_open and going is not None)]
    wallet = wallet_of(setup, reader)
    held = list(consent.lasting_holds(setup, reader, now=now).values())
    return replace(
        counted,
        going=going,
        command=setup.command,
        run_microusd=reader.spend_of_last_run().spent_microusd,
        day_microusd=reader.spend(day_of(now, zone).start, now).spent_microusd,
        month_microusd=reader.spend(month_of(now, zone).start, now).spent_microusd,
        unknown_microusd=sum(unknown.price_microusd for unknown in unknowns),
        unknowns=unknowns,
        not_before=moment(max(hold.not_before for hold in held)) if held else None,
        holds=[*map(consent.describe_hold, held), *consent.void_holds(reader, now=now)],
        is_play_money=setup.is_play_money,
        doubt="; ".join(doubts(setup, reader)) or None,
        budget_left_microusd=wallet.left_microusd,
        exceeded=wallet.exceeded,
    )


def _counted(setup: Setup, reader: LedgerReader, *, is_running: bool) -> Status:
    """Count the selected tasks; money is not looked at."""
    states, flags, to_come, edits = Counter[TaskState](), Counter[str](), Counter[str](), Counter[Edit]()
    missing, orphans = 0, Orphans(setup.manifest, reader)
    rows = plan_rows(setup, reader, on_end=orphans.ended.append, files=FileView() if is_running else None)
    selection = setup.flags.selection
    for row in selection.apply(orphans.watch(rows)):
        state = state_of(row)
        states[state] += 1
        missing += row.verdict.is_missing
        if row.known is not None and row.verdict.state is TaskState.DONE:
            flags.update(row.known.flags.keys())
        if row.verdict.edit is not None and not row.verdict.is_edit_new:
            edits[row.verdict.edit] += 1
        if state is TaskState.DONE and row.verdict.reason is not None:
            to_come[row.verdict.reason] += 1
    has_orphans = selection.is_everything or selection.wants_orphans
    return Status(
        states={state: states[state] for state in TaskState},
        missing=missing,
        to_come=to_come,
        edits=edits,
        flags=flags,
        orphaned=orphans.counted().total() if has_orphans else 0,
    )


def _tasks(setup: Setup, reader: LedgerReader, *, is_running: bool) -> Iterator[StatusTask]:
    yield from map(status_task, selected_rows(setup, reader, files=FileView() if is_running else None))
    if setup.flags.selection.wants_orphans:
        yield from _orphaned(setup, reader)


def _orphaned(setup: Setup, reader: LedgerReader) -> Iterator[StatusTask]:
    """Yield the tasks that the manifest no longer has, as far as that is known."""
    orphans = Orphans(setup.manifest, reader)
    rows = orphans.watch(plan_rows(setup, reader))
    for known in reader.orphans(each for row in rows for each in (row.task.id, row.verdict.former)):
        if known.id.partition("/")[0] not in orphans.unsure:
            yield _orphan(known, reader.record(known.id))


def state_of(row: PlanRow) -> TaskState:
    """Return the ledger's state; before it a conflict that only the files show, and an image that is what is asked."""
    if row.verdict.state in (TaskState.CONFLICT, TaskState.DONE) or row.known is None:
        return row.verdict.state
    return row.known.state


def flags_text(flags: Mapping[str, str]) -> str:
    """Return `flagged blank: nearly one colour`."""
    return "; ".join(f"flagged {name}: {reason}" for name, reason in flags.items())


def status_task(row: PlanRow) -> StatusTask:
    """Return one task as lists show it."""
    known = row.known
    reason = row.verdict.note or (known.reason or flags_text(known.flags) if known else "")
    return _task(row.task.id, row.task.job, state_of(row), known, reason)


def _task(task_id: str, job: str, state: TaskState, known: Known | None, reason: str) -> StatusTask:
    return StatusTask(
        id=task_id,
        job=job,
        state=state,
        artifact=known.artifact if known else None,
        attempts=known.attempts if known else 0,
        cost_microusd=known.cost_microusd if known else 0,
        reason=reason,
    )


Record = Mapping[str, Any]


def task_history(setup: Setup, task_id: str) -> TaskHistory:
    """Return one task, its attempts and requests. Raises InputError for an id that neither manifest nor ledger has."""
    with reading(setup) as reader:
        row, near = _find(setup, reader, task_id)
        known = reader.known(task_id)
        if row is None and known is None:
            raise InputError(no_task(task_id, near, setup.command))
        attempts = reader.attempts(task_id)
        records, state_dir = records_of(reader, task_id, attempts), setup.manifest.state_dir
        return TaskHistory(
            task=status_task(row) if row is not None else _orphan(known, reader.record(task_id)),
            attempts=[attempt_line(attempt, records.get(attempt.fingerprint)) for attempt in attempts],
            asked=[*_asked(attempts, records, state_dir), *_next(row, records, state_dir)],
        )


def _find(setup: Setup, reader: LedgerReader, task_id: str) -> tuple[PlanRow | None, list[str]]:
    """Return the task's row; where there is none, the ids to look for the nearest among."""
    near: list[str] = []
    for row in plan_rows(setup, reader):
        if row.task.id == task_id:
            return row, near
        if len(near) < NEAR:
            near.append(row.task.id)
    return None, near


def _orphan(known: Known | None, record: Record | None) -> StatusTask:
    """Return a task that only the ledger has."""
    assert known is not None
    reason = "orphaned: no longer in the manifest" + (f"; {known.reason}" if known.reason else "")
    return _task(known.id, str((record or {}).get("job", "")), known.state, known, reason)


def records_of(reader: LedgerReader, task_id: str, attempts: Sequence[PastAttempt]) -> dict[str, Record]:
    """Return what is written down of each request that was sent, by its fingerprint, oldest first."""
    fingerprints = dict.fromkeys(attempt.fingerprint for attempt in attempts)
    found = ((each, reader.record(task_id, fingerprint=each)) for each in fingerprints)
    return {fingerprint: record for fingerprint, record in found if record is not None}


def _asked(
    attempts: Sequence[PastAttempt], records: Mapping[str, Record], state_dir: Path
) -> Iterator[tuple[str, Request]]:
    for fingerprint, record in records.items():
        numbers = [attempt.number for attempt in attempts if attempt.fingerprint == fingerprint]
        attempts_are = f"attempt{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        yield f"{attempts_are} asked for", recorded(record, state_dir)


def _next(row: PlanRow | None, records: Mapping[str, Record], state_dir: Path) -> Iterator[tuple[str, Request]]:
    """Yield what the manifest asks for now, where that was never sent."""
    if row is not None and records.keys().isdisjoint((task := row.task).fingerprints):
        when = "the manifest asks now for" if row.verdict.reason is None else "a run asks next for"
        yield when, recorded(msgspec.json.decode(record_of(task, state_dir)), state_dir)


def recorded(record: Record, state_dir: Path) -> Request:
    """Read the ledger's record of a request."""
    return Request(
        prompt=str(record.get("prompt", "")),
        system=record.get("system"),
        model=str(record.get("model", "")),
        parameters={name: record[name] for name in PARAMETERS if record.get(name) not in (None, {})},
        inputs=[(_located(image["path"], state_dir), image["sha256"]) for image in record.get("images", ())],
        matrix=record.get("matrix", {}),
        fields=record.get("fields", {}),
        tags=record.get("tags", ()),
    )


def _located(path: str, state_dir: Path) -> str:
    return path if is_object(path) else os.path.normpath(state_dir / path)


def attempt_line(attempt: PastAttempt, record: Record | None) -> AttemptLine:
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

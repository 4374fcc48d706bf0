"""What is known, without changing anything: plans, status, the rows of the report, money.

Reads the ledger through `Reader`; never locks, never sends.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from pipeline.compose import holds
from pipeline.compose.consent import doubt, wallet_of
from pipeline.compose.orphans import Orphans
from pipeline.compose.planning import DigestMemory, Planned, make_plan, reading, rows
from pipeline.compose.preparing import Setup
from pipeline.days import day_of, month_of, zone_of
from pipeline.model import Task, TaskState
from pipeline.plan import Row
from pipeline.report import is_signed
from pipeline.report.cost_view import CostLine
from pipeline.report.figures import moment
from pipeline.report.gallery import write_report
from pipeline.report.row import ReportRow, ReportTotals
from pipeline.report.status_view import Status, StatusTask, UnknownAttempt
from pipeline.store import Attempt, Reader

CHANGED: Final = "the manifest asks for something else now"


def look(setup: Setup) -> Planned:
    """Plan everything that is selected. Raises InputError for a bad manifest, input or name."""
    with reading(setup) as reader:
        return make_plan(setup, reader)


# -- status -------------------------------------------------------------------------------------------------------


def status(setup: Setup) -> Status:
    """Count tasks by state and sum up money."""
    with reading(setup) as reader:
        states = dict.fromkeys(TaskState, 0)
        missing, waiting, orphans = 0, list[str](), Orphans(setup.manifest, reader)
        stream = orphans.watch(
            rows(setup, reader, DigestMemory(reader), on_end=lambda expansion: waiting.extend(expansion.waiting))
        )
        to_come = Counter[str]()
        for row in setup.flags.selection.apply(stream):
            states[_state(row)] += 1
            missing += row.verdict.is_missing
            if _state(row) is TaskState.DONE and row.verdict.reason is not None:
                to_come[row.verdict.reason] += 1
        now, zone = datetime.now(UTC), zone_of(setup.limits.tz)
        last = reader.last_run()
        unknowns = [*reader.unknowns(), *reader.unknowns(of_nobody=True)]
        held = list(holds.lasting(setup, reader, now=now).values())
        return Status(
            states=states,
            missing=missing,
            to_come=to_come,
            orphaned=orphans.counted(waiting).total() if setup.flags.selection.is_everything else 0,
            run_microusd=0 if last is None else reader.run_spend(last).spent_microusd,
            day_microusd=reader.spend(day_of(now, zone).start, now).spent_microusd,
            month_microusd=reader.spend(month_of(now, zone).start, now).spent_microusd,
            unknown_microusd=sum(unknown.price_microusd for unknown in unknowns),
            unknowns=[
                UnknownAttempt(
                    task=unknown.task_id,
                    attempt=unknown.number,
                    sent_at=moment(unknown.sent_at),
                    price_microusd=unknown.price_microusd,
                    request_id=unknown.request_id,
                )
                for unknown in unknowns
            ],
            not_before=moment(max(hold.not_before for hold in held)) if held else None,
            holds=[*map(holds.told, held), *holds.void(reader, now=now)],
            is_play_money=setup.is_play_money,
            doubt=doubt(setup, reader),
            budget_left_microusd=wallet_of(setup, reader).left_microusd,
        )


def status_tasks(setup: Setup) -> Iterator[StatusTask]:
    """Stream one line per selected task."""
    with reading(setup) as reader:
        yield from map(status_task, _selected(setup, reader))


def _selected(setup: Setup, reader: Reader) -> Iterator[Row]:
    return setup.flags.selection.apply(rows(setup, reader, DigestMemory(reader)))


def _state(row: Row) -> TaskState:
    """Return the ledger's state; a conflict that only the files show comes first."""
    if row.verdict.state is TaskState.CONFLICT or row.known is None:
        return row.verdict.state
    return row.known.state


def status_task(row: Row) -> StatusTask:
    """Return one task as lists show it."""
    known = row.known
    return StatusTask(
        id=row.task.id,
        job=row.task.job,
        state=_state(row),
        artifact=known.artifact if known else None,
        attempts=known.attempts if known else 0,
        cost_microusd=known.cost_microusd if known else 0,
        reason=row.verdict.note or (known.reason if known else ""),
    )


# -- report and money ---------------------------------------------------------------------------------------------


def report(setup: Setup, *, told: Callable[[int, int], None] | None = None) -> Path:
    """Write page and tables; return the page. `told` hears how many of how many thumbnails are there."""
    manifest = setup.manifest
    out = manifest.output_dir / "report"
    with reading(setup) as reader:
        total = reader.spend()
        by_day = reader.costs(by=["day"], tz=zone_of(setup.limits.tz))
        return write_report(
            out,
            title=manifest.name,
            rows=(_report_row(setup, reader, row) for row in _selected(setup, reader)),
            totals=ReportTotals(
                spent_microusd=total.spent_microusd,
                unknown_microusd=total.unknown_microusd,
                attempts=sum(cost.attempts for cost in by_day),
            ),
            spend=[(datetime.fromisoformat(cost.key[0]).replace(tzinfo=UTC), cost.spent_microusd) for cost in by_day],
            is_play_money=setup.is_play_money,
            output_dir=manifest.output_dir,
            told=told,
        )


def _report_row(setup: Setup, reader: Reader, row: Row) -> ReportRow:
    task, known = row.task, row.known
    artifact = known.artifact if known else None
    attempts = reader.attempts(task.id) if known else []
    made = next((attempt for attempt in reversed(attempts) if attempt.state == "ok"), None)
    asked = _asked_for(reader, task, made)
    reason = row.verdict.note or (known.reason if known else "")
    return ReportRow(
        id=task.id,
        job=task.job,
        row=task.row,
        variant=task.variant,
        state=_state(row),
        prompt=str(asked["prompt"]),
        model=str(asked["model"]),
        tags=task.tags,
        matrix=task.matrix,
        fields=task.fields,
        image=str(setup.manifest.output_dir / artifact.path) if artifact else None,
        input_image=task.images[0].path if task.images else None,
        width=artifact.width if artifact else None,
        height=artifact.height if artifact else None,
        mime=artifact.mime if artifact else None,
        size_bytes=artifact.size_bytes if artifact else None,
        price_microusd=known.cost_microusd if known else 0,
        seconds=made.seconds if made else None,
        attempts=known.attempts if known else 0,
        reason=reason or ("" if asked["fingerprint"] == task.fingerprint else CHANGED),
        finished_at=made.ended_at if made else None,
        sha256=artifact.sha256 if artifact else None,
        fingerprint=str(asked["fingerprint"]),
        is_signed=artifact is not None and _is_signed(setup.manifest.output_dir / artifact.path),
    )


def _is_signed(path: Path) -> bool:
    """Whether an image is signed; only the pages with its chunks' heads are read."""
    with (
        suppress(OSError, ValueError),  # ValueError: an empty file cannot be mapped
        path.open("rb") as file,
        mmap(file.fileno(), 0, access=ACCESS_READ) as data,
    ):
        return is_signed(data)
    return False


def _asked_for(reader: Reader, task: Task, made: Attempt | None) -> Mapping[str, object]:
    """Return prompt, model and fingerprint of the image that is there: the manifest may ask for another one by now."""
    record = None
    if made is not None and made.fingerprint != task.fingerprint:
        record = reader.record(task.id, fingerprint=made.fingerprint)
    return record or {"prompt": task.prompt, "model": task.model, "fingerprint": task.fingerprint}


def costs(setup: Setup, *, by: Sequence[str], since: datetime | None) -> list[CostLine]:
    """Sum the money of this manifest by job, model or day."""
    with reading(setup) as reader:
        return [
            CostLine(
                key=cost.key,
                attempts=cost.attempts,
                images=cost.images,
                spent_microusd=cost.spent_microusd,
                unknown_microusd=cost.unknown_microusd,
            )
            for cost in reader.costs(by=by, since=since, tz=zone_of(setup.limits.tz))
        ]

"""Builds the contact sheet, its rows and tables, and the sums of `cost`, from manifest, ledger and files.

Never locks, never sends; writes only the report's own folder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from mmap import ACCESS_READ, mmap
from pathlib import Path

from pipeline.app.consent import prices_of
from pipeline.app.context import Setup
from pipeline.app.planning import reading, selected_rows
from pipeline.app.redo import marks_of
from pipeline.app.status import CHANGED, flags_text, state_of
from pipeline.imaging.metadata import is_signed
from pipeline.model import Artifact, Edit, Mark, Task
from pipeline.plan.plan import PlanRow
from pipeline.report.folder import report_folder, write_report
from pipeline.report.sheet import Heading, ReportRow, Version
from pipeline.settings import zone_of
from pipeline.store.maintenance import superseded_images
from pipeline.store.reader import LedgerReader
from pipeline.store.rows import Cost, PastAttempt


def report(setup: Setup, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write page and tables; return the page. `progress`: called with the number of thumbnails made, and of all."""
    manifest = setup.manifest
    with reading(setup) as reader:
        folder, rows = report_folder(manifest.report_dir, manifest.name), report_rows(setup, reader, marks_of(manifest))
        return write_report(folder, heading_of(setup, reader), rows, on_progress=progress)


def heading_of(setup: Setup, reader: LedgerReader) -> Heading:
    """Return the heading of the contact sheet, with the money of this manifest's whole life."""
    sums = reader.costs(by=[])
    return Heading(
        title=setup.manifest.name,
        output_dir=setup.manifest.output_dir,
        spent_microusd=sum(cost.spent_microusd for cost in sums),
        unknown_microusd=sum(cost.unknown_microusd for cost in sums),
        attempts=sum(cost.attempts for cost in sums),
        is_play_money=setup.is_play_money,
        command=setup.command,
        written_at=datetime.now(UTC),
    )


def report_rows(setup: Setup, reader: LedgerReader, marks: Mapping[str, Mark]) -> Iterator[ReportRow]:
    """Stream the selected tasks as the report shows them."""
    manifest = setup.manifest
    replaced = superseded_images(manifest.output_dir, manifest.state_dir, ledger_id=reader.ledger_id)
    superseded = {each.attempt: each.location for each in replaced}
    quote = prices_of(setup, reader).quote
    for row in selected_rows(setup, reader):
        mark, price = marks.get(row.task.id if row.known is None else row.known.id), quote(row.task)
        redo_microusd = None if price is None else price.most
        shown = replace(_report_row(reader, row, mark, superseded), redo_microusd=redo_microusd)
        artifact = None if row.known is None else row.known.artifact
        if artifact is not None:
            is_absent = row.verdict.edit is Edit.ABSENT
            shown = _with_image(shown, artifact, manifest.location_of(artifact), is_absent=is_absent)
        yield shown


def _report_row(reader: LedgerReader, row: PlanRow, mark: Mark | None, superseded: Mapping[int, str]) -> ReportRow:
    task, known = row.task, row.known
    artifact = known.artifact if known else None
    attempts = reader.attempts(known.id) if known else []  # a task that is about to be renamed has another id there
    made = next((attempt for attempt in reversed(attempts) if attempt.state == "ok"), None)
    asked = _asked_for(reader, task, made, attempts)
    flags = known.flags if known else {}
    reason = row.verdict.note or (known.reason if known else "")
    return ReportRow(
        id=task.id,
        job=task.job,
        row=task.row,
        variant=task.variant,
        state=state_of(row),
        prompt=str(asked["prompt"]),
        model=str(asked["model"]),
        tags=task.tags,
        matrix=task.matrix,
        fields=task.fields,
        input_image=task.images[0].path if task.images else None,
        input_sha256=task.images[0].sha256 if task.images else None,
        price_microusd=known.cost_microusd if known else 0,
        seconds=made.seconds if made else None,
        attempts=known.attempts if known else 0,
        reason=reason or (flags_text(flags) if asked["fingerprint"] in task.fingerprints else CHANGED),
        finished_at=made.ended_at if made else None,
        fingerprint=str(asked["fingerprint"]),
        folder=task.name.rpartition("/")[0],
        mark=mark if mark is not None and _is_of(mark, artifact, made) else None,
        versions=tuple(_versions(attempts, artifact, superseded)),
        flags=tuple(flags),
    )


def _with_image(row: ReportRow, artifact: Artifact, location: str, *, is_absent: bool) -> ReportRow:
    return replace(
        row,
        image=None if is_absent else location,
        width=artifact.width,
        height=artifact.height,
        mime=artifact.mime,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        is_signed=_is_signed(Path(location)),
    )


def _is_signed(path: Path) -> bool:
    """Whether a file is signed; only the pages with its chunks' heads are read. Of an object it is not known."""
    with (
        suppress(OSError, ValueError),  # ValueError: an empty file cannot be mapped
        path.open("rb") as file,
        mmap(file.fileno(), 0, access=ACCESS_READ) as data,
    ):
        return is_signed(data)
    return False


def _is_of(mark: Mark, artifact: Artifact | None, made: PastAttempt | None) -> bool:
    """Say whether the present image is the one that was marked, and was not replaced since."""
    made_at = made.ended_at.timestamp() if made is not None and made.ended_at is not None else 0.0
    return mark.is_of(artifact) and mark.at_ms >= int(made_at) * 1000


def _versions(
    attempts: Sequence[PastAttempt], artifact: Artifact | None, superseded: Mapping[int, str]
) -> Iterator[Version]:
    """Yield the images a task had before, newest first."""
    for attempt in reversed(attempts):
        path = superseded.get(attempt.attempt)
        if path is not None and attempt.sha256 is not None and (artifact is None or attempt.sha256 != artifact.sha256):
            yield Version(path=path, sha256=attempt.sha256, made_at=attempt.ended_at)


def _asked_for(
    reader: LedgerReader, task: Task, made: PastAttempt | None, attempts: Sequence[PastAttempt]
) -> Mapping[str, object]:
    """Return prompt, model and fingerprint of the image that is there.

    The manifest may ask for another one by now, and a redo may have added words to the prompt; those of a redo that
    brought no image are not the image's.
    """
    record = None
    if made is not None:
        is_latest = not any(one.attempt > made.attempt and one.fingerprint == made.fingerprint for one in attempts)
        if is_latest or made.fingerprint != task.fingerprint:
            record = reader.record(task.id, fingerprint=made.fingerprint)
    return record or {"prompt": task.prompt, "model": task.model, "fingerprint": task.fingerprint}


def costs(setup: Setup, *, by: Sequence[str], since: datetime | None) -> list[Cost]:
    """Sum the money of this manifest by job, model or day."""
    with reading(setup) as reader:
        return reader.costs(by=by, since=since, tz=zone_of(setup.limits.tz))

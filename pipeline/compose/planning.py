"""Manifest + ledger + files -> a plan. Reads only; the one place that knows how the three meet."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.compose.orphans import Orphans, behind
from pipeline.compose.prepare import Setup
from pipeline.errors import InputError, Problem
from pipeline.manifest import UpstreamImage, expand
from pipeline.model import Task
from pipeline.plan import Files, Plan, Row, Spool, survey, tally
from pipeline.report.figures import count
from pipeline.store import Reader


class Cancelled(Exception):  # noqa: N818 - reads as what happened
    """Planning was told to stop."""


@dataclass(slots=True, kw_only=True)
class Planned:
    """A plan and what came with it."""

    plan: Plan
    orphans: Counter[str] = field(default_factory=Counter)  # by job: tasks the manifest no longer has
    waiting: tuple[str, ...] = ()  # input files too young to be read
    behind: tuple[str, ...] = ()  # jobs whose rows follow from images that this plan would make first
    digests: list[tuple[Path, int, int, str]] = field(default_factory=list)  # learned: path, size, mtime, sha256
    warnings: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What a person should know of the plan as a whole."""
        return [*_alike(self.plan), *_waiting(self.waiting)]


def _alike(plan: Plan) -> Iterator[str]:
    if plan.alike:
        verb = "asks" if plan.alike == 1 else "ask"
        pair = f" (such as {' and '.join(plan.alike_example)})" if plan.alike_example else ""
        what = f"{count(plan.alike, 'task')} {verb} for the same image as another one{pair}"
        yield f"{what} and each is paid for; `variants` is the way to ask for several"


def _waiting(waiting: tuple[str, ...]) -> Iterator[str]:
    if waiting:
        verb = "is" if len(waiting) == 1 else "are"
        yield f"{count(len(waiting), 'input file')} {verb} younger than min_age, left for a later run"


class DigestMemory:
    """SHA-256 of input files: remembered by path, size and time; only what differs is read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.learned: list[tuple[Path, int, int, str]] = []

    def __call__(self, path: Path, size_bytes: int, mtime_ns: int) -> str:
        known = self._reader.digest(path, size_bytes, mtime_ns)
        if known is None:
            with path.open("rb") as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
            self.learned.append((path, size_bytes, mtime_ns, known))
        return known


def rows(
    setup: Setup,
    reader: Reader,
    digests: DigestMemory,
    *,
    jobs: Collection[str] | None = None,
    on_end: Callable[[tuple[str, ...]], None] = lambda _waiting: None,
    is_cancelled: threading.Event | None = None,
) -> Iterator[Row]:
    """Stream every task beside what is known of it, whatever the selection. Raises InputError at the end."""
    manifest = setup.manifest

    def tasks() -> Iterator[Task]:
        expansion = expand(manifest, digests=digests, upstream=lambda job: upstream_of(setup, reader, job), jobs=jobs)
        for task in expansion:
            if is_cancelled is not None and is_cancelled.is_set():
                raise Cancelled
            yield task
        on_end(expansion.waiting)

    return survey(tasks(), reader, Files(manifest.output_dir), setup.rules)


def make_plan(
    setup: Setup,
    reader: Reader,
    *,
    jobs: Collection[str] | None = None,
    spool: Spool | None = None,
    free: Spool | None = None,
    is_cancelled: threading.Event | None = None,
) -> Planned:
    """Plan the selected tasks of `jobs` (None: of all). Raises InputError for a bad manifest, input or name."""
    digests = DigestMemory(reader)
    waiting: list[str] = []
    orphans = Orphans(setup.manifest, reader)
    stream = rows(setup, reader, digests, jobs=jobs, on_end=waiting.extend, is_cancelled=is_cancelled)
    selected = setup.flags.selection.apply(orphans.watch(stream))
    plan = tally(selected, price=setup.price, problem=setup.problem, ledger=reader, spool=spool, free=free)
    if plan.problems:
        raise InputError(*(setup.manifest.problem_of(text.partition("/")[0], text) for text in plan.problems))
    _check_budget(setup, plan)
    return Planned(
        plan=plan,
        orphans=Counter() if jobs is not None else orphans.counted(waiting),
        waiting=tuple(waiting),
        behind=tuple(behind(setup.manifest.upstream, {key.job for key in plan.groups if key.is_due})),
        digests=digests.learned,
        warnings=setup.warnings(sorted(plan.models)) if plan.due else [],
    )


def _check_budget(setup: Setup, plan: Plan) -> None:
    """Refuse a budget that cannot be kept: a ceiling needs a price."""
    budget = setup.limits.budget
    if not plan.unpriced or (budget.run is None and budget.day is None and budget.month is None):
        return
    raise InputError(
        *(
            Problem(
                what=f"a budget is set, but the price of {model} is not known",
                file=str(setup.manifest.path),
                instead=f"write it under `prices:`, such as {model}: 0.04 (USD per image)",
            )
            for model in plan.unpriced
        )
    )


def upstream_of(setup: Setup, reader: Reader, job: str) -> Iterator[UpstreamImage]:
    """Yield the images of `job` that are done, for `each: {job: ...}`; one whose file is gone has no row until then."""
    for source in reader.made_by_job(job):
        path = setup.manifest.output_dir / source.path
        if not path.exists():
            continue  # its own task is told as missing, and `--repair` must be able to run
        yield UpstreamImage(
            task_id=source.task_id,
            row=source.row,
            path=path,
            matrix=source.matrix,
            fields=source.fields,
        )

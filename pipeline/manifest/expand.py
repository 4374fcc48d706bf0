"""Expands a manifest to its tasks, one by one, and finds duplicate ids and output names.

Problems are collected on the way and raised at the end: whoever iterates may use the tasks only after the last one came
without an InputError. No ledger, no network. Memory stays flat: rows are read as they are needed, and ids and names go
to a private SQLite file (`connect("")`) that sorts them once at the end: 2 s and 10 MB of memory for 1,000,000 tasks,
where two sets of texts took 300 MB.
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.errors import InputError, Problem, StorageError
from pipeline.manifest.inputs import InputDigests, InputFiles
from pipeline.manifest.jobs import MAX_TASKS, JobPlan
from pipeline.manifest.loader import Manifest
from pipeline.manifest.location import Place, folder_of
from pipeline.manifest.outputs import OutputNames, images_in_the_way
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sources import Sources, Upstream
from pipeline.manifest.tables import SourceRow
from pipeline.manifest.tasks import TaskMaker
from pipeline.model import Task

_BATCH = 5000
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -8192;
PRAGMA temp_store = FILE;
CREATE TABLE claim (id TEXT NOT NULL, name_key TEXT NOT NULL, line INTEGER);
CREATE TABLE input (name_key TEXT NOT NULL, id TEXT NOT NULL);
CREATE TABLE folder (name_key TEXT NOT NULL, id TEXT NOT NULL);
BEGIN;
"""
_SHARED = """
SELECT shared.value, first.id, first.line, second.id, second.line, shared.tasks
FROM (SELECT {column} AS value, min(rowid) AS low, max(rowid) AS high, count(*) AS tasks
      FROM claim GROUP BY {column} HAVING count(*) > 1) AS shared
JOIN claim AS first ON first.rowid = shared.low
JOIN claim AS second ON second.rowid = shared.high
"""
_OUTPUTS_AS_INPUTS = """
SELECT DISTINCT claim.id, input.id FROM input JOIN claim ON claim.name_key = input.name_key
"""
_FOLDERS_AS_IMAGES = """
SELECT claim.id, min(folder.id) FROM folder JOIN claim ON claim.name_key = folder.name_key GROUP BY claim.id
"""


@dataclass(frozen=True, slots=True)
class Shared:
    """One text several tasks claim; the first and the last of them, each with the line of its row in a table."""

    value: str
    first: str
    first_line: int | None
    last: str
    last_line: int | None
    tasks: int


class Claims:
    """What the tasks of one expansion are called."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.executescript(_SCHEMA)
        self._pending: list[tuple[str, str, int | None]] = []

    def add(self, task_id: str, name_key: str, line: int | None) -> None:
        """Note one task."""
        self._pending.append((task_id, name_key, line))
        if len(self._pending) >= _BATCH:
            self._flush()

    def add_input(self, name_key: str, task_id: str) -> None:
        """Note that a task reads a file that has the place and name of an output."""
        self._connection.execute("INSERT INTO input VALUES (?, ?)", (name_key, task_id))

    def add_folder(self, name_key: str, task_id: str) -> None:
        """Note that a task writes into a folder that is called like an image."""
        self._connection.execute("INSERT INTO folder VALUES (?, ?)", (name_key, task_id))

    def shared(self, column: Literal["id", "name_key"]) -> Iterator[Shared]:
        """Yield ids, or keys of output names, of more than one task."""
        self._flush()
        for value, first, first_line, last, last_line, tasks in self._connection.execute(_SHARED.format(column=column)):
            yield Shared(value, first, first_line, last, last_line, tasks)

    def outputs_as_inputs(self) -> Iterator[tuple[str, str]]:
        """Yield (writing task, reading task)."""
        self._flush()
        yield from self._connection.execute(_OUTPUTS_AS_INPUTS)

    def folders_as_images(self) -> Iterator[tuple[str, str]]:
        """Yield (task whose image is called like a folder, a task that writes into it)."""
        self._flush()
        yield from self._connection.execute(_FOLDERS_AS_IMAGES)

    def close(self) -> None:
        self._connection.close()

    def _flush(self) -> None:
        self._connection.executemany("INSERT INTO claim VALUES (?, ?, ?)", self._pending)
        self._pending.clear()


MAX_PROBLEMS = 100
_ALIKE = 3  # problems of one key: a column missing from every row does not hide other mistakes


class Expansion:
    """The tasks of a manifest, lazily; iterate once.

    Raises InputError with every problem when the stream ends. After that, `waiting` holds the files that were younger
    than `min_age`, relative to the manifest, `notes` what a person should know, `count` the number of tasks, and
    `incomplete` the jobs of which rows were left out (`skip_broken`).
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        digests: InputDigests,
        upstream: Upstream | None,
        jobs: Collection[str] | None,
        now: Callable[[], float],
        promised: Place | None,
    ) -> None:
        self.count = 0
        self._manifest = manifest
        files = InputFiles(folder_of(manifest.path), digests, promised=promised)
        self._sources = Sources(manifest, upstream=upstream, now=now, files=files)
        self._jobs = [name for stage in manifest.stages for name in stage if jobs is None or name in jobs]
        self._outputs = OutputNames(manifest.output_dir, manifest.state_dir, self._sources.inputs())
        self._maker = TaskMaker(manifest, inputs=files, outputs=self._outputs)
        self._problems: list[Problem] = []
        self._alike: dict[tuple[str, int | None, int | None], int] = {}
        self._unlisted = 0
        self._broken: list[str] = []
        self._left_out = 0
        self.incomplete: set[str] = set()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Files left for a later run, because they may still be being written."""
        return tuple(self._sources.waiting)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the sources."""
        unlisted = self._left_out - len(self._broken)
        return (*self._sources.notes, *self._broken, *([f"and {unlisted:,} more are left out"] if unlisted else []))

    def __iter__(self) -> Iterator[Task]:
        claims = Claims()
        self._manifest.budget.begin()
        try:
            yield from self._tasks(claims)
            for problem in self._shared(claims):
                self._note(problem)
        except sqlite3.Error as error:
            raise StorageError(f"the scratch file for checking names failed: {error}; free space in $TMPDIR") from None
        finally:
            claims.close()
        if self._problems:
            more = [Problem(what=f"and {self._unlisted:,} more problems")] if self._unlisted else []
            raise InputError(*self._problems, *more)

    def _tasks(self, claims: Claims) -> Iterator[Task]:
        for plan, row in self._rows():
            for task, key in self._row_tasks(plan, row):
                self.count += 1
                if self.count > MAX_TASKS:
                    what = f"the manifest makes more than {MAX_TASKS:,} tasks"
                    self._note(self._at_job(plan.name, what, "split it into several manifests"))
                    return
                claims.add(task.id, key, row.line)
                for name_key in images_in_the_way(key):
                    claims.add_folder(name_key, task.id)
                if task.images and not row.is_upstream:
                    self._claim_inputs(claims, task)
                yield task

    def _rows(self) -> Iterator[tuple[JobPlan, SourceRow]]:
        """Yield the rows of every job; note the problems between them."""
        for job in self._jobs:
            plan = self._manifest.jobs[job]
            for row in self._sources.rows(plan):
                if isinstance(row, Problem):
                    self._note(row)
                else:
                    yield plan, row

    def _claim_inputs(self, claims: Claims, task: Task) -> None:
        for image in task.images:
            key = self._outputs.key_of(image.path)
            if key is not None:
                claims.add_input(key, task.id)

    def _row_tasks(self, plan: JobPlan, row: SourceRow) -> Iterator[tuple[Task, str]]:
        for combination in plan.combinations if plan.combinations is not None else (None,):
            try:
                yield from self._maker.tasks(plan, row, combination)
            except BadValue as first:
                label = combination.label if combination is not None else ""
                recipe = plan.recipe if plan.items is None else plan.items[row.key]
                if recipe.skip_broken and all(trouble.is_input for trouble in (first, *first.others)):
                    self._leave_out(plan, row, label, first)
                    continue
                for trouble in (first, *first.others):
                    self._note(self._located(plan, row, label, trouble))

    def _leave_out(self, plan: JobPlan, row: SourceRow, label: str, trouble: BadValue) -> None:
        self._left_out += 1
        self.incomplete.add(plan.name)
        if self._left_out <= MAX_PROBLEMS:
            name = "-".join(part for part in (row.key, label) if part)
            self._broken.append(f"{plan.name}/{name} is left out: {trouble.what}")

    def _located(self, plan: JobPlan, row: SourceRow, label: str, trouble: BadValue) -> Problem:
        name = "-".join(part for part in (row.key, label) if part)[:120]
        of = f"{plan.name}/{name}" + (f" ({row.place})" if row.place else "") if name != plan.name else ""
        if trouble.origin is None or not trouble.origin.path:
            return self._at_job(plan.name, f"{of}: {trouble.what}" if of else trouble.what, trouble.instead)
        return self._manifest.problems.of_template(trouble, of=of)

    def _at_job(self, job: str, what: str, instead: str) -> Problem:
        return self._manifest.problems.at(("jobs", job), what, instead, is_key=True)

    def _note(self, problem: Problem) -> None:
        """Keep a problem without a key in it: the first 100, of one place the first 3."""
        for secret in self._manifest.secrets:
            if secret in problem.what or secret in problem.instead:
                what, instead = problem.what.replace(secret, "[key]"), problem.instead.replace(secret, "[key]")
                problem = replace(problem, what=what, instead=instead)
        place = (problem.file, problem.line, problem.column)
        self._alike[place] = self._alike.get(place, 0) + 1
        if len(self._problems) < MAX_PROBLEMS and self._alike[place] <= _ALIKE:
            self._problems.append(problem)
        else:
            self._unlisted += 1

    def _shared(self, claims: Claims) -> Iterator[Problem]:
        for shared in claims.shared("id"):
            yield self._shared_id(shared)
        for shared in claims.shared("name_key"):
            if shared.first != shared.last:
                yield self._shared_name(shared)
        for image, inside in claims.folders_as_images():
            what = f"{inside} lies in a folder that is called like the image of {image}"
            yield self._at_job(inside.partition("/")[0], what, "write another `output:`")
        for writer, reader in claims.outputs_as_inputs():
            what = f"{reader} reads the file that {writer} writes"
            yield self._at_job(writer.partition("/")[0], what, "use `each: {job: ...}`, or write another output")

    def _shared_id(self, shared: Shared) -> Problem:
        job = shared.first.partition("/")[0]
        lines = [self._line_of(job, line) for line in (shared.first_line, shared.last_line) if line is not None]
        where = f": {' and '.join(lines)}" if lines else ""
        what = f"{shared.tasks} rows of the job {job!r} have the id {shared.value!r}{where}"
        return self._at_job(job, what, "give every row its own key, or write an `id:` that tells them apart")

    def _shared_name(self, shared: Shared) -> Problem:
        first, last = shared.first.partition("/")[0], shared.last.partition("/")[0]
        tasks = [
            task + (f" ({self._line_of(job, line)})" if line is not None else "")
            for task, job, line in ((shared.first, first, shared.first_line), (shared.last, last, shared.last_line))
        ]
        what = f"{' and '.join(tasks)} have one output name {shared.value!r}"
        return self._at_job(last, what, "put what tells them apart into `output:`")

    def _line_of(self, job: str, line: int) -> str:
        return f"{self._sources.file_of(job) or job}:{line}"


def expand(
    manifest: Manifest,
    *,
    digests: InputDigests,
    upstream: Upstream | None = None,
    jobs: Collection[str] | None = None,
    now: Callable[[], float] = time.time,
    promised: Place | None = None,
) -> Expansion:
    """Return the tasks of `manifest`, or of some `jobs`; without `upstream`, jobs that wait for others have none.

    `promised`: a folder or bucket whose input images may be missing, because they are yet to be made; such tasks have
    no digest of them, so they are for looking at only.
    """
    return Expansion(manifest, digests=digests, upstream=upstream, jobs=jobs, now=now, promised=promised)

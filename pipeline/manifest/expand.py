"""Expands a manifest to its tasks, one by one, and finds duplicate ids and output names.

Problems are collected on the way and raised at the end: whoever iterates may use the tasks only after the last one came
without an InputError. No ledger, no network. Memory stays flat: rows are read as they are needed, and ids and names go
to a private SQLite file (`connect("")`) that sorts them once at the end: 2 s and 10 MB of memory for 1,000,000 tasks,
where two sets of texts took 300 MB.
"""

import posixpath
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Literal

from pipeline.errors import InputError, Problem, StorageError
from pipeline.manifest.inputs import InputDigests, InputFiles
from pipeline.manifest.jobs import MAX_TASKS, NO_COMBINATION, JobPlan
from pipeline.manifest.loader import Manifest
from pipeline.manifest.location import Place, folder_of
from pipeline.manifest.outputs import OutputNames, images_in_the_way
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sources import Sources, Upstream, input_globs
from pipeline.manifest.tables import SourceRow
from pipeline.manifest.tasks import TaskMaker
from pipeline.manifest.templates import Template
from pipeline.model import Task
from pipeline.text import count

_BATCH = 5000
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -8192;
PRAGMA temp_store = FILE;
CREATE TABLE task (id TEXT NOT NULL, name_key TEXT NOT NULL, line INTEGER);
CREATE TABLE use (kind TEXT NOT NULL, name_key TEXT NOT NULL, id TEXT NOT NULL);
BEGIN;
"""
# What several tasks share, how many they are, and id and line of the first and the last one.
_SHARED = """
SELECT shared.value, shared.tasks, first.id, first.line, last.id, last.line
FROM (SELECT {column} AS value, min(rowid) AS low, max(rowid) AS high, count(*) AS tasks
      FROM task GROUP BY {column} HAVING count(*) > 1) AS shared
JOIN task AS first ON first.rowid = shared.low
JOIN task AS last ON last.rowid = shared.high
"""
_OUTPUTS_AS_INPUTS = """
SELECT DISTINCT task.id, use.id FROM use JOIN task ON task.name_key = use.name_key WHERE use.kind = 'input'
"""
_FOLDERS_AS_IMAGES = """
SELECT task.id, min(use.id) FROM use JOIN task ON task.name_key = use.name_key
WHERE use.kind = 'folder' GROUP BY task.id
"""


class TaskNames:
    """Ids and output names of the tasks of one expansion, in a private SQLite file."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.executescript(_SCHEMA)
        self._pending: list[tuple[str, str, int | None]] = []

    def add(self, task_id: str, name_key: str, line: int | None) -> None:
        """Note one task, with the line of its row in a table."""
        self._pending.append((task_id, name_key, line))
        if len(self._pending) >= _BATCH:
            self._flush()

    def add_use(self, kind: Literal["input", "folder"], name_key: str | None, task_id: str) -> None:
        """Note that a task reads a file, or writes into a folder, that has the place and name of an image."""
        if name_key is not None:
            self._connection.execute("INSERT INTO use VALUES (?, ?, ?)", (kind, name_key, task_id))

    def ask(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield what one of the queries above finds."""
        self._flush()
        yield from self._connection.execute(query)

    def close(self) -> None:
        self._connection.close()

    def _flush(self) -> None:
        self._connection.executemany("INSERT INTO task VALUES (?, ?, ?)", self._pending)
        self._pending.clear()


_UNFILLED = re.compile(r"\{\{\s*((?:row|vars|matrix|file)\.\w{1,60})|(?<![{$])\{(?:row\.)?(\w{1,60})\}(?!\})")


class PromptNotes:
    """Counts prompts that are valid and hardly meant: with an empty cell, or with the name of a value left in them."""

    def __init__(self) -> None:
        self._found: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def look_at_row(self, template: Template | None, row: SourceRow) -> None:
        """Look at the cells of a row that a prompt shows."""
        for column in () if template is None or row.data is None else template.cells:
            if not row.fields.get(column, "").strip():
                self._count(("empty", f"row.{column}" if column.isidentifier() else f"row[{column!r}]"), row.place)

    def look_at_prompt(self, task: Task) -> None:
        """Look for the name of a value, written as other tools do or in a value that is no template itself."""
        for inside, alone in set(_UNFILLED.findall(task.prompt)) if "{" in task.prompt else ():
            if inside or alone in task.fields:
                self._count(("unfilled", inside or f"row.{alone}"), task.id)

    def notes(self) -> Iterator[str]:
        """Yield a line for each name."""
        for (kind, name), number in self._found.items():
            first = f" ({'the first is ' if number > 1 else ''}{self._first[kind, name]})"
            if kind == "empty":
                what = f"{name} is empty in {count(number, 'row')}{first}, and missing in the prompt; fill it"
                yield f"{what}, or say what then holds: {{{{ {name} or '...' }}}}"
            else:
                what = f"{count(number, 'prompt')}{first} would be sent with the name of a value in braces; write"
                yield f"{what} {{{{ {name} }}}} in the prompt itself: cells and vars are no templates"

    def _count(self, what: tuple[str, str], where: str) -> None:
        self._found[what] += 1
        self._first.setdefault(what, where)


MAX_PROBLEMS = 100
_ALIKE = 3  # problems of one key: a column missing from every row does not hide other mistakes
_SINGLE = 30  # problems of one key that are each mended for itself: files, ids


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
        upstream: Upstream | None = None,
        jobs: Collection[str] | None = None,
        now: Callable[[], float] = time.time,
        promised: Place | None = None,
    ) -> None:
        """Prepare the tasks of `jobs`, None: of all; without `upstream`, jobs that wait for others have none.

        `promised`: a folder or bucket whose input images may be missing, because they are yet to be made; such tasks
        have no digest of them, so they are for looking at only.
        """
        self.count = 0
        self.incomplete: set[str] = set()
        self._manifest = manifest
        files = InputFiles(folder_of(manifest.path), digests, promised=promised)
        self._sources = Sources(manifest, upstream=upstream, now=now, files=files)
        self._jobs = [name for stage in manifest.stages for name in stage if jobs is None or name in jobs]
        self._globs = input_globs(manifest)
        self._outputs = OutputNames(manifest.output_dir, manifest.state_dir, self._globs)
        self._maker = TaskMaker(manifest, inputs=files, outputs=self._outputs)
        self._problems: list[Problem] = []
        self._alike: Counter[tuple[object, ...]] = Counter()
        self._unlisted = 0
        self._prompts = PromptNotes()
        self._left_out: list[str] = []  # the first of them
        self._left_out_count = 0

    @property
    def waiting(self) -> tuple[str, ...]:
        """Files left for a later run, because they may still be being written."""
        return tuple(self._sources.waiting)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the sources."""
        unlisted = self._left_out_count - len(self._left_out)
        more = [f"and {unlisted:,} more are left out"] if unlisted else []
        return (*self._sources.notes, *self._prompts.notes(), *self._left_out, *more)

    def __iter__(self) -> Iterator[Task]:
        self._manifest.budget.begin()
        try:
            with closing(TaskNames()) as names:
                yield from self._tasks(names)
                for problem in self._same_ids(names):
                    self._note(problem, problem.what)
                for problem in (*self._shared(names), *self._taken_deliveries()):
                    self._note(problem)
        except sqlite3.Error as error:
            raise StorageError(f"the scratch file for checking names failed: {error}; free space in $TMPDIR") from None
        if self._problems:
            more = [Problem(what=f"and {self._unlisted:,} more problems")] if self._unlisted else []
            raise InputError(*self._problems, *more)

    def _tasks(self, names: TaskNames) -> Iterator[Task]:
        for plan, row in self._rows():
            for task, key in self._row_tasks(plan, row):
                self.count += 1
                if self.count > MAX_TASKS:
                    what = f"the manifest makes more than {MAX_TASKS:,} tasks"
                    self._note(self._at_job(plan.name, what, "split it into several manifests"))
                    return
                self._prompts.look_at_prompt(task)
                names.add(task.id, key, row.line)
                for folder in images_in_the_way(key):
                    names.add_use("folder", folder, task.id)
                for image in () if row.is_upstream else task.images:
                    names.add_use("input", self._outputs.key_of(image.path), task.id)
                yield task

    def _rows(self) -> Iterator[tuple[JobPlan, SourceRow]]:
        for job in self._jobs:
            plan = self._manifest.jobs[job]
            for row in self._sources.rows(plan):
                if isinstance(row, Problem):
                    self._note(row)
                else:
                    self._prompts.look_at_row(plan.recipe.prompt, row)
                    yield plan, row

    def _row_tasks(self, plan: JobPlan, row: SourceRow) -> Iterator[tuple[Task, str]]:
        for combination in plan.combinations if plan.combinations is not None else (NO_COMBINATION,):
            try:
                yield from self._maker.tasks(plan, row, combination)
            except BadValue as first:
                name = "-".join(part for part in (row.key, combination.label) if part)
                bad = (first, *first.others)
                recipe = plan.recipe if plan.items is None else plan.items[row.key]
                if recipe.skip_broken and all(each.is_input for each in bad):
                    self.incomplete.add(plan.name)
                    self._left_out_count += 1
                    if len(self._left_out) < MAX_PROBLEMS:
                        self._left_out.append(f"{plan.name}/{name} is left out: {first.what}")
                    continue
                for each in bad:
                    self._note(self._located(plan, row, name[:120], each), each.what if each.is_input else "")

    def _located(self, plan: JobPlan, row: SourceRow, name: str, bad: BadValue) -> Problem:
        of = f"{plan.name}/{name}" + (f" ({row.place})" if row.place else "") if name != plan.name else ""
        if bad.origin is None or not bad.origin.path:
            return self._at_job(plan.name, f"{of}: {bad.what}" if of else bad.what, bad.instead)
        return self._manifest.problems.of_template(bad, of=of)

    def _at_job(self, job: str, what: str, instead: str) -> Problem:
        return self._manifest.problems.at(("jobs", job), what, instead, is_key=True)

    def _note(self, problem: Problem, subject: str = "") -> None:
        """Keep a problem without a key in it: the first 100, of one place the first 3, or 30 of different subjects."""
        for secret in self._manifest.secrets:
            if secret in problem.what or secret in problem.instead:
                what, instead = problem.what.replace(secret, "[key]"), problem.instead.replace(secret, "[key]")
                problem = replace(problem, what=what, instead=instead)
        place = (problem.file, problem.line, problem.column)
        kind, is_listed = (*place, subject), len(self._problems) < MAX_PROBLEMS and self._alike[place] < _SINGLE
        if is_listed and self._alike[kind] < _ALIKE:
            self._problems.append(problem)
            self._alike.update((place, kind))
        else:
            self._unlisted += 1

    def _taken_deliveries(self) -> Iterator[Problem]:
        for name, recipe in self._manifest.deliveries.items():
            if recipe.is_taken_by(self._globs):
                what = f"the inputs' own pattern takes what deliver.{name} writes, and would buy more of it each time"
                yield self._manifest.problems.at(("deliver", name, "to"), what, "name a folder outside of the inputs'")

    def _same_ids(self, names: TaskNames) -> Iterator[Problem]:
        for value, tasks, task_id, line, _, last_line in names.ask(_SHARED.format(column="id")):
            job = task_id.partition("/")[0]
            lines = [self._line_of(job, each) for each in (line, last_line) if each is not None]
            what = f"{tasks} rows of the job {job!r} have the id {value!r}" + f": {' and '.join(lines)}" * bool(lines)
            yield self._at_job(job, what, "give every row its own key, or write an `id:` that tells them apart")

    def _shared(self, names: TaskNames) -> Iterator[Problem]:
        for value, _, first, line, last, last_line in names.ask(_SHARED.format(column="name_key")):
            if first != last:
                what = f"{self._with_line(first, line)} and {self._with_line(last, last_line)}"
                instead = "put what tells them apart into `output:`"
                if posixpath.splitext(first)[0] == posixpath.splitext(last)[0]:
                    instead += ", such as {{ file.stem }}-{{ file.suffix[1:] }}: names are without suffix"
                yield self._at_job(last.partition("/")[0], f"{what} have one output name {value!r}", instead)
        for image, inside in names.ask(_FOLDERS_AS_IMAGES):
            what = f"{inside} lies in a folder that is called like the image of {image}"
            yield self._at_job(inside.partition("/")[0], what, "write another `output:`")
        for writer, reader in names.ask(_OUTPUTS_AS_INPUTS):
            what = f"{reader} reads the file that {writer} writes"
            yield self._at_job(writer.partition("/")[0], what, "use `each: {job: ...}`, or write another output")

    def _with_line(self, task_id: str, line: int | None) -> str:
        return task_id + ("" if line is None else f" ({self._line_of(task_id.partition('/')[0], line)})")

    def _line_of(self, job: str, line: int) -> str:
        return f"{self._sources.file_of(job) or job}:{line}"

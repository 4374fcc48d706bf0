"""The rows of a job, one by one: items, a table, a folder, another job's images.

Nothing is multiplied and nothing rendered here. A source that cannot be read is a Problem, and so is one without rows.
"""

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.buckets import BucketError, remedy
from pipeline.errors import Problem
from pipeline.manifest.globbing import Glob, compile_globs, matching, walk
from pipeline.manifest.inputs import InputFiles
from pipeline.manifest.jobs import JobPlan, texts_of_chain, upstream_of
from pipeline.manifest.loader import Manifest
from pipeline.manifest.location import (
    folder_of,
    secret_reason,
    split_bucket,
    with_rehearsal,
)
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sandbox import Names
from pipeline.manifest.schema import Each
from pipeline.manifest.tables import SourceRow, Table, Where, printable
from pipeline.model import BucketUrl, FormerReading, InputImage, Task, is_object

_TAKE_IT = "name the folder in a pattern to take it"
_SEND_IT = 'write images: ["{{ file.path }}"] to have them changed'


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamImage:
    """One done image of another job."""

    task: Task
    path: str  # absolute, or an address
    image: InputImage | None = None  # as it was looked at already


Upstream = Callable[[str], Iterable[UpstreamImage]]  # a job's name -> its done images, in a stable order


def input_globs(manifest: Manifest) -> list[Glob]:
    """Return which files every job takes, for what is written to keep clear of."""
    found = []
    for plan in manifest.jobs.values():
        if plan.each is not None and plan.each.files is not None:
            with suppress(BadValue):  # reported when the job's rows are asked for
                glob = _glob(str(folder_of(manifest.path)), plan.each)
                found.append(glob if glob.bucket else replace(glob, base=os.path.realpath(glob.base)))
    return found


def _glob(folder: str, each: Each) -> Glob:
    """Return which files a job takes. Raises BadValue."""
    files, ignore = each.files or (), each.ignore or ()
    return compile_globs(files, folder, is_folder=os.path.isdir, ignore=ignore, hidden=each.hidden)


class Sources:
    """Reads the rows of one manifest's jobs.

    `waiting` holds files that were too young, relative to the manifest; `notes` what a person should know.
    """

    def __init__(
        self, manifest: Manifest, *, upstream: Upstream | None, now: Callable[[], float], files: InputFiles
    ) -> None:
        self.waiting: list[str] = []
        self.notes: list[str] = []
        self._manifest = manifest
        self._folder = folder_of(manifest.path)
        self._upstream = upstream
        self._now = now
        self._inputs = files
        self._made = ""  # the last folder that was left out, because some manifest made what it holds

    def rows(self, plan: JobPlan) -> Iterator[SourceRow | Problem]:
        """Yield the rows of one job, and what is wrong between them."""
        if plan.items is not None:
            for key in plan.items:
                yield SourceRow(key)
        elif plan.each is None:
            yield SourceRow("" if plan.combinations is not None else plan.name)
        else:
            yield from self._each(plan, plan.each)

    def file_of(self, job: str) -> str | None:
        """Return the table a job's rows come from; None when they come from elsewhere."""
        each = self._manifest.jobs[job].each
        return None if each is None or each.kind in ("files", "job") else str(self._table_path(each))

    def _table_path(self, each: Each) -> Path:
        path: Path = self._manifest.path.parent / getattr(each, each.kind)
        return path

    def _each(self, plan: JobPlan, each: Each) -> Iterator[SourceRow | Problem]:
        if each.kind in ("files", "job") and not plan.recipe.images:
            self._note(f"the job {plan.name!r} goes through images and sends none: {_SEND_IT}")
        if each.job is not None:
            yield from self._images(each, each.job)
            return
        table = None if each.files is not None else Table(self._table_path(each), each, plan.recipe.id is None)
        is_empty = True
        for row in self._files(plan, each) if table is None else self._rows(plan, table):
            is_empty = False
            yield row
        if is_empty and not each.allow_empty:
            yield self._no_rows(plan, each, "" if table is None else table.where.seen())

    def _rows(self, plan: JobPlan, table: Table) -> Iterator[SourceRow | Problem]:
        """Yield the rows of a table; what is wrong with it as a whole is reported where the manifest names it."""
        for row in table.rows(self._note):
            if isinstance(row, Problem) and row.line is None:
                kind = table.each.kind
                yield self._problem(plan, kind, f"{getattr(table.each, kind)!r} {row.what}", row.instead)
            else:
                yield row

    def _note(self, text: str) -> None:
        if text not in self.notes:  # a table may serve several jobs
            self.notes.append(text)

    def _no_rows(self, plan: JobPlan, each: Each, seen: str) -> Problem:
        """Say why there is no row. seen: what the columns that `where` asks for hold."""
        what, instead = "the table has no rows" + " that fit `where`" * bool(each.where), "check it"
        if seen:
            instead = f"{seen}; write one of these"
        if each.files is not None:
            folders = (each for each in each.files if os.path.isdir(posixpath.join(self._folder, each)))  # noqa: PTH112
            bare = next((pattern.rstrip("/") for pattern in folders), None)
            what = "no file matches"
            if bare is not None:
                instead = f"{bare} is a folder, write {bare}/**/*.{{jpg,jpeg,png,webp}}"
            elif self._made:
                instead = f"{self._made} holds what imgpipe made: {_TAKE_IT}"
            elif any("[" in pattern for pattern in each.files):
                instead = "check it ([ab] is one of these characters; a name that holds [ is written [[])"
        return self._problem(plan, each.kind, what, f"{instead}, or write `allow_empty: true`")

    def _problem(self, plan: JobPlan, key: str, what: str, instead: str) -> Problem:
        return self._manifest.problems.at(("jobs", plan.name, "each", key), what, instead)

    def _files(self, plan: JobPlan, each: Each) -> Iterator[SourceRow | Problem]:
        """Yield a row for every file or object that matches; young ones are noted in `waiting`."""
        try:
            glob = _glob(str(self._folder), each)
        except BadValue as bad:
            yield self._problem(plan, "files", bad.what, "write a pattern such as photos/**/*.{jpg,png}")
            return
        folder = str(self._folder)
        bucket, below = ("", "") if each.root is None else split_bucket(each.root)
        root = glob.base if each.root is None else posixpath.normpath(posixpath.join(folder, below))
        if (each.root is not None and bucket != glob.bucket) or posixpath.commonpath([root, glob.base]) != root:
            what = f"root {each.root!r} does not hold the files of the pattern"
            there = glob.bucket + glob.base if glob.bucket else posixpath.relpath(glob.base, folder)
            yield self._problem(plan, "root", what, f"write {there!r} or a folder above it")
            return
        inside = "" if glob.base == root else f"{posixpath.relpath(glob.base, root)}/"
        for name in self._objects(plan, glob) if glob.bucket else self._walk(plan, each, glob):
            if isinstance(name, Problem):
                yield name
                continue
            location = glob.location_of(name)
            path = location if glob.bucket else posixpath.normpath(f"{glob.written_base}/{name}")
            if each.min_age is not None and self._is_young(location, each.min_age):
                self.waiting.append(path)
            else:
                yield SourceRow(printable(inside + name), file=_names_of(path, inside + name), place=printable(path))

    def _walk(self, plan: JobPlan, each: Each, glob: Glob) -> Iterator[str | Problem]:
        refused, self._made = secret_reason(f"{glob.base}/x"), ""
        if refused is not None:
            yield self._problem(plan, "files", f"the folder is refused: {refused}", "name a folder of images")
        elif os.path.isdir(glob.base):  # noqa: PTH112 - a string, like every path of the walk
            places = (self._manifest.output_dir, self._manifest.state_dir)
            own = [each for place in places if isinstance(place, Path) for each in with_rehearsal(place)]
            yield from walk(glob, own, lambda path: self._leave_out(posixpath.join(glob.written_base, path)))
        elif os.path.lexists(glob.base) or not each.allow_empty:
            what = f"there is no folder {posixpath.relpath(glob.base, str(self._folder))!r}"
            yield self._problem(plan, "files", what, "patterns are relative to the manifest")

    def _leave_out(self, folder: str) -> None:
        self._made = posixpath.normpath(folder)
        self._note(f"{self._made} holds what imgpipe made, and is left out; {_TAKE_IT}")

    def _objects(self, plan: JobPlan, glob: Glob) -> Iterator[str | Problem]:
        """Yield the objects that match. Raises StorageError: the bucket cannot be reached."""
        listed = self._inputs.objects.list((glob.bucket + glob.base).rstrip("/"))
        own, base = str(self._manifest.output_dir), glob.location_of("")
        own_below = own.removeprefix(base) if own.startswith(base) else None  # else the base may lie in our outputs
        try:
            yield from matching(glob, ((found.path, found.size_bytes) for found in listed), own_below)
        except BucketError as error:
            if not error.is_permanent:
                raise
            yield self._problem(plan, "files", str(error), remedy(BucketUrl.of(glob.bucket)))

    def _is_young(self, location: str, min_age_s: float) -> bool:
        if is_object(location):
            found = self._inputs.objects.look(location)
            return found is not None and self._now() - found.written_at.timestamp() < min_age_s
        try:
            return self._now() - os.stat(location).st_mtime < min_age_s  # noqa: PTH116 - as above
        except OSError:
            return False  # reported when the image is looked at

    def _images(self, each: Each, job: str) -> Iterator[SourceRow]:
        """Yield a row for every done image of another job; none without `upstream`."""
        if self._upstream is None:
            return
        plans = [self._manifest.jobs[name] for name in (job, *upstream_of(job, self._manifest.upstream))]
        chosen = [plan.combinations for plan in reversed(plans) if plan.combinations is not None]
        where = Where(each.where or {})
        for image in self._upstream(job):
            task = image.task
            inside = image.path[len(str(self._manifest.output_dir)) :].lstrip("/")
            path = image.path if is_object(image.path) else os.path.relpath(image.path, self._folder)
            if image.image is not None:
                self._inputs.learn(path, image.image)
            data = _row_of_image(task, task)
            if where.fits(data):
                row = SourceRow(
                    key=task.id.partition("/")[2].replace("@", "-"),
                    data=data,
                    file=_names_of(path, inside),
                    place=printable(path),
                    is_upstream=True,
                    matrix=task.matrix,
                    texts=texts_of_chain(chosen, task.matrix),
                )
                if (earlier := task.former) is not None:
                    key = row.key.replace(task.row, earlier.row, 1)
                    row.former = replace(row, key=key, data=_row_of_image(task, earlier))
                yield row


def _row_of_image(task: Task, reading: Task | FormerReading) -> Names:
    """Return `row` of a template for the image of another job's task, by its cells as they are or were read."""
    return Names("row", {**reading.fields, **task.matrix, "id": reading.row})


def _names_of(path: str, inside: str) -> Names:
    """Return `file` of a template. path: relative to the manifest or an address, as it opens; inside: to `root`."""
    folder, _, name = inside.rpartition("/")
    stem, suffix = posixpath.splitext(name)
    return Names("file", {"path": path, "dir": folder, "stem": stem, "name": name, "suffix": suffix})

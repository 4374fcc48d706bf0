"""The rows of a job, one by one: items, a table, a folder, or another job's images.

Nothing is multiplied and nothing rendered here. A source that cannot be read is a Problem, and so is one without rows.
"""

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.buckets import BucketError, remedy
from pipeline.errors import Problem
from pipeline.manifest import tables
from pipeline.manifest.fields import MatrixValue
from pipeline.manifest.globbing import (
    Glob,
    Wanted,
    compile_globs,
    compile_ignores,
    matching,
    own_directories,
    walk,
)
from pipeline.manifest.inputs import InputFiles
from pipeline.manifest.jobs import Combinations, JobPlan, upstream_of
from pipeline.manifest.loader import Manifest
from pipeline.manifest.location import folder_of, secret_reason, split_bucket
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sandbox import Names
from pipeline.manifest.schema import Each
from pipeline.manifest.tables import SourceRow, fields_of, printable
from pipeline.model import BucketUrl, InputImage, is_object
from pipeline.text import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamImage:
    """One done image of another job."""

    task_id: str
    row: str
    path: str  # absolute, or an address
    matrix: Mapping[str, str]
    fields: Mapping[str, str]
    image: InputImage | None = None  # as it was looked at already


Upstream = Callable[[str], Iterable[UpstreamImage]]  # a job's name -> its done images, in a stable order


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
        self._input_files = files

    def rows(self, plan: JobPlan) -> Iterator[SourceRow | Problem]:
        """Yield the rows of one job, and what is wrong between them."""
        if plan.items is not None:
            for key in plan.items:
                yield SourceRow(key)
        elif plan.each is None:
            yield SourceRow("" if plan.combinations is not None else plan.name)
        else:
            yield from self._each(plan, plan.each)

    def inputs(self) -> list[Wanted]:
        """Return which files every job takes, for outputs to keep clear of."""
        found = []
        for plan in self._manifest.jobs.values():
            if plan.each is not None and plan.each.files is not None:
                with suppress(BadValue):  # reported when the job's rows are asked for
                    wanted = self._wanted(plan.each)
                    base = wanted.glob.base
                    glob = replace(wanted.glob, base=base if wanted.glob.bucket else os.path.realpath(base))
                    found.append(replace(wanted, glob=glob))
        return found

    def _wanted(self, each: Each) -> Wanted:
        """Return which files a job takes. Raises BadValue."""
        folder = str(self._folder)
        glob = compile_globs(each.files or (), folder, is_folder=os.path.isdir)
        is_absolute = glob.bucket or all(pattern.startswith("/") for pattern in each.files or ())
        own = own_directories(
            os.path.realpath(glob.base),
            [str(each) for each in (self._manifest.output_dir, self._manifest.state_dir) if isinstance(each, Path)],
        )
        return Wanted(
            glob=glob,
            ignore=compile_ignores(each.ignore or ()),
            hidden=each.hidden,
            written_base=glob.base.lstrip("/" if glob.bucket else "")
            if is_absolute
            else posixpath.relpath(glob.base, folder),
            own=frozenset() if glob.bucket else own,
        )

    def file_of(self, job: str) -> str | None:
        """Return the table a job's rows come from; None when they come from elsewhere."""
        each = self._manifest.jobs[job].each
        if each is None or each.kind in ("files", "job"):
            return None
        return str(self._manifest.path.parent / getattr(each, each.kind))

    def _each(self, plan: JobPlan, each: Each) -> Iterator[SourceRow | Problem]:
        where: tables.Where | None = None
        match each.kind:
            case "files":
                rows: Iterator[SourceRow | Problem] = self._files(plan, each)
            case "job":
                yield from self._images(each)
                return
            case kind:
                where = tables.Where(each.where or {})
                rows = (self._at_key(plan, kind, row) for row in self._table(plan, each, kind, where))
        is_empty = True
        for row in rows:
            is_empty = False
            yield row
        if is_empty and not each.allow_empty:
            yield self._no_rows(plan, each, where)

    def _table(self, plan: JobPlan, each: Each, kind: str, where: tables.Where) -> Iterator[SourceRow | Problem]:
        table = tables.Table(
            path=self._manifest.path.parent / getattr(each, kind),
            kind=kind,
            key=each.key,
            needs_key=plan.recipe.id is None,
            delimiter=each.delimiter,
            encoding=each.encoding,
            sheet=each.sheet,
            where=where,
        )
        return tables.table_rows(table, note=self._note)

    def _note(self, text: str) -> None:
        if text not in self.notes:  # a table may serve several jobs
            self.notes.append(text)

    def _no_rows(self, plan: JobPlan, each: Each, where: tables.Where | None) -> Problem:
        what, instead = "the table has no rows" + " that fit `where`" * bool(each.where), "check it"
        if where is not None and where.seen():
            instead = f"{where.seen()}; write one of these"
        if each.files is not None:
            bare = next((pattern.rstrip("/") for pattern in each.files if self._is_folder(pattern)), None)
            what = "no file matches"
            if bare is not None:
                instead = f"{bare} is a folder, write {bare}/**/*.{{jpg,jpeg,png,webp}}"
            elif any("[" in pattern for pattern in each.files):
                instead = "check it ([ab] is one of these characters; a name that holds [ is written [[])"
        return self._problem(plan, each.kind, what, f"{instead}, or write `allow_empty: true`")

    def _is_folder(self, pattern: str) -> bool:
        return os.path.isdir(posixpath.join(str(self._folder), pattern))  # noqa: PTH112 - False for whatever is no path

    def _problem(self, plan: JobPlan, key: str, what: str, instead: str) -> Problem:
        return self._manifest.problems.at(("jobs", plan.name, "each", key), what, instead)

    def _at_key(self, plan: JobPlan, kind: str, row: SourceRow | Problem) -> SourceRow | Problem:
        """Return a row as it is; what is wrong with a table as a whole is reported where the manifest names it."""
        if isinstance(row, SourceRow) or row.line is not None:
            return row
        return self._problem(plan, kind, f"{getattr(plan.each, kind)!r} {row.what}", row.instead)

    def _files(self, plan: JobPlan, each: Each) -> Iterator[SourceRow | Problem]:
        folder = str(self._folder)
        try:
            wanted = self._wanted(each)
        except BadValue as error:
            yield self._problem(plan, "files", str(error), "write a pattern such as photos/**/*.{jpg,png}")
            return
        glob, base = wanted.glob, wanted.written_base
        bucket, below = ("", "") if each.root is None else split_bucket(each.root)
        root = glob.base if each.root is None else posixpath.normpath(posixpath.join(folder, below))
        if (each.root is not None and bucket != glob.bucket) or posixpath.commonpath([root, glob.base]) != root:
            what = f"root {each.root!r} does not hold the files of the pattern"
            there = glob.bucket + glob.base if glob.bucket else posixpath.relpath(glob.base, folder)
            yield self._problem(plan, "root", what, f"write {there!r} or a folder above it")
            return
        inside = posixpath.relpath(glob.base, root)
        inside = "" if inside == "." else f"{inside}/"
        if glob.bucket:
            yield from self._in_bucket(plan, each, wanted, inside)
            return
        refused = secret_reason(f"{glob.base}/x")
        if refused is not None:
            yield self._problem(plan, "files", f"the folder is refused: {refused}", "name a folder of images")
            return
        if not os.path.isdir(glob.base):  # noqa: PTH112 - a string, like every path of the walk
            if each.allow_empty and not os.path.lexists(glob.base):
                return
            what = f"there is no folder {posixpath.relpath(glob.base, folder)!r}"
            yield self._problem(plan, "files", what, _nearest_folder(glob.base))
            return
        for found in walk(wanted):
            if isinstance(found, Problem):
                yield found
            elif each.min_age is not None and self._is_young(f"{glob.base}/{found}", each.min_age):
                self.waiting.append(posixpath.normpath(f"{base}/{found}"))
            else:
                yield _file_row(posixpath.normpath(f"{base}/{found}"), inside + found)

    def _in_bucket(self, plan: JobPlan, each: Each, wanted: Wanted, inside: str) -> Iterator[SourceRow | Problem]:
        """Yield a row for every object that matches. Raises StorageError: the bucket cannot be reached."""
        glob = wanted.glob
        listed = self._input_files.objects.list((glob.bucket + glob.base).rstrip("/"))
        try:
            for name in matching(wanted, ((found.path, found.size_bytes) for found in listed), self._own_in(glob)):
                location = glob.location_of(name)
                if each.min_age is not None and self._is_young(location, each.min_age):
                    self.waiting.append(location)
                else:
                    yield _file_row(location, inside + name)
        except BucketError as error:
            if not error.is_permanent:
                raise
            yield self._problem(plan, "files", str(error), remedy(BucketUrl.of(glob.bucket)))

    def _own_in(self, glob: Glob) -> str | None:
        """Return where our outputs lie below the base of a pattern; None: elsewhere, or the base lies in them."""
        place = self._manifest.output_dir
        if not isinstance(place, BucketUrl) or not str(place).startswith(glob.location_of("")):
            return None
        return str(place)[len(glob.location_of("")) :]

    def _is_young(self, path: str, min_age_s: float) -> bool:
        if is_object(path):
            found = self._input_files.objects.look(path)
            return found is not None and self._now() - found.written_at.timestamp() < min_age_s
        try:
            return self._now() - os.stat(path).st_mtime < min_age_s  # noqa: PTH116 - as above
        except OSError:
            return False  # reported when the image is looked at

    def _images(self, each: Each) -> Iterator[SourceRow]:
        """Yield a row for every done image of another job; none while nobody knows them."""
        if self._upstream is None or each.job is None:
            return
        plans = [self._manifest.jobs[job] for job in (each.job, *upstream_of(each.job, self._manifest.upstream))]
        chosen = [plan.combinations for plan in reversed(plans) if plan.combinations is not None]
        for image in self._upstream(each.job):
            inside = image.path[len(str(self._manifest.output_dir)) :].lstrip("/")
            path = image.path if is_object(image.path) else os.path.relpath(image.path, self._folder)
            if image.image is not None:
                self._input_files.learn(path, image.image)
            values = {**image.fields, **image.matrix, "id": image.row}
            if each.where and any(str(values.get(key, "")) not in wanted for key, wanted in each.where.items()):
                continue
            row = _file_row(path, inside)
            row.key = image.task_id.partition("/")[2].replace("@", "-")
            row.data = Names("row", values)
            row.fields = fields_of(row.data)
            row.is_upstream = True
            row.matrix = dict(image.matrix)
            row.texts = _texts(chosen, row.matrix)
            yield row


def _texts(chosen: Sequence[Combinations], names: Mapping[str, str]) -> dict[str, str]:
    """Return what an image's matrix stands for in prompts; of the matrices it was `chosen` by, the last knows best."""
    texts: dict[str, str] = {key: MatrixValue(name, name) for key, name in names.items()}
    for combinations in chosen:
        texts |= combinations.texts_of({key: name for key, name in names.items() if key in combinations.axes})
    return texts


def _nearest_folder(path: str) -> str:
    """Say which folder beside a missing one may be meant."""
    above, _, name = path.rpartition("/")
    folders: list[str] = []
    with suppress(OSError), os.scandir(above or "/") as entries:
        folders = [entry.name for entry in entries if entry.is_dir()]
    same = [folder for folder in folders if folder.lower() == name.lower()]
    return did_you_mean(name, same or folders, "patterns are relative to the manifest", cutoff=0.0 if same else 0.6)


def _file_row(path: str, inside: str) -> SourceRow:
    """Return the row of one file. path: relative to the manifest or an address, as it opens; inside: to `root`."""
    folder, _, name = inside.rpartition("/")
    stem, suffix = posixpath.splitext(name)
    names = Names("file", {"path": path, "dir": folder, "stem": stem, "name": name, "suffix": suffix})
    fields = {key: value if value.isprintable() else printable(value) for key, value in names.items()}
    return SourceRow(printable(inside), None, names, fields["path"], None, False, fields)

"""The rows of a job, one by one (items, a table, a folder, another job's images), and the input images they name.

Nothing is multiplied and nothing rendered here. A source that cannot be read is a Problem, and so is one without rows.
Images are hashed, not decoded: whether the API takes the bytes is checked by the provider. Known digests are passed in,
so that what is unchanged is not read again. Objects are listed by the folder, not asked for one by one.
"""

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from unicodedata import normalize

from pipeline.buckets import BucketError, Locations, StoredObject, remedy
from pipeline.errors import Problem
from pipeline.manifest.globbing import Glob, compile_globs, matching, walk
from pipeline.manifest.jobs import JobPlan, texts_of_chain, upstream_of
from pipeline.manifest.loader import Manifest
from pipeline.manifest.location import (
    folder_of,
    input_trouble,
    kind_of,
    open_regular,
    reason,
    secret_reason,
    split_bucket,
    with_rehearsal,
)
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sandbox import Names
from pipeline.manifest.schema import Each
from pipeline.manifest.tables import SourceRow, Table, Where, printable
from pipeline.model import BucketUrl, FormerReading, InputImage, is_object

_TAKE_IT = "a pattern takes it that names the folder"
_REMEMBERED = 4096  # shared references are looked at once per expansion, not once per row
_SEND_IT = 'write images: ["{{ file.path }}"] to have them changed'
_LISTED = 100_000  # objects of which is remembered what a listing said: 35 MB
_FEW = 32  # objects of one folder that are asked for one by one; then the folder is listed

# PNG, JPEG, GIF, BMP, TIFF; HEIC and AVIF have `ftyp`, WebP its name further in.
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_FILMS = (b"qt ", b"mp4", b"M4V", b"iso", b"3gp")  # brands: telephones keep a film beside each photograph


def begins_as_image(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of an image, also of a kind that may be converted."""
    is_media = start[4:8] == b"ftyp" and start[8:11] not in _FILMS
    return start.startswith(_MAGIC) or is_media or start[8:12] == b"WEBP"


def read_digest(location: str, size_bytes: int, mtime_ns: int) -> str:  # noqa: ARG001 - others remember
    """Hash the bytes: the InputDigests without a cache. OSError, BucketError when they cannot be read."""
    if is_object(location):
        bucket, name = Locations().find(location)
        return bucket.sha256(name) or ""
    with open_regular(location) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# The hex SHA-256 of what stands at a location, which may be remembered by size in bytes and time (version).
# OSError, BucketError when it cannot be read.
InputDigests = Callable[[str, int, int], str]


class InputObjects:
    """What listings said of the objects that rows name."""

    def __init__(self) -> None:
        self._locations = Locations()
        self._seen: dict[str, StoredObject] = {}
        self._asked: Counter[str] = Counter()

    def list(self, folder: str) -> Iterator[StoredObject]:
        """Walk the objects below `s3://bucket/folder`, a page a request; paths are relative. Raises BucketError."""
        bucket, prefix = self._locations.find(folder)
        for each in bucket.below(prefix).listing():
            if len(self._seen) >= _LISTED:
                self._seen.clear()
            self._seen[f"{folder}/{each.path}"] = each
            yield each

    def look(self, address: str) -> StoredObject | None:
        """Return what stands at an address; None: nothing. Raises BucketError."""
        folder = address.rpartition("/")[0]
        if address not in self._seen:
            self._asked[folder] += 1
            if self._asked[folder] == _FEW:
                for _ in islice(self.list(folder), _LISTED):
                    pass
        if address not in self._seen:
            bucket, name = self._locations.find(address)
            found = bucket.look(name)
            if found is not None:
                self._seen[address] = found
        return self._seen.get(address)

    def start(self, address: str) -> bytes:
        """Return the first bytes of an object. Raises BucketError."""
        bucket, name = self._locations.find(address)
        return bucket.start(name)


class InputFiles:
    """Looks at the input images of one expansion; paths are relative to the manifest's folder."""

    def __init__(self, folder: Path, digests: InputDigests, *, promised: object | None = None) -> None:
        """`promised`: a folder or bucket whose images may be missing, because they are yet to be made."""
        self._folder = str(folder)
        self._digests = digests
        self.objects = InputObjects()
        self._promised = None if promised is None else f"{promised}/"
        self._known: dict[str, InputImage | BadValue] = {}
        self._is_image = lru_cache(_REMEMBERED)(self._begins_as_image)
        self._real_folder = lru_cache(_REMEMBERED)(os.path.realpath)
        self._names_in = lru_cache(8)(_names_in)

    def learn(self, rendered: str, image: InputImage | BadValue) -> None:
        """Remember an input image that was looked at, or what is wrong with it."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[rendered] = image

    def image(self, rendered: str) -> InputImage:
        """Return one input image. Raises BadValue, StorageError: a bucket cannot be reached."""
        if rendered not in self._known:
            try:
                self.learn(rendered, self._look(rendered))
            except BadValue as bad:
                self.learn(rendered, bad)
        known = self._known[rendered]
        if isinstance(known, BadValue):
            raise BadValue(known.what, known.instead)  # a new one: each template adds its own place
        return known

    def check_header(self, rendered: str, image: InputImage) -> None:
        """Pass when a file begins as an image does. Raises BadValue. What is yet to be made passes."""
        try:
            is_image = not image.sha256 or self._is_image(image.path)
        except OSError as error:
            raise _bad(rendered, f"cannot be read: {reason(error)}", "fix it") from None
        if not is_image:
            raise _bad(rendered, "is no image", "name an image file")

    def _begins_as_image(self, location: str) -> bool:
        if is_object(location):
            start = self.objects.start(location)
        else:
            with open_regular(location) as stream:
                start = stream.read(12)
        return begins_as_image(start)

    def _look(self, rendered: str) -> InputImage:
        if not rendered.strip():
            raise BadValue(
                "the path of an input image is empty", "fill the cell, or leave such rows out: skip_broken: true"
            )
        if is_object(rendered):
            return self._look_at_object(rendered)
        if "://" in rendered or rendered.startswith("data:"):
            instead = "download it first; of buckets s3://, gs:// and az:// are read"
            raise _bad(rendered, "is an address, not a file", instead)
        if rendered.startswith("~") or "\0" in rendered:
            raise _bad(rendered, "cannot be opened", "write its path, relative to the manifest")
        path = self._path_of(rendered)
        refused = secret_reason(path, real_folder=self._real_folder)
        if refused is not None:
            raise _bad(rendered, f"is refused: {refused}", "name an image file")
        try:
            status = os.stat(path)  # noqa: PTH116 - as above
            kind = kind_of(status.st_mode) or ("empty (0 bytes)" if status.st_size == 0 else None)
            digest = "" if kind is not None else self._digests(path, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            if self._promised is not None and path.startswith(self._promised):
                return InputImage(path=path, sha256="", size_bytes=0, mtime_ns=0)
            if os.path.islink(path):  # noqa: PTH114 - as above
                raise _bad(rendered, "is a symlink to nothing", "remove it, or bring back what it leads to") from None
            raise _bad(rendered, "is missing", self._nearest(path)) from None
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise _bad(rendered, f"cannot be read: {why}", "fix it or its permissions") from None
        if kind is not None:
            instead = "fix or remove the file" if kind.startswith("empty") else "name an image file"
            raise _bad(rendered, f"is {kind}", instead)
        return InputImage(path=path, sha256=digest, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)

    def _path_of(self, rendered: str) -> str:
        """Return where a file is, in the Unicode form it has there: tables are typed in NFC, Macs pack names in NFD."""
        forms = [rendered] if rendered.isascii() else [rendered, normalize("NFC", rendered), normalize("NFD", rendered)]
        paths = [os.path.normpath(os.path.join(self._folder, form)) for form in forms]  # noqa: PTH118 - names that are not UTF-8 stay strings
        return next(filter(os.path.lexists, paths), paths[0])

    def _nearest(self, path: str) -> str:
        """Advise on a missing file: one of the same name but for case, suffix or the sign between folders."""
        folder, name = os.path.split(path.replace("\\", "/"))
        names = self._names_in(folder)
        found = names.get(name.casefold()) or names.get(posixpath.splitext(name)[0].casefold())
        if found is None:
            return "paths are relative to the manifest"
        return f"did you mean {_shown(os.path.relpath(os.path.join(folder, found), self._folder))}?"  # noqa: PTH118 - as above

    def _look_at_object(self, address: str) -> InputImage:
        trouble = input_trouble(address)
        if trouble is not None:
            raise BadValue(f"an input image {trouble[0]}", trouble[1])
        refused = secret_reason("/bucket/" + address.partition("://")[2], real_folder=str)
        if refused is not None:
            raise _bad(address, f"is refused: {refused}", "name an image file")
        if self._promised is not None and address.startswith(self._promised):
            return InputImage(path=address, sha256="", size_bytes=0, mtime_ns=0)
        try:
            found = self.objects.look(address)
            if found is None:
                raise _bad(address, "is missing", "check the address")
            if found.size_bytes == 0:
                raise _bad(address, "is empty (0 bytes)", "fix or remove it")
            digest = self._digests(address, found.size_bytes, found.version)
        except BucketError as error:
            if not error.is_permanent:
                raise
            raise _bad(address, f"cannot be read: {error}", "fix that") from None
        return InputImage(path=address, sha256=digest, size_bytes=found.size_bytes, mtime_ns=found.version)


def _names_in(folder: str) -> dict[str, str]:
    """Return the names in a folder by their small letters, with and without suffix; none if it is no folder."""
    found: dict[str, str] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, _LISTED):
            found[entry.name.casefold()] = entry.name
            found.setdefault(posixpath.splitext(entry.name)[0].casefold(), entry.name)
    return found


def _bad(path: str, what: str, instead: str) -> BadValue:
    return BadValue(f"input image {_shown(path)} {what}", instead)


def _shown(path: str) -> str:
    return repr(path[:200]) if path.isprintable() else ascii(path[:200])


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamImage:
    """One done image of another job."""

    task_id: str
    row: str
    path: str  # absolute, or an address
    matrix: Mapping[str, str]
    fields: Mapping[str, str]
    image: InputImage | None = None  # as it was looked at already
    former: FormerReading | None = None


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
            inside = image.path[len(str(self._manifest.output_dir)) :].lstrip("/")
            path = image.path if is_object(image.path) else os.path.relpath(image.path, self._folder)
            if image.image is not None:
                self._inputs.learn(path, image.image)
            data = Names("row", {**image.fields, **image.matrix, "id": image.row})
            former, earlier = image.former, None
            if former is not None:
                earlier = Names("row", {**former.fields, **image.matrix, "id": former.row})
            if where.fits(data) or (earlier is not None and where.fits(earlier)):
                row = SourceRow(
                    key=image.task_id.partition("/")[2].replace("@", "-"),
                    data=data,
                    file=_names_of(path, inside),
                    place=printable(path),
                    is_upstream=True,
                    matrix=dict(image.matrix),
                    texts=texts_of_chain(chosen, image.matrix),
                )
                if former is not None:
                    row.former = replace(row, key=row.key.replace(image.row, former.row, 1), data=earlier)
                yield row


def _names_of(path: str, inside: str) -> Names:
    """Return `file` of a template. path: relative to the manifest or an address, as it opens; inside: to `root`."""
    folder, _, name = inside.rpartition("/")
    stem, suffix = posixpath.splitext(name)
    return Names("file", {"path": path, "dir": folder, "stem": stem, "name": name, "suffix": suffix})

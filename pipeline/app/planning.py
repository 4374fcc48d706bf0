"""Makes a plan from manifest, ledger and files.

Chained jobs are also expanded as if every image of an earlier job were there, so that errors of a later job are
reported before the first one is paid for (P8): InputError with every problem of every job. Reads only.
"""

import errno
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from pipeline.app.consent import doubts, jobs_behind, prices_of
from pipeline.app.context import Flags, Setup
from pipeline.app.orphans import NEAR, Orphans, Renames, bought_beside, check_folder, check_name
from pipeline.buckets import Locations, as_input_error, open_bucket
from pipeline.errors import InputError, Problem
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import InputDigests, read_digest
from pipeline.manifest.loader import Manifest
from pipeline.manifest.location import open_regular
from pipeline.manifest.sources import UpstreamImage
from pipeline.manifest.tasks import digest
from pipeline.model import HEIC_TYPES, Artifact, BucketUrl, InputImage, Task, TaskState, is_object
from pipeline.plan.decide import Files, FileView, Objects
from pipeline.plan.plan import Plan, PlanRow, Spool, survey, tally
from pipeline.provider.catalogue import PriceList
from pipeline.store.files import FileComparison
from pipeline.store.reader import LedgerReader
from pipeline.text import count, money, nearest


def rehearsed(manifest: Manifest, *, jobs: Collection[str] | None = None) -> Iterator[Task]:
    """Yield the tasks of `jobs` (None: of all) as they will be once the images before them are made.

    Their names and prompts are final, their fingerprints are not. Raises InputError at the end.
    """
    yield from Expansion(
        manifest,
        digests=lambda _location, _size_bytes, _mtime_ns: "",
        upstream=lambda job: _promised(manifest, job),
        jobs=jobs,
        promised=manifest.output_dir,
    )


def _promised(manifest: Manifest, job: str) -> Iterator[UpstreamImage]:
    """Yield the images that `job` will make; what is wrong with it is reported where its own rows are read."""
    with suppress(InputError):
        for task in rehearsed(manifest, jobs=[job]):
            path = f"{manifest.output_dir}/{task.name}.png"  # which kind it will be does not matter
            yield UpstreamImage(task=task, path=path)


_COMPARED_IDS: Final = 5  # of those that do not exist: the nearest one of 20,000 takes a second
MOST_PIXELS_BYTES: Final = 64 << 20  # of an input file that is read whole to find its pixels
PRESENT: Final = frozenset({FileComparison.SAME, FileComparison.TOUCHED})


def reading(setup: Setup) -> LedgerReader:
    """Open the manifest's ledger for reading; a ledger that does not exist is empty."""
    manifest = setup.manifest
    return LedgerReader(manifest.state_dir, manifest=manifest.name, output_dir=manifest.output_dir)


class Cancelled(Exception):  # noqa: N818 - reads as what happened
    """Planning was stopped."""


@dataclass(slots=True, kw_only=True)
class Planned:
    """A plan and what came with it."""

    plan: Plan
    orphans: Counter[str] = field(default_factory=Counter)  # by job: tasks the manifest no longer has
    behind: tuple[str, ...] = ()  # jobs whose rows follow from images that this plan would make first
    warnings: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # such as an encoding that was guessed
    notes: list[str] = field(default_factory=list)  # what a person should know of the plan as a whole, `said` included


def _alike(plan: Plan, is_play_money: bool) -> Iterator[str]:
    number, price = plan.alike.tasks, plan.alike.known_price
    if number:
        verb = "asks" if number == 1 else "ask"
        pair = f" (such as {' and '.join(plan.alike_examples[0])})" if plan.alike_examples else ""
        paid = "at an unknown price" if price is None else f"{money(price, is_play_money)} in all"
        what = f"{count(number, 'task')} {verb} for the same image as another task{pair}"
        yield f"{what}: one purchase would serve, and each is paid for, {paid}; remove them, or use `variants`"


def _waiting(ended: Iterable[Expansion]) -> Iterator[str]:
    if number := sum(len(expansion.waiting) for expansion in ended):
        verb = "is" if number == 1 else "are"
        yield f"{count(number, 'input file')} {verb} younger than min_age, left for a later run"


class DigestMemory:
    """SHA-256 of input images: remembered by location, size and time (version); what differs is read, and once."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader
        self._locations = Locations()
        self._learned: dict[tuple[str, int, int], tuple[str, str]] = {}

    @property
    def learned(self) -> list[tuple[str, int, int, str, str]]:
        """What was not in the ledger: location, size, time, digest of the file, of its pixels."""
        return [(*file, *digests) for file, digests in self._learned.items()]

    def __call__(self, location: str, size_bytes: int, mtime_ns: int) -> str:
        known = self._known(location, size_bytes, mtime_ns)
        if known is None:
            known = self._learned[location, size_bytes, mtime_ns] = self._read(location, size_bytes)
        return known[0]

    def with_pixels(self, task: Task) -> Task:
        """Add what its input images are without their metadata, where that is known and they are sent without."""
        if not task.images or task.keep_metadata:
            return task
        known = [self._known(each.path, each.size_bytes, each.mtime_ns) for each in task.images]
        pixels = [each[1] for each in known if each is not None and each[1]]
        if len(pixels) < len(known):
            return task
        digests = msgspec.structs.replace(task.digests, pixels=digest(pixels))
        return msgspec.structs.replace(task, digests=digests)

    def _known(self, location: str, size_bytes: int, mtime_ns: int) -> tuple[str, str] | None:
        file = (location, size_bytes, mtime_ns)
        return self._learned.get(file) or self._reader.digest(*file)

    def _read(self, location: str, size_bytes: int) -> tuple[str, str]:
        """Hash a file, and what is left of it without its metadata; the latter is empty if unknown."""
        from pipeline.imaging.formats import BrokenImageError, sniff  # late: only manifests with images need it
        from pipeline.imaging.metadata import picture_bytes

        if size_bytes > MOST_PIXELS_BYTES:
            return read_digest(location, size_bytes, 0), ""
        data = self._locations.read(location)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, "it is gone", location)
        whole = hashlib.sha256(data).hexdigest()
        try:
            return whole, hashlib.sha256(picture_bytes(data, sniff(data)[0])).hexdigest()
        except (BrokenImageError, IndexError, ValueError):
            return whole, ""


def file_view(output_dir: Path | BucketUrl, reader: LedgerReader) -> FileView:
    """Return what looks into a folder, or into a listing of a bucket that is made now.

    Raises InputError: the bucket is not there or may not be listed. StorageError: it cannot be reached.
    """
    ledger_id = reader.ledger_id
    if isinstance(output_dir, Path):
        return Files(output_dir, ledger_id=ledger_id)
    bucket = open_bucket(output_dir)

    def is_ours(path: str) -> bool:
        found = bucket.look(path)
        return found is not None and found.facts is not None and found.facts.ledger == ledger_id

    with as_input_error(output_dir):
        return Objects(((each.path, each.size_bytes, each.version) for each in bucket.listing()), is_ours)


def plan_rows(
    setup: Setup,
    reader: LedgerReader,
    digests: DigestMemory | None = None,
    *,
    jobs: Collection[str] | None = None,
    on_end: Callable[[Expansion], None] = lambda _expansion: None,
    is_cancelled: threading.Event | None = None,
    has_renames: bool = True,
    files: FileView | None = None,
) -> Iterator[PlanRow]:
    """Stream every task beside what is known of it, whatever the selection. Raises InputError at the end.

    `files` None: the output directory as it is now.
    """
    manifest, memory = setup.manifest, digests or DigestMemory(reader)
    seen = files if files is not None else file_view(manifest.output_dir, reader)
    is_counted = has_renames and (jobs is None or manifest.stages[0][0] in jobs)  # later, a run shows its progress

    def tasks() -> Iterator[Task]:
        """Stream them as they would be sent."""
        expansion = Expansion(
            manifest, digests=memory, upstream=lambda job: upstream_of(setup, reader, memory, job, seen), jobs=jobs
        )
        for task in setup.flags.counted(expansion) if is_counted else expansion:
            _check_cancelled(is_cancelled)
            if added := setup.rules.redo.get(task.id):  # a person's words; the fingerprint stays that of the manifest
                task = msgspec.structs.replace(task, prompt=f"{task.prompt}\n\n{added}")
            yield memory.with_pixels(task)
        on_end(expansion)

    def present() -> Iterator[PlanRow]:
        return plan_rows(setup, reader, memory, is_cancelled=is_cancelled, has_renames=False, files=seen)

    former = Renames(manifest, reader, present) if has_renames else lambda _task: None
    return survey(tasks(), reader, seen, setup.rules, former=former)


def selected_rows(setup: Setup, reader: LedgerReader, *, files: FileView | None = None) -> Iterator[PlanRow]:
    """Stream the selected tasks beside what is known of them."""
    return setup.flags.selection.apply(plan_rows(setup, reader, files=files))


def done_images(setup: Setup, reader: LedgerReader) -> Iterator[tuple[PlanRow, Artifact, FileComparison]]:
    """Stream the selected tasks that have an image, and how its file compares with the record."""
    files = file_view(setup.manifest.output_dir, reader)
    for row in selected_rows(setup, reader, files=files):
        if row.known is not None and row.known.artifact is not None and row.known.state is TaskState.DONE:
            yield row, row.known.artifact, files.compare(row.known.artifact)


def _check_cancelled(is_cancelled: threading.Event | None) -> None:
    if is_cancelled is not None and is_cancelled.is_set():
        raise Cancelled


def make_plan(
    setup: Setup,
    reader: LedgerReader,
    *,
    jobs: Collection[str] | None = None,
    digests: DigestMemory | None = None,
    spool: Spool | None = None,
    free: Spool | None = None,
    is_cancelled: threading.Event | None = None,
    files: FileView | None = None,
) -> Planned:
    """Plan the selected tasks of `jobs` (None: of all). Raises InputError for a bad manifest, input or name.

    `digests`: what is hashed is added to it. `files` None: the output directory as it is now.
    """
    is_first = jobs is None or setup.manifest.stages[0][0] in jobs
    if is_first and len(setup.manifest.stages) > 1:
        _check_chain(setup, reader, is_cancelled)
    orphans = Orphans(setup.manifest, reader)
    ended = orphans.ended
    stream = plan_rows(setup, reader, digests, jobs=jobs, on_end=ended.append, is_cancelled=is_cancelled, files=files)
    matched, headers = set[str](), _Headers()
    selected = setup.flags.selection.apply(orphans.watch(stream), matched=matched)
    rows, quote = headers.watch(selected), prices_of(setup, reader).quote
    plan = tally(rows, quote=quote, problem=setup.problem, spool=spool, free=free)
    if is_first:
        _check_ids(setup, reader, matched, orphans)
    check_name(setup, reader, orphans.asked)
    check_folder(setup, reader, orphans.asked)
    _check_plan(setup, plan)
    said = [text for expansion in ended for text in expansion.notes]
    if jobs is None and (unmatched := _unmatched_patterns(setup.flags, matched)) and plan.total:
        said = unmatched + said
    warnings = [*doubts(setup, reader), *setup.warnings(plan.models), *headers.warnings()] if plan.due else []
    warnings += bought_beside(setup, reader, orphans.asked)
    planned = Planned(plan=plan, behind=jobs_behind(setup, plan), warnings=warnings, said=said)
    if jobs is None:
        planned.orphans = orphans.counted()
        planned.notes += [] if plan.total else _unmatched(setup, [task_id for task_id, _ in orphans.asked])
    planned.notes += [*_alike(plan, setup.is_play_money), *_waiting(ended), *said]
    return planned


class _Headers:
    """Looks at the first bytes of the input files of due tasks: what cannot be sent is reported before a run."""

    def __init__(self) -> None:
        self._kind = lru_cache(1000)(_kind_of)
        self._has_decoder = find_spec("pillow_heif") is not None
        self._heic: dict[str, str] = {}  # digest -> name: those that the extra `heic` would have to read
        self._no_image: dict[str, str] = {}  # digest -> name and task

    def watch(self, rows: Iterable[PlanRow]) -> Iterator[PlanRow]:
        """Pass every row on."""
        for row in rows:
            if row.verdict.reason is not None:
                for image in row.task.images:
                    if not is_object(image.path):
                        self._look(row.task, image)
            yield row

    def _look(self, task: Task, image: InputImage) -> None:
        kind, name = self._kind(image.path), os.path.basename(image.path)  # noqa: PTH119 - names may not be UTF-8
        if kind is None:
            return
        if not kind.startswith("image/"):
            self._no_image.setdefault(image.sha256, f"{name} of {task.id}")
        elif not self._has_decoder and not task.keep_metadata and kind in HEIC_TYPES:
            self._heic.setdefault(image.sha256, name)

    def warnings(self) -> Iterator[str]:
        """Say what cannot be sent, and why."""
        if found := self._no_image:
            what = "is no image" if len(found) == 1 else "are no images"
            what = f"{count(len(found), 'input file')} (such as {next(iter(found.values()))}) {what}"
            yield f"{what}: nothing is sent and the task fails; fix it, or leave such rows out: `skip_broken: true`"
        if found := self._heic:
            verb = "needs" if len(found) == 1 else "need"
            what = f"{count(len(found), 'input image')} (such as {next(iter(found.values()))}) {verb} the HEIC decoder"
            yield f"{what}, which is not installed, and will stay pending: pip install 'imgpipe[heic]'"


def _kind_of(path: str) -> str | None:
    """Return the media type of a file by its first bytes; None: it cannot be read, and its task says why."""
    from pipeline.imaging.formats import SNIFFED_BYTES, sniff  # late: only manifests with images need it

    with suppress(OSError), open_regular(path) as file:
        return sniff(file.read(SNIFFED_BYTES))[0]
    return None


def _unmatched_patterns(flags: Flags, matched: Collection[str]) -> list[str]:
    """Say which patterns match no task today. Raises InputError where each of them has to."""
    patterns = {"--select": flags.selection.select, "--exclude": flags.selection.exclude}
    unmatched = [
        f"{flag} {each!r} matches no task" for flag, all_ in patterns.items() for each in all_ if each not in matched
    ]
    if unmatched and flags.is_strict_select:
        raise InputError(*(f"{text}; fix the pattern" for text in unmatched))
    return unmatched


def _check_ids(setup: Setup, reader: LedgerReader, matched: Collection[str], orphans: Orphans) -> None:
    """Refuse ids that neither manifest nor ledger has, in jobs of which every row was seen: they are misspelt."""
    seen = set(setup.manifest.stages[0]) - orphans.unsure
    wrong = [each for each in setup.flags.selection.ids_of(seen) if each not in matched and reader.known(each) is None]
    if wrong:
        ids, jobs = [task_id for task_id, _ in orphans.asked], [each for each in wrong if each in seen]
        found = [f"no task has the id {each!r}; did you mean job:{each}?" for each in jobs]
        others = enumerate(each for each in wrong if each not in seen)
        found += [no_task(each, ids if n < _COMPARED_IDS else (), setup.command) for n, each in others]
        raise InputError(*found)


def _unmatched(setup: Setup, ids: Sequence[str]) -> Iterator[str]:
    """Say that a selection selects nothing, with the nearest id where it names one."""
    selection = setup.flags.selection
    if not selection.is_everything and ids:
        yield f"nothing is selected; {nearest_id(selection.select, ids, setup.command)}"


def nearest_id(written: Iterable[str], ids: Sequence[str], command: str) -> str:
    """Say which id was meant by the first that resembles one, or what lists them."""
    near = next((found for each in written if (found := nearest(each, ids, cutoff=0.5, most=NEAR))), None)
    return f"did you mean {near}?" if near else f"`imgpipe status {command} --tasks` lists the ids"


def no_task(task_id: str, ids: Sequence[str], command: str) -> str:
    """Say that no task has an id, and which one was meant."""
    return f"no task has the id {task_id!r}; {nearest_id([task_id], ids, command)}"


def _check_chain(setup: Setup, reader: LedgerReader, is_cancelled: threading.Event | None) -> None:
    """Refuse a chain of jobs of which a later one cannot be asked for, before anything is bought.

    Models and prices are left to the plan where only some tasks were selected: those of the others do not matter.
    """
    found, prices, is_everything = Plan(), PriceList(setup.catalogue), setup.flags.selection.is_everything
    for task in setup.flags.counted(rehearsed(setup.manifest)):
        _check_cancelled(is_cancelled)
        known = reader.known(task.id) if is_everything else None
        if not is_everything or (known is not None and known.state is TaskState.DONE):
            continue
        wrong = setup.problem(task)
        if wrong is not None:
            found.add_problem(task, wrong)
        if prices.quote(task) is None:
            found.unpriced[task.model] += 1
    _check_plan(setup, found)


def _check_plan(setup: Setup, plan: Plan) -> None:
    """Refuse what a model cannot do, and a budget that cannot be kept: a ceiling needs a price."""
    if plan.problems:
        found = [setup.manifest.problem_of(text.partition("/")[0], text) for text in plan.problems]
        raise InputError(*found, *([f"and {plan.unlisted:,} more problems"] if plan.unlisted else []))
    budget = setup.limits.budget
    if plan.unpriced and (budget.run, budget.day, budget.month) != (None, None, None):
        known = ", ".join(setup.catalogue.introduce(datetime.now(UTC).date(), kind=setup.provider.vendor))
        raise InputError(
            *(
                Problem(
                    what=f"a budget is set, but the price of {model} is not known",
                    file=str(setup.manifest.path),
                    instead=f"write it under `prices:` ({model}: USD per image), or a model of which it is: {known}",
                )
                for model in plan.unpriced
            )
        )


def upstream_of(
    setup: Setup, reader: LedgerReader, digests: InputDigests, job: str, files: FileView
) -> Iterator[UpstreamImage]:
    """Yield the images of `job` that are done, for `each: {job: ...}`; one whose file is gone has no row until then.

    The manifest says which rows there are and what their cells hold, the ledger which of them have an image: a row that
    was taken out takes what follows from it along. What is wrong with `job` is reported where its own rows are read.
    """
    manifest = setup.manifest
    tasks = Expansion(
        manifest, digests=digests, upstream=lambda above: upstream_of(setup, reader, digests, above, files), jobs=[job]
    )
    with suppress(InputError):
        for row in survey(tasks, reader, files, setup.rules):
            if row.known is None or row.known.state is not TaskState.DONE or row.known.artifact is None:
                continue
            artifact = row.known.artifact
            standing = files.compare(artifact)
            if standing is FileComparison.MISSING:
                continue  # its own task is reported as missing, and `--repair` must be able to run
            path = manifest.location_of(artifact)
            image = None
            if is_object(path) and standing is FileComparison.SAME:  # it is not read to be hashed
                size_bytes, mtime_ns = artifact.size_bytes, artifact.mtime_ns
                image = InputImage(path=path, sha256=artifact.sha256, size_bytes=size_bytes, mtime_ns=mtime_ns)
            yield UpstreamImage(task=row.task, path=path, image=image)

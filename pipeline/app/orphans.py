"""Finds tasks that are in the ledger but no longer in the manifest: orphans, renamed tasks, a renamed manifest file.

Orphans are counted by job while the tasks stream past, so that memory stays flat: the ledger's count of a job, less the
stream's. A job whose rows are not all known yet (they follow from images that are not made, or from files that are
still too young or cannot be read) has no orphans that could be counted.

A task with a new id that asks for what an orphan has (a renamed folder, row or article number) takes its image over,
each orphan's once. Which ids the manifest has is only computed where such an image is found: a second expansion of the
manifest, 8 bytes a task.

Without `name:` the file's name is part of every task's identity, so a renamed file would buy everything again. It is
recognised by its fingerprints, and only while the ledger has nothing under the new name. So is a file that was moved to
another folder, from which its paths lead to other directories.
"""

import hashlib
import os
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.app.context import Setup
from pipeline.errors import ImgpipeError, InputError
from pipeline.manifest.expand import Expansion
from pipeline.manifest.loader import Manifest
from pipeline.manifest.location import folder_of
from pipeline.model import Known, Task, TaskState
from pipeline.plan.decide import as_formerly_read, changed_aspects
from pipeline.plan.plan import PlanRow
from pipeline.store.reader import LedgerReader

CANDIDATES: Final = 1000  # of one request; beyond, rows that ask for the same image are not distinguished
NEAR: Final = 20_000  # ids among which the nearest one is looked for: 0.3 s
COMPARED: Final = 500  # tasks
NEIGHBOURS: Final = 200  # directories beside this manifest's own, whose name follows from the manifest's


Asked = list[tuple[str, list[str]]]  # ids, each with the fingerprints by which a ledger may have its task


class Orphans:
    """Counts while a whole manifest streams through `watch`.

    `ended`: the expansions behind the stream, at its end. `asked`: what the manifest asks for first.
    """

    def __init__(self, manifest: Manifest, reader: LedgerReader) -> None:
        self._upstream = manifest.upstream
        self._patient = manifest.patient
        self._stages = manifest.stages
        self._left = reader.jobs()  # before the stream begins: a run that goes on meanwhile adds no orphans
        self._unmade: set[str] = set()
        self._has_renamed = False
        self.ended: list[Expansion] = []
        self.asked: Asked = []

    def watch(self, rows: Iterable[PlanRow]) -> Iterator[PlanRow]:
        """Pass every row on."""
        for row in rows:
            job = row.task.job
            if len(self.asked) < NEAR:
                self.asked.append((row.task.id, row.task.fingerprints + _with_former_defaults(row.task)))
            if row.known is not None:
                self._left[row.known.id.partition("/")[0]] -= 1
            verdict = row.verdict
            is_made = verdict.reason is None and verdict.state is TaskState.DONE and not verdict.is_missing
            if not is_made or verdict.former:  # a renamed task has its image, and what follows from it, after a run
                self._unmade.add(job)
            self._has_renamed |= bool(verdict.former)
            yield row

    def counted(self) -> Counter[str]:
        """Return the orphans of each job, when the stream has ended."""
        unsure = self.unsure
        return Counter({job: number for job, number in self._left.items() if number > 0 and job not in unsure})

    @property
    def unsure(self) -> set[str]:
        """The jobs that may have rows which the stream could not see, also under another name of the job."""
        is_waiting = not self.ended or any(each.waiting for each in self.ended)
        unseen = set(self._patient if is_waiting else ()).union(*(each.incomplete for each in self.ended))
        unseen.update(behind(self._upstream, self._unmade | unseen))
        return unseen | (self._left.keys() - set().union(*self._stages) if unseen and self._has_renamed else set())


def behind(upstream: Mapping[str, str], jobs: Collection[str]) -> Iterator[str]:
    """Yield the jobs that wait for one of `jobs`, directly or by way of others."""
    for name in upstream:
        source: str | None = upstream[name]
        while source is not None and source not in jobs:
            source = upstream.get(source)
        if source is not None:
            yield name


class Renames:
    """Finds, for tasks without an image, the orphans that have it. One planning, one thread."""

    def __init__(self, manifest: Manifest, reader: LedgerReader, rows: Callable[[], Iterable[PlanRow]]) -> None:
        """`rows` streams every task of the manifest."""
        self._manifest = manifest
        self._reader = reader
        self._rows = rows
        self._has_images = reader.has_images
        self._present: array[int] | None = None
        self._unsure: frozenset[str] = frozenset()
        self._given: set[int] = set()

    def __call__(self, task: Task) -> Known | None:
        """Return the orphan whose image `task` asks for; None: there is none. One with the same file name comes first.

        Several are given one by one, so that no image serves two tasks.
        """
        if not self._has_images:
            return None
        readings = [each for each in (task, as_formerly_read(task)) if each is not None]
        ids = [each for asked in readings for each in self._made_for(asked)][:CANDIDATES]
        free = [each for each in ids if _short(each) not in self._given and self._is_orphan(each)]
        known = self._reader.known_among(free)
        alike = [known[each] for each in free if each in known and not changed_aspects(task, known[each])]
        if not alike:
            return None
        chosen = min(
            alike, key=lambda each: each.artifact is None or not each.artifact.path.startswith(f"{task.name}.")
        )
        self._given.add(_short(chosen.id))
        return chosen

    def _made_for(self, task: Task) -> Iterator[str]:
        yield from self._reader.made_for(task)
        for other in _with_former_defaults(task):
            yield from self._of_former_defaults.get(other, ())

    @cached_property
    def _of_former_defaults(self) -> Mapping[str, list[str]]:
        found = defaultdict[str, list[str]](list)
        for task_id, digests in self._reader.made_by_former_defaults():
            found[digests].append(task_id)
        return found

    def _is_orphan(self, task_id: str) -> bool:
        """Say whether the manifest has no such task. False for a job whose rows cannot all be read now."""
        if self._present is None:
            self._present, self._unsure = self._walk()
        if task_id.partition("/")[0] in self._unsure:
            return False
        key = _short(task_id)
        at = bisect_left(self._present, key)
        return at == len(self._present) or self._present[at] != key

    def _walk(self) -> tuple["array[int]", frozenset[str]]:
        orphans = Orphans(self._manifest, self._reader)
        present = array("Q", sorted(_short(row.task.id) for row in orphans.watch(self._rows())))
        return present, frozenset(orphans.unsure)


def _with_former_defaults(task: Task) -> list[str]:
    """Return what tells the images of a retired default model that this request takes: every other digest."""
    digests = task.digests
    return [digests.prompt + digests.inputs + digests.params] if task.is_default_model else []


def _short(task_id: str) -> int:
    digest = hashlib.blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)


def check_name(setup: Setup, reader: LedgerReader, asked: Asked) -> None:
    """Raise InputError when another manifest, whose file is gone, asked for the same."""
    manifest = setup.manifest
    if manifest.is_named or not asked or reader.jobs():
        return
    twins = _twins(setup, reader, asked[:COMPARED])
    for name, number in twins.most_common():
        is_gone = not manifest.path.with_name(name + manifest.path.suffix).exists()
        if is_gone and 2 * number >= min(COMPARED, len(asked)):
            raise InputError(
                f"looks like {name!r}, renamed: it asks for the same images, and {name} has them",
                instead=f"write `name: {name}` to continue with them, or another `name:` to buy them again",
                file=manifest.path,
            )


def _twins(setup: Setup, reader: LedgerReader, asked: Asked) -> Counter[str]:
    """Count, by manifest, the tasks that are known with the same id and fingerprint."""
    twins = reader.twins(asked)
    output_dir = setup.manifest.output_dir
    for state_dir in _neighbours(output_dir) if isinstance(output_dir, Path) else ():
        twins.update(_known_in(state_dir, setup, asked))
    return twins


def _known_in(state_dir: Path, setup: Setup, asked: Asked) -> Counter[str]:
    try:
        with LedgerReader(state_dir, manifest="") as other:
            return other.twins(asked) if other.is_play_money == setup.is_play_money else Counter()
    except (ImgpipeError, OSError):  # what is wrong with another ledger is reported where that is used
        return Counter()


def _neighbours(output_dir: Path) -> Iterator[Path]:
    try:
        folders = sorted(islice(output_dir.parent.iterdir(), NEIGHBOURS))
    except OSError:
        return
    yield from (folder / ".pipeline" for folder in folders if folder != output_dir and folder.is_dir())


def check_folder(setup: Setup, reader: LedgerReader, asked: Asked) -> None:
    """Raise InputError when this manifest was moved to another folder without its images: as `check_name`."""
    manifest = setup.manifest
    if not asked or reader.jobs() or setup.flags.simulate or not isinstance(manifest.output_dir, Path):
        return
    here = folder_of(manifest.path)
    above = [folder for parent in (here, *here.parents) for folder in (parent, parent / "jobs")]
    if any(os.path.exists(folder / manifest.path.name) for folder in above if folder != here):  # noqa: PTH110 - below
        return  # a copy is another manifest
    for output_dir, state_dir in _earlier_places(manifest, here, above):
        if _has_most(state_dir, setup, asked):
            keys = f"`output_dir: {os.path.relpath(output_dir, here)}`"
            if state_dir != output_dir / ".pipeline":
                keys += f" and `state_dir: {os.path.relpath(state_dir, here)}`"
            raise InputError(
                f"looks like it was moved here: {output_dir} has the images that it asks for",
                instead=f"write {keys} to continue with them, or another `name:` to buy them again",
                file=manifest.path,
            )


def _has_most(state_dir: Path, setup: Setup, asked: Asked) -> bool:
    """Say whether another ledger has most of what this manifest asks for first, under its name."""
    known = _known_in(state_dir, setup, asked[:COMPARED])[setup.manifest.name]
    return known > 0 and 2 * known >= min(COMPARED, len(asked))


def bought_beside(setup: Setup, reader: LedgerReader, asked: Asked) -> Iterator[str]:
    """Say which folder beside the output directory has the images, as somebody renamed it or edited `output_dir`."""
    place = setup.manifest.output_dir
    if not asked or reader.jobs() or not isinstance(place, Path):
        return
    for state_dir in _neighbours(place):
        if _has_most(state_dir, setup, asked):
            what = f"{state_dir.parent} has the images of this manifest, and they are bought again for {place}"
            yield f"{what}; to continue with them, name one of the two folders like the other"


def _earlier_places(manifest: Manifest, here: Path, above: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the directories that the manifest would have in folders above its own: as written, and by default."""
    assert isinstance(manifest.output_dir, Path)
    written = [os.path.relpath(place, here) for place in (manifest.output_dir, manifest.state_dir)]
    for folder in above:
        for relative, state in (written, (f"outputs/{manifest.output_dir.name}", None)):
            output_dir = Path(os.path.realpath(folder / relative))
            state_dir = Path(os.path.realpath(folder / state)) if state is not None else output_dir / ".pipeline"
            if output_dir != manifest.output_dir and os.path.isdir(state_dir):  # noqa: PTH112 - False where it is closed
                yield output_dir, state_dir

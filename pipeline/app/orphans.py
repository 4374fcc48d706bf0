"""Counts tasks that are in the ledger but no longer in the manifest, and recognises a renamed manifest file.

Orphans are counted by job while the tasks stream past, so that memory stays flat: the ledger's count of a job, less the
stream's. A job whose rows are not all known yet (they follow from images that are not made, or from files that are
still too young) has no orphans that could be counted.

Without `name:` the file's name is part of every task's identity, so a renamed file would buy everything again. It is
recognised by its fingerprints, and only while the ledger has nothing under the new name.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.app.context import Setup
from pipeline.errors import ImgpipeError, InputError, Problem
from pipeline.manifest.loader import Manifest
from pipeline.model import TaskState
from pipeline.plan.plan import PlanRow
from pipeline.store.reader import LedgerReader


class Orphans:
    """Counts while a whole manifest streams through `watch`."""

    def __init__(self, manifest: Manifest, reader: LedgerReader) -> None:
        self._upstream = manifest.upstream
        self._patient = manifest.patient
        self._left = reader.jobs()  # before the stream begins: a run that goes on meanwhile adds no orphans
        self._unmade: set[str] = set()

    def watch(self, rows: Iterable[PlanRow]) -> Iterator[PlanRow]:
        """Pass every row on."""
        for row in rows:
            job = row.task.job
            if row.known is not None:
                self._left[row.known.id.partition("/")[0]] -= 1
            verdict = row.verdict
            if verdict.reason is not None or verdict.state is not TaskState.DONE or verdict.is_missing:
                self._unmade.add(job)
            yield row

    def counted(self, waiting: Collection[str]) -> Counter[str]:
        """Return the orphans of each job, when the stream has ended; `waiting` are the files that were too young."""
        unsure = self._unsure(set(self._patient) if waiting else set())
        return Counter({job: number for job, number in self._left.items() if number > 0 and job not in unsure})

    @property
    def unsure(self) -> set[str]:
        """The jobs that may have rows which the stream could not see."""
        return self._unsure(set(self._patient))

    def _unsure(self, waiting: set[str]) -> set[str]:
        return waiting | set(behind(self._upstream, self._unmade | waiting))


def behind(upstream: Mapping[str, str], jobs: Collection[str]) -> Iterator[str]:
    """Yield the jobs that wait for one of `jobs`, directly or by way of others."""
    for name in upstream:
        source: str | None = upstream[name]
        while source is not None and source not in jobs:
            source = upstream.get(source)
        if source is not None:
            yield name


COMPARED: Final = 500  # tasks
NEIGHBOURS: Final = 200  # directories beside this manifest's own, whose name follows from the manifest's


def check_name(setup: Setup, reader: LedgerReader, asked: Sequence[tuple[str, str]]) -> None:
    """Raise InputError when another manifest, whose file is gone, asked for the same: `asked` is id and fingerprint."""
    manifest = setup.manifest
    if manifest.is_named or not asked or reader.jobs():
        return
    twins = _twins(setup, reader, asked[:COMPARED])
    for name, number in twins.most_common():
        is_gone = not manifest.path.with_name(name + manifest.path.suffix).exists()
        if is_gone and 2 * number >= min(COMPARED, len(asked)):
            raise InputError(
                Problem(
                    file=str(manifest.path),
                    what=f"looks like {name!r}, renamed: it asks for the same images, and {name} has them",
                    instead=f"write `name: {name}` to go on with them, or another `name:` to buy them anew",
                )
            )


def _twins(setup: Setup, reader: LedgerReader, asked: Sequence[tuple[str, str]]) -> Counter[str]:
    """Count, by manifest, the tasks that are known with the same id and fingerprint."""
    twins = reader.twins(asked)
    output_dir = setup.manifest.output_dir
    for state_dir in _neighbours(output_dir) if isinstance(output_dir, Path) else ():
        try:
            with LedgerReader(state_dir, manifest=setup.manifest.name) as other:
                if other.is_play_money == setup.is_play_money:
                    twins.update(other.twins(asked))
        except ImgpipeError:  # what is wrong with another manifest's ledger is told where that is run
            continue
    return twins


def _neighbours(output_dir: Path) -> Iterator[Path]:
    try:
        folders = sorted(islice(output_dir.parent.iterdir(), NEIGHBOURS))
    except OSError:
        return
    yield from (folder / ".pipeline" for folder in folders if folder != output_dir and folder.is_dir())

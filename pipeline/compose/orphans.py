"""Tasks that the ledger knows and the manifest no longer has: counted by job, never touched.

They are counted as rows pass by, so that memory stays flat: what the ledger knows of a job, less what the stream had of
it. A job whose rows are not all known now (they follow from images that are not made, or from files that are still too
young) has none that can be told apart.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from pipeline.manifest import Manifest
from pipeline.model import TaskState
from pipeline.plan import Row
from pipeline.store import Reader


class Orphans:
    """Counts while a whole manifest streams through `watch`."""

    def __init__(self, manifest: Manifest, reader: Reader) -> None:
        self._upstream = manifest.upstream
        self._patient = manifest.patient
        self._left = reader.jobs()  # before the stream begins: a run that goes on meanwhile adds no orphans
        self._unmade: set[str] = set()

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pass every row on."""
        for row in rows:
            job = row.task.job
            if row.known is not None:
                self._left[job] -= 1
            verdict = row.verdict
            if verdict.reason is not None or verdict.state is not TaskState.DONE or verdict.is_missing:
                self._unmade.add(job)
            yield row

    def counted(self, waiting: Collection[str]) -> Counter[str]:
        """Return the orphans of each job, when the stream has ended; `waiting` are the files that were too young."""
        unsure = set(self._patient) if waiting else set()
        unsure |= set(behind(self._upstream, self._unmade | unsure))
        return Counter({job: number for job, number in self._left.items() if number > 0 and job not in unsure})


def behind(upstream: Mapping[str, str], jobs: Collection[str]) -> Iterator[str]:
    """Yield the jobs that wait for one of `jobs`, directly or by way of others."""
    for name in upstream:
        source: str | None = upstream[name]
        while source is not None and source not in jobs:
            source = upstream.get(source)
        if source is not None:
            yield name

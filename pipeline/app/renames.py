"""Finds the task that made an image which a task with a new id asks for: a renamed folder, row or article number.

Each former task is given once. Which ids the manifest has is only computed where a task with such an image is found: a
second expansion of the manifest. Memory: 8 bytes a task.
"""

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

from pipeline.app.orphans import Orphans
from pipeline.manifest.loader import Manifest
from pipeline.model import Known, Task
from pipeline.plan.decide import changed_aspects
from pipeline.plan.plan import PlanRow
from pipeline.store.reader import LedgerReader

CANDIDATES: Final = 1000  # of one request; beyond, rows that ask for the same image are told apart no more


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
        ids = self._reader.made_for(task)[:CANDIDATES]
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

    def _is_orphan(self, task_id: str) -> bool:
        """Say whether the manifest has no such task. Of a job whose rows are not all there now nobody can say."""
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


def _short(task_id: str) -> int:
    digest = hashlib.blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)

"""A few tasks that stand for all: spread over jobs, over the values of every axis, over rows.

In: due tasks, one by one. Out: the ids of N of them; the same tasks give the same ids. Memory: N ids for each of the
first 1,000 combinations of a job.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from pipeline.model import Due

COMBINATIONS: Final = 1000  # of one job that are told apart

_Combination = tuple[tuple[str, str], ...]  # axis and value


def pilot_ids(dues: Iterable[Due], number: int) -> frozenset[str]:
    """Choose `number` tasks, fewer where there are no more: job by job in turn, of each what was least seen."""
    jobs: defaultdict[str, dict[_Combination, list[tuple[bytes, str]]]] = defaultdict(dict)
    for due in dues:
        combinations, key = jobs[due.task.job], tuple(due.task.matrix.items())
        if key in combinations or len(combinations) < COMBINATIONS:
            lots = combinations.setdefault(key, [])
            lots.append((_lot(due.task.id), due.task.id))
            lots.sort()
            del lots[number:]
    chosen: set[str] = set()
    seen: Counter[tuple[str, str, str]] = Counter()
    while len(chosen) < number and any(jobs.values()):
        for job, combinations in jobs.items():
            if combinations and len(chosen) < number:
                chosen.add(_next(job, combinations, seen))
    return frozenset(chosen)


def _next(
    job: str, combinations: dict[_Combination, list[tuple[bytes, str]]], seen: Counter[tuple[str, str, str]]
) -> str:
    """Take one task of a job, of the combination whose axis values were chosen least."""
    key = min(combinations, key=lambda each: sum(seen[job, axis, value] for axis, value in each))
    seen.update((job, axis, value) for axis, value in key)
    _, task_id = combinations[key].pop(0)
    if not combinations[key]:
        del combinations[key]
    return task_id


def _lot(task_id: str) -> bytes:
    return hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).digest()[:8]

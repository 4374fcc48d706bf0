"""Selects tasks: by `--select`, `--exclude`, `--first` and `--sample`, and the few of `--pilot` that stand for all."""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from pipeline.errors import InputError, Problem
from pipeline.model import Due, Mark, TaskState
from pipeline.plan.decide import MISSING
from pipeline.settings import CHECKS
from pipeline.text import nearest

if TYPE_CHECKING:
    from pipeline.plan.plan import PlanRow

UNMARKED: Final = "none"
ORPHANED: Final = "orphaned"  # known to the ledger, and no longer in the manifest
STATES: Final = (*TaskState, MISSING, ORPHANED)
MARKS: Final = ("picked", "rejected", UNMARKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Patterns are id globs, `job:NAME`, `tag:NAME`, `state:NAME`, `flag:NAME`, `mark:NAME`; several mean any."""

    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    first: int | None = None
    sample: int | None = None
    seed: int = 0
    ids: frozenset[str] | None = None  # exactly these; None: no such list
    marks: Mapping[str, Mark] = field(default_factory=dict)  # task id -> mark, for `mark:NAME`

    def __post_init__(self) -> None:
        problems = [p for pattern in (*self.select, *self.exclude) if (p := _problem(pattern))]
        if problems:
            raise InputError(*problems)

    def words(self) -> list[str]:
        """Return the flags that say the same."""
        words = [word for pattern in self.select for word in ("--select", pattern)]
        words += [word for pattern in self.exclude for word in ("--exclude", pattern)]
        if self.first is not None:
            words += ["--first", str(self.first)]
        if self.sample is not None:
            words += ["--sample", str(self.sample), *(["--seed", str(self.seed)] if self.seed else [])]
        return words

    @property
    def wants_orphans(self) -> bool:
        """Say whether a pattern asks for tasks that the manifest no longer has."""
        return f"state:{ORPHANED}" in self.select

    @property
    def has_marks(self) -> bool:
        """Say whether a pattern asks for marks."""
        return any(pattern.startswith("mark:") for pattern in (*self.select, *self.exclude))

    @property
    def is_everything(self) -> bool:
        """Say whether nothing is left out."""
        return not self.select and not self.exclude and (self.first, self.sample, self.ids) == (None, None, None)

    def unknown_jobs(self, jobs: Collection[str]) -> list[Problem]:
        """Return what is wrong with patterns that no task can match: they name a job that is not among `jobs`.

        Tags, states and globs that match no task today are none of them: they come and go.
        """
        return [p for pattern in (*self.select, *self.exclude) if (p := _unknown_job(pattern, jobs))]

    def ids_of(self, jobs: Collection[str]) -> list[str]:
        """Return the patterns that are ids of tasks of `jobs`, written in full."""
        return [each for each in (*self.select, *self.exclude) if _job_of_id(each) in jobs]

    def apply(self, rows: Iterable["PlanRow"], *, matched: set[str] | None = None) -> Iterator["PlanRow"]:
        """Keep the rows that are meant, in order. A sample depends on seed and ids, not on their order.

        `matched` gets the patterns of `select` and `exclude` that a row has matched.
        """
        chosen = (row for row in rows if self._is_meant(row, matched))
        if self.sample is not None:
            kept = heapq.nsmallest(
                self.sample, enumerate(chosen), key=lambda item: _lot(f"{self.seed}/{item[1].task.id}")
            )
            chosen = (row for _, row in sorted(kept, key=lambda item: item[0]))
        for n, row in enumerate(chosen):
            if self.first is not None and n >= self.first:
                continue  # the stream is read to its end: its last problems are found before anything is spent
            yield row

    def _is_meant(self, row: "PlanRow", matched: set[str] | None) -> bool:
        if matched is not None:
            new = (pattern for pattern in (*self.select, *self.exclude) if pattern not in matched)
            matched.update([pattern for pattern in new if self._matches(pattern, row)])
        if self.ids is not None and row.task.id not in self.ids:
            return False
        is_in = not self.select or any(self._matches(pattern, row) for pattern in self.select)
        return is_in and not any(self._matches(pattern, row) for pattern in self.exclude)

    def _matches(self, pattern: str, row: "PlanRow") -> bool:
        kind, _, name = pattern.partition(":")
        match kind if name else "":
            case "job":
                return row.task.job == name
            case "tag":
                return name in row.task.tags
            case "state" if name == MISSING:
                return row.verdict.is_missing
            case "state":
                return row.verdict.state == name
            case "flag":
                return row.known is not None and name in row.known.flags
            case "mark":
                return self._mark(row) == name
            case _:
                return row.task.id == pattern or fnmatchcase(row.task.id, pattern)  # an id may hold brackets

    def _mark(self, row: "PlanRow") -> str:
        mark = self.marks.get(row.task.id)
        is_of_it = mark is not None and mark.is_of(row.known.artifact if row.known else None)
        return (mark.kind if mark is not None and is_of_it else "") or UNMARKED


_KNOWN: Final = {"state": STATES, "flag": CHECKS, "mark": MARKS}
_NOUNS: Final = {"state": "a state", "flag": "a check", "mark": "a mark"}


def _problem(pattern: str) -> Problem | None:
    kind, _, name = pattern.partition(":")
    if kind not in _KNOWN or name in _KNOWN[kind]:
        return None
    return Problem(what=f"{pattern!r} is not {_NOUNS[kind]}", instead=f"write one of {', '.join(_KNOWN[kind])}")


def _unknown_job(pattern: str, jobs: Collection[str]) -> Problem | None:
    kind, _, name = pattern.partition(":")
    if name and kind in ("tag", *_KNOWN):
        return None
    job = name if name and kind == "job" else pattern.partition("/")[0]
    is_open = kind != "job" and any(char in job for char in "*?[")
    if is_open or job in jobs:
        return None
    near = nearest(job, jobs, cutoff=0.5)
    instead = f"did you mean {pattern.replace(job, near, 1)!r}?" if near else f"its jobs: {', '.join(list(jobs)[:8])}"
    return Problem(what=f"{pattern!r} matches no task: the manifest has no job {job!r}", instead=instead)


def _job_of_id(pattern: str) -> str | None:
    """Return the job of an id; None for a glob, a job, a tag, a state, a flag or a mark."""
    kind, _, name = pattern.partition(":")
    is_id = not any(char in pattern for char in "*?[") and not (name and kind in ("job", "tag", *_KNOWN))
    return pattern.partition("/")[0] if is_id else None


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

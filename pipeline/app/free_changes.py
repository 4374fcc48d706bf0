"""Applies what a plan finds that costs no request: images that get a new name, changes that are accepted.

Memory is flat: the spool is read in batches. Not part of `run`, because none of it needs consent, wallet or network.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from pipeline.errors import Conflict
from pipeline.model import Due, Edit, Task
from pipeline.plan.plan import ACCEPT, MOVE, TAKE_OVER
from pipeline.store.maintenance import Maintenance
from pipeline.store.store import Store
from pipeline.text import count

BATCH: Final = 500
LISTED: Final = 20


@dataclass(slots=True, kw_only=True)
class FreeChanges:
    """What was done. `conflicts` are tasks whose image stays where it is."""

    moved: int = 0
    renamed: int = 0
    accepted: int = 0
    conflicts: int = 0
    notes: list[str] = field(default_factory=list)


async def apply_free_changes(store: Store, free: Iterable[Due]) -> FreeChanges:
    """Move images and accept changes; a name that is taken costs that task its move and nothing else.

    Raises StorageError.
    """
    settled = FreeChanges()
    stream = iter(free)
    while batch := list(islice(stream, BATCH)):
        renamed = [(due.former, due.task) for due in batch if due.reason == TAKE_OVER]
        if renamed:
            settled.renamed += await store.maintain(partial(_take_over, renamed))
        edits = [(due.task, Edit(due.reason)) for due in batch if due.reason in set(Edit)]
        if edits:
            settled.accepted += await store.maintain(partial(_accept_edits, edits))
        accepted = [due.task for due in batch if due.reason == ACCEPT]
        if accepted:
            settled.accepted += await store.maintain(partial(_accept, accepted))
        for due in batch:
            if due.reason == MOVE:
                await _move(store, due.task, settled)
    if settled.renamed:
        settled.notes.append(f"{count(settled.renamed, 'image')}: kept for the new id of its task, no request")
    if settled.moved:
        settled.notes.append(f"{count(settled.moved, 'image')}: moved to a new name, no request")
    if settled.accepted:
        settled.notes.append(f"{count(settled.accepted, 'image')}: accepted as it is, no request")
    return settled


def _take_over(renamed: list[tuple[str, Task]], maintenance: Maintenance) -> int:
    return maintenance.take_over(renamed)


def _accept_edits(edits: list[tuple[Task, Edit]], maintenance: Maintenance) -> int:
    return maintenance.accept_edits(edits)


def _accept(tasks: list[Task], mender: Maintenance) -> int:
    return mender.accept(tasks)


async def _move(store: Store, task: Task, settled: FreeChanges) -> None:
    try:
        await store.move(task.id, task.name)
    except Conflict as conflict:
        settled.conflicts += 1
        if len(settled.notes) < LISTED:
            settled.notes.append(str(conflict))
    else:
        settled.moved += 1

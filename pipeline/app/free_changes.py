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
    applied = FreeChanges()
    stream = iter(free)
    while batch := list(islice(stream, BATCH)):
        renamed = [(due.former, due.task) for due in batch if due.reason == TAKE_OVER]
        if renamed:
            applied.renamed += await store.maintain(partial(Maintenance.take_over, renamed=renamed))
        edits = [(due.task, Edit(due.reason)) for due in batch if due.reason in set(Edit)]
        if edits:
            applied.accepted += await store.maintain(partial(Maintenance.accept_edits, edits=edits))
        accepted = [due.task for due in batch if due.reason == ACCEPT]
        if accepted:
            applied.accepted += await store.maintain(partial(Maintenance.accept, tasks=accepted))
        for due in batch:
            if due.reason == MOVE:
                await _move(store, due.task, applied)
    if applied.renamed:
        applied.notes.append(f"{count(applied.renamed, 'image')}: kept for the new id of its task, no request")
    if applied.moved:
        applied.notes.append(f"{count(applied.moved, 'image')}: moved to a new name, no request")
    if applied.accepted:
        applied.notes.append(f"{count(applied.accepted, 'image')}: accepted as it is, no request")
    return applied


async def _move(store: Store, task: Task, applied: FreeChanges) -> None:
    try:
        await store.move(task.id, task.name)
    except Conflict as conflict:
        applied.conflicts += 1
        if len(applied.notes) < LISTED:
            applied.notes.append(str(conflict))
    else:
        applied.moved += 1

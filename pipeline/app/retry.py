"""`retry`: makes failed, refused or unknown tasks due again, and runs those alone.

A module of its own, as every verb has one; the run is `run`.
"""

import asyncio
from dataclasses import dataclass, replace

from pipeline.app.context import Setup
from pipeline.app.planning import DigestMemory, nearest_id, plan_rows
from pipeline.errors import InputError, Problem
from pipeline.model import Edit, TaskState
from pipeline.plan.selection import Selection
from pipeline.store.reader import LedgerReader
from pipeline.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What `retry` makes due again: tasks in these states; with ids, only those."""

    states: frozenset[TaskState]
    ids: tuple[str, ...] = ()


async def release(setup: Setup, store: Store, reader: LedgerReader, what: Release) -> Setup:
    """Make the tasks due; return a set-up that selects exactly them. Raises InputError for an id the manifest lacks."""
    ids = await asyncio.to_thread(_meant, setup, reader, what)
    await store.release(what.states, ids=ids)
    flags = replace(setup.flags, selection=Selection(ids=ids))
    return replace(setup, flags=flags, rules=replace(setup.rules, repair=setup.rules.repair or bool(what.ids)))


def _meant(setup: Setup, reader: LedgerReader, what: Release) -> frozenset[str]:
    ids: set[str] = set()
    missing = set(what.ids)
    seen: list[str] = []
    for row in setup.flags.selection.apply(plan_rows(setup, reader, DigestMemory(reader))):
        task_id = row.task.id
        missing.discard(task_id)
        seen.append(task_id)
        is_named = not what.ids or task_id in what.ids
        is_absent = what.ids and row.known is not None and row.known.edit is Edit.ABSENT
        if is_named and row.known is not None and (row.known.state in what.states or is_absent):
            ids.add(task_id)
    if missing:
        raise InputError(
            *(
                Problem(what=f"no task has the id {each!r}", instead=nearest_id([each], seen, setup.command))
                for each in sorted(missing)
            )
        )
    return frozenset(ids)

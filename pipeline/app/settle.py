"""`settle`: records what the provider's support said of unknown requests: billed, or free.

Attempts are named as `status` shows them; ledger and budgets agree afterwards. Nothing is sent. A module of its own, as
every verb has one.
"""

from collections.abc import Sequence
from functools import partial

from pipeline.app.context import Setup
from pipeline.app.locking import open_store
from pipeline.app.planning import reading
from pipeline.errors import InputError, Problem
from pipeline.store.history import Unknown
from pipeline.store.maintenance import Maintenance


async def settle(setup: Setup, names: Sequence[str], *, is_billed: bool) -> list[Unknown]:
    """Write down how unknown requests ended, under the lock; `names` empty: all of this manifest. Return them.

    A name is a request id, a task's id (all its unknowns), `ID#N` for its attempt N, or N alone where one task has it.
    Raises InputError for a name that means none or several, TryLater, StorageError, LedgerError.
    """
    async with open_store(setup) as store:
        await store.recover()
        with reading(setup) as reader:
            unknowns = reader.unknowns()
        meant = [each for name in names for each in _meant(name, unknowns)] if names else unknowns
        found = list({each.attempt: each for each in meant}.values())
        await store.maintain(
            partial(Maintenance.settle, attempts=[each.attempt for each in found], is_billed=is_billed)
        )
    return found


def _meant(name: str, unknowns: Sequence[Unknown]) -> list[Unknown]:
    found = [each for each in unknowns if name in (each.request_id, each.task_id, f"{each.task_id}#{each.number}")]
    if not found and name.isdecimal():
        found = [each for each in unknowns if each.number == int(name)]
        if len({each.task_id for each in found}) > 1:
            example = f"{found[0].task_id}#{found[0].number}"
            raise InputError(
                Problem(what=f"{len(found)} tasks have an unknown attempt {name}", instead=f"write {example}")
            )
    if not found:
        instead = "`imgpipe status FILE` lists them; write a request id, a task's id, or ID#N for its attempt N"
        raise InputError(Problem(what=f"no unknown request is called {name!r}", instead=instead))
    return found

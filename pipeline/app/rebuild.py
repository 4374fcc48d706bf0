"""`rebuild`: makes a new ledger from the images on disk and what can be read of the old ledger, under the lock.

A module of its own, as every verb has one; the work is done in `store/rebuild`.
"""

from collections.abc import Iterator
from contextlib import closing

from pipeline.app.consent import list_price
from pipeline.app.context import Setup
from pipeline.app.locking import checks_of, sidecars_of
from pipeline.app.planning import file_view, reading, upstream_of
from pipeline.buckets import as_input_error
from pipeline.manifest.expand import expand
from pipeline.manifest.inputs import read_digest
from pipeline.model import BucketUrl, Due, Task
from pipeline.plan.plan import Spool
from pipeline.store import rebuild as ledger_rebuild
from pipeline.store import resources
from pipeline.store.lock import StateLock
from pipeline.store.rebuild import Rebuilt


def rebuild(setup: Setup) -> Rebuilt:
    """Make or complete the ledger from the files of the manifest's tasks; no image is touched.

    The manifest is read to its end before anything is changed: a mistake in it leaves all as it was. A job that takes
    another one's images is read when those are known again. Raises InputError, LedgerError, StorageError, TryLater.
    """
    manifest = setup.manifest
    settings = resources.StoreSettings(
        output_dir=manifest.output_dir,
        state_dir=manifest.state_dir,
        manifest=manifest.name,
        is_play_money=setup.is_play_money,
        beside=sidecars_of(setup),
        check=checks_of(setup),
    )
    if isinstance(manifest.output_dir, BucketUrl):
        with as_input_error(manifest.output_dir):
            return _rebuild(setup, settings)
    return _rebuild(setup, settings)


def _rebuild(setup: Setup, settings: resources.StoreSettings) -> Rebuilt:
    manifest = setup.manifest
    whole: Rebuilt | None = None
    with StateLock(manifest.state_dir, wait_s=setup.flags.wait_lock_s):
        for number, names in enumerate(manifest.stages):
            with closing(Spool(manifest.state_dir)) as spool:
                for task in _tasks(setup, names, is_first=number == 0):
                    spool.add(Due(task=task, reason=""))
                rebuilt = ledger_rebuild.rebuild_ledger(settings, (due.task for due in spool), price=list_price(setup))
            whole = rebuilt if whole is None else _joined(whole, rebuilt)
    assert whole is not None  # a manifest has a job
    return whole


def _tasks(setup: Setup, names: tuple[str, ...], *, is_first: bool) -> Iterator[Task]:
    """Read the tasks of one stage; the ledger is asked only from the second one on, when it can be trusted again."""
    if is_first:
        yield from expand(setup.manifest, digests=read_digest, jobs=names)
        return
    with reading(setup) as reader:
        yield from expand(
            setup.manifest,
            digests=read_digest,
            jobs=names,
            upstream=lambda job: upstream_of(
                setup, reader, read_digest, job, file_view(setup.manifest.output_dir, reader)
            ),
        )


def _joined(whole: Rebuilt, stage: Rebuilt) -> Rebuilt:
    """Add what a later stage found."""
    whole.adopted += stage.adopted
    whole.kept += stage.kept
    whole.absent += stage.absent
    whole.doubtful += stage.doubtful
    whole.counted_microusd += stage.counted_microusd
    return whole

"""Images and ledger, checked and mended without a request: verify, rebuild, what lies in rejected/.

In: a set-up. Out: what was found or done, and the exit code it deserves. Only `rebuild` writes, under the lock.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from pipeline import store
from pipeline.compose.consent import list_price
from pipeline.compose.planning import reading, upstream_of
from pipeline.compose.preparing import Setup
from pipeline.errors import Exit
from pipeline.manifest import expand, read_digest
from pipeline.model import Due, Task
from pipeline.plan import Spool
from pipeline.store import Rebuilt, Rejected, StateLock, Verification, list_rejected

THUMBNAILS = "report/thumbs/"  # below the output directory: made from images, nobody's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Every image of a manifest against the ledger."""

    found: Verification
    has_ledger: bool

    @property
    def exit(self) -> Exit:
        """All well, or something for a person to do; images without any ledger are one such thing."""
        is_well = self.found.is_sound and (self.has_ledger or not self.found.unrecorded)
        return Exit.OK if is_well else Exit.SOME_FAILED


def verify(setup: Setup, *, decode: bool = False, progress: Callable[[int], None] = lambda _: None) -> Verified:
    """Hash every image again; `decode` reads its pixels too. Raises LedgerError, TryLater."""
    manifest = setup.manifest
    with reading(setup) as reader:
        has_ledger = not reader.is_missing
    found = store.verify(
        output_dir=manifest.output_dir,
        state_dir=manifest.state_dir,
        manifest=manifest.name,
        decode=decode,
        progress=progress,
    )
    found.unrecorded = [path for path in found.unrecorded if not path.startswith(THUMBNAILS)]
    return Verified(found=found, has_ledger=has_ledger)


def rebuild(setup: Setup) -> Rebuilt:
    """Make or complete the ledger from the files of the manifest's tasks; no image is touched.

    The manifest is read to its end before anything is changed: a mistake in it leaves all as it was. A job that takes
    another one's images is read when those are known again. Raises InputError, LedgerError, StorageError, TryLater.
    """
    manifest = setup.manifest
    settings = store.Settings(
        output_dir=manifest.output_dir,
        state_dir=manifest.state_dir,
        manifest=manifest.name,
        is_play_money=setup.is_play_money,
    )
    whole: Rebuilt | None = None
    with StateLock(manifest.state_dir, wait_s=setup.flags.wait_lock_s):
        for number, names in enumerate(manifest.stages):
            with closing(Spool(manifest.state_dir)) as spool:
                for task in _tasks(setup, names, is_first=number == 0):
                    spool.add(Due(task=task, reason=""))
                rebuilt = store.rebuild(settings, (due.task for due in spool), price=list_price(setup))
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
            upstream=lambda job: upstream_of(setup, reader, read_digest, job),
        )


def _joined(whole: Rebuilt, stage: Rebuilt) -> Rebuilt:
    """Add what a later stage found."""
    whole.adopted += stage.adopted
    whole.kept += stage.kept
    whole.absent += stage.absent
    whole.doubtful += stage.doubtful
    whole.counted_microusd += stage.counted_microusd
    return whole


def rejected(setup: Setup) -> list[Rejected]:
    """Return the answers of this manifest that could not be published, oldest first; those of nobody are listed too."""
    manifest = setup.manifest
    kept = list_rejected(manifest.state_dir)
    return [each for each in kept if each.facts is None or each.facts.manifest == manifest.name]

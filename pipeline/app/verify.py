"""`verify`: hashes every image again and compares it with the ledger. Reads only, also beside a run.

A module of its own, as every verb has one; the comparison is `store/integrity`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.app.context import Setup
from pipeline.app.planning import reading, upstream_of
from pipeline.errors import Exit
from pipeline.manifest.expand import expand
from pipeline.manifest.files import read_digest
from pipeline.model import Task
from pipeline.report.folder import is_thumbnail
from pipeline.store import integrity
from pipeline.store.integrity import Verification
from pipeline.store.rebuild import Rebuilt


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


def verify(
    setup: Setup, *, decode: bool = False, is_quick: bool = False, progress: Callable[[int], None] = lambda _: None
) -> Verified:
    """Hash every image again; `decode` reads its pixels too, `is_quick` only what differs.

    Raises LedgerError, TryLater; of a bucket InputError, StorageError.
    """
    manifest = setup.manifest
    with reading(setup) as reader:
        has_ledger = not reader.is_missing
    found = integrity.verify_images(
        output_dir=manifest.output_dir,
        state_dir=manifest.state_dir,
        manifest=manifest.name,
        decode=decode,
        is_quick=is_quick,
        progress=progress,
    )
    found.unrecorded = [path for path in found.unrecorded if not is_thumbnail(path)]
    return Verified(found=found, has_ledger=has_ledger)


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

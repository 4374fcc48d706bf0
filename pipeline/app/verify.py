"""`verify`: hashes every image again and compares it with the ledger. Reads only, also beside a run.

A module of its own, as every verb has one; the comparison is `store/integrity`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.app.context import Setup
from pipeline.app.planning import reading
from pipeline.errors import Exit
from pipeline.report.folder import is_thumbnail
from pipeline.store import integrity
from pipeline.store.integrity import Verification


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

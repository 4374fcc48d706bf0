"""A manifest whose file got another name, recognised by what it asks for: else all of it would be bought again.

Without `name:` the file's name is part of every task's identity. It is recognised only while the ledger knows nothing
of the new name. Not part of `planning`, which reads one ledger and looks at no other manifest's.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.compose.preparing import Setup
from pipeline.errors import ImgpipeError, InputError, Problem
from pipeline.store import Reader

COMPARED: Final = 500  # tasks
NEIGHBOURS: Final = 200  # directories beside this manifest's own, whose name follows from the manifest's


def check_name(setup: Setup, reader: Reader, asked: Sequence[tuple[str, str]]) -> None:
    """Raise InputError when another manifest, whose file is gone, asked for the same: `asked` is id and fingerprint."""
    manifest = setup.manifest
    if manifest.is_named or not asked or reader.jobs():
        return
    twins = _twins(setup, reader, asked[:COMPARED])
    for name, number in twins.most_common():
        is_gone = not manifest.path.with_name(name + manifest.path.suffix).exists()
        if is_gone and 2 * number >= min(COMPARED, len(asked)):
            raise InputError(
                Problem(
                    file=str(manifest.path),
                    what=f"looks like {name!r}, renamed: it asks for the same images, and {name} has them",
                    instead=f"write `name: {name}` to go on with them, or another `name:` to buy them anew",
                )
            )


def _twins(setup: Setup, reader: Reader, asked: Sequence[tuple[str, str]]) -> Counter[str]:
    """Count, by manifest, the tasks that are known with the same id and fingerprint."""
    twins = reader.twins(asked)
    for state_dir in _neighbours(setup.manifest.output_dir):
        try:
            with Reader(state_dir, manifest=setup.manifest.name) as other:
                if other.is_play_money == setup.is_play_money:
                    twins.update(other.twins(asked))
        except ImgpipeError:  # what is wrong with another manifest's ledger is told where that is run
            continue
    return twins


def _neighbours(output_dir: Path) -> Iterator[Path]:
    try:
        folders = sorted(islice(output_dir.parent.iterdir(), NEIGHBOURS))
    except OSError:
        return
    yield from (folder / ".pipeline" for folder in folders if folder != output_dir and folder.is_dir())

"""A ledger from files: tasks and the images that stand under their names -> done, without a request (P12, L07).

What a damaged ledger still said about money is lost, and said so; the damaged file is kept aside.
"""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.model import Artifact, Task, TaskState
from pipeline.store import ledger_file, rows
from pipeline.store.clock import to_us
from pipeline.store.disk import read_all, status_of
from pipeline.store.faults import DamagedLedgerError
from pipeline.store.finds import Recovery
from pipeline.store.opening import Premises, Settings, open_premises
from pipeline.store.picture import SUFFIXES, NotAnImageError, look
from pipeline.store.reader import Reader
from pipeline.store.recover import Recoverer
from pipeline.store.sql import query
from pipeline.store.tree import split

BATCH: Final = 500
NO_RUN: Final = "rebuild"


@dataclass(slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild did."""

    adopted: int = 0  # images written down as done
    kept: int = 0  # tasks the ledger knew as done
    absent: int = 0  # tasks without an image
    doubtful: list[str] = field(default_factory=list)  # one line each: two images for a task, or not an image
    set_aside: Path | None = None  # where a damaged ledger went
    recovery: Recovery = field(default_factory=Recovery)


def rebuild(settings: Settings, tasks: Iterable[Task]) -> Rebuilt:
    """Make or complete the ledger; under the lock. A file is taken as its task's image if it is a whole, known image.

    Raises LedgerError: the ledger belongs to another program or a newer version. InputError, StorageError, TryLater.
    """
    rebuilt = Rebuilt(set_aside=_set_damaged_aside(settings))
    premises = open_premises(settings)
    try:
        _name_manifest(settings, premises)
        rebuilt.recovery = Recoverer(settings, premises).run()
        with Reader(settings.state_dir, manifest=settings.manifest, output_dir=settings.output_dir) as reader:
            stream = iter(tasks)
            while batch := list(islice(stream, BATCH)):
                _adopt(settings, premises, list(_found(batch, premises, reader, rebuilt)))
    finally:
        premises.close()
    return rebuilt


def _set_damaged_aside(settings: Settings) -> Path | None:
    """Move a damaged ledger and what lies beside it to a free name; anything else is judged by `open_premises`."""
    path = settings.state_dir / ledger_file.NAME
    try:
        ledger_file.check(path, busy_s=settings.busy_s)
    except DamagedLedgerError:
        pass
    else:
        return None
    number = 1
    while (aside := path.with_name(f"{ledger_file.NAME}.damaged-{number}")).exists():
        number += 1
    for side in (*ledger_file.SIDES, ""):
        source = path.with_name(path.name + side)
        if source.exists():
            source.rename(aside.with_name(aside.name + side))
    return aside


def _name_manifest(settings: Settings, premises: Premises) -> None:
    output = rows.relative_bytes(settings.output_dir, settings.state_dir)
    values = {"manifest": settings.manifest, "output": output}
    premises.ledger.run(lambda c: c.execute(query("set_manifest"), values).rowcount)


def _found(batch: list[Task], premises: Premises, reader: Reader, rebuilt: Rebuilt) -> Iterator[tuple[Task, Artifact]]:
    for task in batch:
        known = reader.known(task.id)
        if known is not None and known.state is TaskState.DONE:
            rebuilt.kept += 1
            continue
        paths = [path for path in _standing(premises, task.name) if not reader.is_recorded(path)]
        if len(paths) > 1:
            rebuilt.doubtful.append(f"{task.id}: {' and '.join(paths)} both stand there; leave one")
        elif not paths:
            rebuilt.absent += 1
        elif (artifact := _artifact(premises, paths[0])) is None:
            rebuilt.doubtful.append(f"{task.id}: {paths[0]} is not a whole image")
        else:
            rebuilt.adopted += 1
            yield task, artifact


def _standing(premises: Premises, name: str) -> list[str]:
    """Return the plain files that stand where an image of this name could."""
    folder, stem = split(name)
    disk = premises.outputs.disk
    try:
        with premises.outputs.directory(folder) as fd:
            found = [(suffix, status_of(disk, stem + suffix, dir_fd=fd)) for suffix in SUFFIXES]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name + suffix for suffix, status in found if status is not None and stat.S_ISREG(status.st_mode)]


def _artifact(premises: Premises, path: str) -> Artifact | None:
    folder, name = split(path)
    with premises.outputs.directory(folder) as fd:
        try:
            image = look(read_all(premises.outputs.disk, name, dir_fd=fd), decode=True)
        except NotAnImageError:
            return None
        return rows.artifact(image, path, premises.outputs.disk.stat(name, dir_fd=fd))


def _adopt(settings: Settings, premises: Premises, found: list[tuple[Task, Artifact]]) -> None:
    now = to_us(settings.clock())
    adopted: list[tuple[rows.Row, str]] = [
        (
            rows.task_row(task, manifest=settings.manifest, now=now) | rows.artifact_row(artifact),
            rows.record_of(task, settings.state_dir),
        )
        for task, artifact in found
    ]
    premises.ledger.run(lambda c: rows.adopt(c, adopted))


def find_traces(output_dir: Path, state_dir: Path, names: Iterable[str] = (), *, most: int = 20) -> list[str]:
    """Return what an earlier run left where no ledger is: kept images, parts, files under the output names `names`.

    Not empty and no ledger: a run would buy again what is there; `imgpipe rebuild` is the way.
    """
    return list(islice(_traces(output_dir, state_dir, names), most))


def _traces(output_dir: Path, state_dir: Path, names: Iterable[str]) -> Iterator[str]:
    for folder in ("rejected", "superseded"):
        yield from (str(path) for path in sorted((state_dir / folder).glob("*")))
    for name in names:
        yield from (str(path) for suffix in SUFFIXES if (path := output_dir / (name + suffix)).exists())
    yield from (str(path) for path in output_dir.rglob(".part-*"))

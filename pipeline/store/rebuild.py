"""Makes a ledger from files: tasks and the images under their names become done, without a request (P12).

A damaged ledger is kept aside, and what can be read of it is copied: requests, money, unknown and refused tasks. An
image of which no request is known is counted at its list price, at the time of its file: a budget for the day or the
month does not begin again. Where more may have been spent than that, the ledger records so.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Final

from pipeline.buckets import Bucket
from pipeline.imaging.formats import NotAnImageError, describe
from pipeline.model import PART, Artifact, Task, TaskState
from pipeline.store import ledger_file, rows
from pipeline.store.integrity import BucketImages, FolderImages
from pipeline.store.ledger_file import DamagedLedgerError, query
from pipeline.store.ledger_salvage import SalvagedLedger, salvage_ledger
from pipeline.store.parts import Recovery, is_named_part
from pipeline.store.reader import LedgerReader
from pipeline.store.recovery import Recoverer
from pipeline.store.resources import StoreResources, StoreSettings, open_resources

BATCH: Final = 500
NO_LEDGER: Final = "images were recorded that are older than the ledger, and there was no other ledger to read"
OLD_LEDGER: Final = "only a damaged one that was set aside earlier could be read"
_ASIDE: Final = re.compile(re.escape(ledger_file.NAME) + r"\.damaged-(\d+)")
Price = Callable[[Task], int | None]
FoundImage = tuple[Task, Artifact, int]  # whose it is, the image, and when it was written in microseconds since 1970


@dataclass(slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild did."""

    adopted: int = 0  # images written down as done
    kept: int = 0  # tasks the ledger knew as done
    absent: int = 0  # tasks without an image
    doubtful: list[str] = field(default_factory=list)  # one line each: two images for a task, or not an image
    set_aside: Path | None = None  # where a damaged ledger went
    salvaged: SalvagedLedger | None = None  # what it still said
    counted_microusd: int = 0  # for images of which no request is known
    doubt: str | None = None  # why more may have been spent than is known now
    recovery: Recovery = field(default_factory=Recovery)


def rebuild_ledger(
    settings: StoreSettings, stages: Iterable[Iterable[Task]], *, price: Price = lambda _: None
) -> Rebuilt:
    """Make or complete the ledger; under the lock. A file is taken as its task's image if it is a whole, known image.

    `stages`: the tasks; the next ones are asked for when the images of those before are recorded, the first ones before
    anything is changed. `price`: what a task's image costs by the list; None: not known. May be killed anywhere and
    done again. Raises LedgerError: the ledger belongs to another program or a newer version. InputError, StorageError,
    TryLater.
    """
    stages = iter(stages)
    first = next(stages, ())
    rebuilt = Rebuilt(set_aside=_set_damaged_aside(settings))
    resources = open_resources(settings, fill=lambda connection: _salvage(connection, settings, rebuilt))
    try:
        resources.ledger.change("set_manifest", settings.manifest_row)
        rebuilt.recovery = Recoverer(resources).run()
        is_all_counted = rebuilt.salvaged is not None and rebuilt.salvaged.is_complete and rebuilt.salvaged.is_anonymous
        adopter = _Adopter(
            resources,
            rebuilt,
            price=(lambda _: None) if is_all_counted else price,  # the images' money is among what is nobody's
            is_all_known=rebuilt.salvaged is not None,
        )
        outputs = resources.outputs
        standing = BucketImages(outputs) if isinstance(outputs, Bucket) else FolderImages(outputs)
        with LedgerReader(settings.state_dir, manifest=settings.manifest, output_dir=settings.output_dir) as reader:
            for tasks in chain((first,), stages):
                stream = iter(tasks)
                while batch := list(islice(stream, BATCH)):
                    adopter.adopt(list(_found(batch, standing, reader, rebuilt)))
    finally:
        resources.close()
    return rebuilt


def _set_damaged_aside(settings: StoreSettings) -> Path | None:
    """Move a damaged ledger and what lies beside it to a free name; anything else is judged by `open_resources`.

    The ledger goes first: without its log it could be taken for a sound one of an earlier time.
    """
    path = settings.state_dir / ledger_file.NAME
    try:
        is_there = ledger_file.check(path, busy_s=settings.busy_s) is not None
    except DamagedLedgerError:
        pass
    else:
        if is_there or not ledger_file.sides_of(path):
            return None
    aside = _aside_of(path)
    for source in (path, *ledger_file.sides_of(path)):
        if source.exists():
            source.rename(aside.with_name(source.name.replace(path.name, aside.name, 1)))
    return aside


def _aside_of(path: Path) -> Path:
    """Return a free name; without a ledger, the one that an interrupted rebuild has given it."""
    asides = _asides(path.parent)
    if not path.exists() and asides and not ledger_file.sides_of(asides[-1]):
        return asides[-1]
    last = int(asides[-1].name.rpartition("-")[2]) if asides else 0
    return path.with_name(f"{path.name}.damaged-{last + 1}")


def _asides(state_dir: Path) -> list[Path]:
    """Return the damaged ledgers that were set aside, the newest last."""
    found = [(int(match[1]), path) for path in state_dir.iterdir() if (match := _ASIDE.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _salvage(connection: sqlite3.Connection, settings: StoreSettings, rebuilt: Rebuilt) -> None:
    """Fill a new ledger from the newest damaged one, also when an earlier rebuild came no further than to move it."""
    asides = _asides(settings.state_dir)
    if not asides:
        return
    now = settings.now_us()
    rebuilt.salvaged = salvage_ledger(connection, asides[-1], now=now)
    rebuilt.doubt = rebuilt.salvaged.doubt if rebuilt.set_aside is not None else OLD_LEDGER
    if rebuilt.doubt is not None:
        rows.rebuilt_run(connection, settings.manifest_row, doubt=rebuilt.doubt, now=now)


def _found(
    batch: list[Task], standing: FolderImages | BucketImages, reader: LedgerReader, rebuilt: Rebuilt
) -> Iterator[FoundImage]:
    """Yield the whole image that stands under the name of each task that has none in the ledger."""
    for task in batch:
        known = reader.known(task.id)
        if known is not None and known.state is TaskState.DONE:
            rebuilt.kept += 1
            continue
        paths = [path for path in standing.named(task.name) if not reader.is_recorded(path)]
        if len(paths) > 1:
            rebuilt.doubtful.append(f"{task.id}: {' and '.join(paths)} both stand there; leave one")
        elif not paths:
            rebuilt.absent += 1
        else:
            data, version, written_us = standing.read(paths[0])
            try:
                image = describe(data, decode=True)
            except NotAnImageError:
                rebuilt.doubtful.append(f"{task.id}: {paths[0]} is not a whole image")
                continue
            rebuilt.adopted += 1
            yield task, rows.artifact(image, paths[0], version), written_us


class _Adopter:
    """Writes images down as done, batch by batch; the first batch writes the rebuild down as a run."""

    def __init__(self, resources: StoreResources, rebuilt: Rebuilt, *, price: Price, is_all_known: bool) -> None:
        """`is_all_known`: a damaged ledger was salvaged, so images older than the new one raise no doubt."""
        self._settings = resources.settings
        self._ledger = resources.ledger
        self._rebuilt = rebuilt
        self._price = price
        (self._created_at,) = resources.ledger.first("created_at")
        self._is_all_known = is_all_known
        self._doubt: str | None = None
        self._run: int | None = None

    def adopt(self, found: list[FoundImage]) -> None:
        """Write a batch down."""
        if found:
            is_older = any(written_us <= self._created_at for _, _, written_us in found)
            if is_older and not self._is_all_known and self._doubt is None:
                self._doubt, self._run = NO_LEDGER, None  # another ledger bought them
            self._run, counted = self._ledger.run(lambda c: self._write(c, found))
            self._rebuilt.counted_microusd += counted
            self._rebuilt.doubt = self._rebuilt.doubt or self._doubt

    def _write(self, connection: sqlite3.Connection, found: list[FoundImage]) -> tuple[int, int]:
        """Return the run that a batch belongs to, and for how much it was counted."""
        run, now = self._run, self._settings.now_us()
        if run is None:
            run = rows.rebuilt_run(connection, self._settings.manifest_row, doubt=self._doubt, now=now)
        return run, sum(self._adopt(connection, each, run=run, now=now) for each in found)

    def _adopt(self, connection: sqlite3.Connection, found: FoundImage, *, run: int, now: int) -> int:
        """Write an image down as done, and as paid for where no request is known; return for how much."""
        task, artifact, written_us = found
        row = rows.task_row(task, manifest=self._settings.manifest, now=now) | rows.artifact_row(artifact)
        connection.execute(query("adopt_task"), row)
        (key,) = connection.execute(query("key_of_task"), row).fetchone()
        rows.remember(connection, key, task.fingerprint, rows.record_of(task, self._settings.state_dir))
        price = self._price(task)
        values = row | {"run": run, "price": price, "at": min(now, written_us)}
        if price is None or connection.execute(query("count_adopted"), values).rowcount == 0:
            return 0
        connection.execute(query("count_adopted_task"), values)
        return price


def find_traces(output_dir: Path, state_dir: Path) -> Iterator[str]:
    """Yield what an earlier run left where no ledger is: a damaged one, kept images, parts.

    Some and no ledger: a run would buy again what is there; `imgpipe rebuild` is the way. A part that names its ledger
    is no trace: another ledger over this directory may be writing it, and none but that one can publish it.
    """
    yield from map(str, sorted(state_dir.glob(f"{ledger_file.NAME}.damaged-*")))
    yield from map(str, ledger_file.sides_of(state_dir / ledger_file.NAME))
    for folder in ("rejected", "superseded"):
        yield from map(str, sorted((state_dir / folder).glob("*")))
    yield from (str(path) for path in output_dir.rglob(f"{PART}*") if not is_named_part(path.name))

"""Mirrors picked images into a folder or a bucket as a recipe of `deliver:` says: names, formats, sizes, colours.

`deliver.jsonl` in it says for each file its task, the hash of its source and what happened. A file that imgpipe
did not write, or that was changed since, is never touched; what no longer belongs there moves to `.withdrawn/`. The
same command continues a delivery that broke off: files with the bytes of the recipe are its own.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from pipeline.app.context import Setup
from pipeline.app.export import read_lines, read_whole, write_lines
from pipeline.app.orphans import Orphans
from pipeline.app.planning import PRESENT, file_view, plan_rows, reading
from pipeline.app.redo import marks_of
from pipeline.buckets import Locations
from pipeline.errors import Exit, InputError, StorageError
from pipeline.imaging.convert import rendition
from pipeline.imaging.formats import NotAnImageError
from pipeline.imaging.metadata import is_signed
from pipeline.manifest.outputs import DeliveryRecipe
from pipeline.model import Artifact, BucketUrl, Edit, Mark, TaskState
from pipeline.plan.decide import FileView
from pipeline.plan.plan import PlanRow
from pipeline.plan.selection import Selection
from pipeline.store.files import FileComparison
from pipeline.store.mirror import Mirror, open_mirror
from pipeline.text import did_you_mean, name_key

RECEIPT: Final = "deliver.jsonl"
SIGNATURE_LOST: Final = "its signature (C2PA) is lost: the recipe converts the image"
ADDED, REPLACED, UNCHANGED, WITHDRAWN, LEFT = "added", "replaced", "unchanged", "withdrawn", "left"


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file of a delivery."""

    file: str
    task: str
    happened: str  # added, replaced, unchanged, withdrawn, left
    source_sha256: str = ""
    sha256: str = ""  # of the file as we wrote it; empty: it is not ours
    mark: str = ""  # of an object as we wrote it
    recipe: str = ""  # a digest: another recipe makes another file
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class Delivered:
    """What became of one recipe."""

    recipe: str
    place: Path | BucketUrl
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        return Counter(receipt.happened for receipt in self.receipts)

    @property
    def exit(self) -> Exit:
        return Exit.SOME_FAILED if self.counts[LEFT] else Exit.OK


def deliver(setup: Setup, names: Sequence[str]) -> list[Delivered]:
    """Bring the places of the named recipes up to date (none named: of all). Raises InputError, StorageError."""
    recipes = setup.manifest.deliveries
    if not recipes:
        instead = "write one, or use --picked DIR"
        raise InputError("the manifest has no `deliver:`", instead=instead, file=setup.manifest.path)
    for name in names:
        if name not in recipes:
            advice = did_you_mean(name, recipes, f"its recipes: {', '.join(recipes)}")
            raise InputError(f"`deliver` has no {name!r}; {advice}")
    return [_deliver(setup, recipes[name]) for name in names or recipes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Where the images of one recipe go, and what was written there before, by file."""

    setup: Setup
    recipe: DeliveryRecipe
    mirror: Mirror
    former: dict[str, Receipt]


def _deliver(setup: Setup, recipe: DeliveryRecipe) -> Delivered:
    place = recipe.place
    delivered = Delivered(recipe=recipe.name, place=place)
    try:
        mirror = open_mirror(place)
        known = read_lines(f"{place}/{RECEIPT}", mirror.read(RECEIPT) or b"", Receipt, "deliveries")
        former = {each.file: each for each in known if each.sha256 and each.happened != WITHDRAWN}
        delivered.receipts += _placed(_Target(setup=setup, recipe=recipe, mirror=mirror, former=former))
        present = {name_key(receipt.file): receipt.file for receipt in delivered.receipts if receipt.sha256}  # are ours
        gone = [each for file, each in former.items() if not mirror.is_one(file, present.get(name_key(file)))]
        delivered.receipts += [_withdraw(mirror, receipt) for receipt in gone]
        write_lines(mirror, RECEIPT, delivered.receipts)
    except OSError as error:
        raise StorageError(
            f"{error.filename or place}: {error.strerror or error}; fix it, then run the same command"
        ) from error
    return delivered


def _placed(target: _Target) -> Iterator[Receipt]:
    """Write the chosen images; of two tasks with the same file name the first one has it."""
    setup, recipe = target.setup, target.recipe
    former = {receipt.task: receipt for receipt in target.former.values()}
    seen: dict[str, str] = {}
    for task_id, row, why_not in _chosen(setup, recipe, former):
        before = former.get(task_id) or (former.get(row.verdict.former) if row is not None else None)
        if why_not and before is not None:
            if seen.setdefault(name_key(str(Path(before.file).with_suffix(""))), task_id) == task_id:
                yield _left(before, before, why_not)
            continue
        assert row is not None
        assert row.known is not None
        assert row.known.artifact is not None
        name = recipe.file_name(setup.manifest.context_of(row.task), task_id=task_id, image_name=row.task.name)
        other = seen.setdefault(name_key(name), task_id)
        file = name + (recipe.suffix or Path(row.known.artifact.path).suffix)
        if other != task_id or why_not:
            yield Receipt(file=file, task=task_id, happened=LEFT, reason=why_not or f"{other} has the same name")
        else:
            yield _place(target, row, row.known.artifact, file)


def _chosen(
    setup: Setup, recipe: DeliveryRecipe, former: Mapping[str, Receipt]
) -> Iterator[tuple[str, PlanRow | None, str]]:
    """Yield the tasks whose images are meant, and why one cannot be delivered now (empty: it can).

    What was delivered before (`former`, by task) is withdrawn where a person decided so: the task is not in the
    manifest or not selected, its image was unpicked, or is accepted as absent. It stays where nothing says so: the
    ledger or the marks are on another machine, an image is lost, was edited or replaced, or the task has no row (None)
    as long as those of its job cannot all be read, or as its row has fewer variants than when it was picked.
    """
    marks, from_picked = dict(marks_of(setup.manifest)), recipe.keys.source == "picked"
    unpicked = {task_id for task_id, mark in marks.items() if from_picked and mark.kind != "picked"}
    selection = Selection(select=recipe.keys.select or (), marks=marks)
    with reading(setup) as reader:
        files = file_view(setup.manifest.output_dir, reader)
        orphans, unseen, standing = Orphans(setup.manifest, reader), set(former), set[str]()
        varied = {_row_of_variant(task_id) for task_id in former}

        def rows() -> Iterator[PlanRow]:
            for row in orphans.watch(plan_rows(setup, reader, on_end=orphans.ended.append, files=files)):
                unseen.difference_update((row.task.id, row.verdict.former))
                standing.update(varied & {f"{row.task.job}/{row.task.row}"})
                if row.verdict.former in marks:  # the next run gives it the new id
                    marks[row.task.id] = marks[row.verdict.former]
                yield row

        for row in selection.apply(rows()):
            mark, has_image = marks.get(row.task.id), row.known is not None and row.known.artifact is not None
            is_unpicked = from_picked and mark is not None and mark.kind != "picked"
            if row.verdict.edit is Edit.ABSENT or is_unpicked:
                continue
            if row.task.id in former or (has_image and (mark is not None or not from_picked)):
                yield row.task.id, row, _why_not(row, files, [mark] if from_picked else [])
        unsure = orphans.unsure
    for task_id in sorted(unseen - unpicked):
        if task_id.partition("/")[0] in unsure:
            yield task_id, None, "the rows of its job cannot all be read now"
        elif from_picked and _row_of_variant(task_id) in standing:
            yield task_id, None, "its row has fewer variants now; raise `variants` again, or pick another one"


def _row_of_variant(task_id: str) -> str:
    """Return `job/row` of `job/row@variant`; empty: the id has no variant (`icons/home@2x`)."""
    row, _, variant = task_id.rpartition("@")
    return row if variant.isdecimal() else ""


def _why_not(row: PlanRow, files: FileView, needed: Sequence[Mark | None]) -> str:
    """Say why an image cannot be delivered now; empty: it can. `needed`: the mark that it must have."""
    if row.known is None or row.known.artifact is None:
        return "no image of it is known on this machine"
    artifact = row.known.artifact
    if any(mark is None or not mark.is_of(artifact) for mark in needed):
        return "nobody has picked the image that is there now; look at it again"
    if row.known.state is not TaskState.DONE:
        return f"its task is {row.known.state}; the image that is there is of an earlier request"
    found = files.compare(artifact)
    if found in PRESENT or (found is FileComparison.CHANGED and row.known.edit is Edit.EDITED):
        return ""
    return f"{artifact.path} is {found}; put it back, or accept that: run --accept edited,absent"


def _place(target: _Target, row: PlanRow, artifact: Artifact, file: str) -> Receipt:
    """Bring one file up to date; what is not ours stays as it is."""
    recipe, mirror, location = target.recipe, target.mirror, target.setup.manifest.location_of(artifact)
    is_edited = row.known is not None and row.known.edit is Edit.EDITED  # and maybe again since
    source = read_whole(Locations(), location) if is_edited else None
    source_sha256 = artifact.sha256 if source is None else hashlib.sha256(source).hexdigest()
    before, there = target.former.get(file), mirror.mark(file)
    receipt = Receipt(
        file=file, task=row.task.id, happened=UNCHANGED, source_sha256=source_sha256, recipe=recipe.digest
    )
    is_ours = before is not None and there == _mark_of(before)
    if is_ours and before is not None and (before.source_sha256, before.recipe) == (source_sha256, recipe.digest):
        return msgspec.structs.replace(receipt, sha256=before.sha256, mark=before.mark)
    if there == "" or f"{recipe.place}/{file}" == location:  # a link or a folder; the image itself
        return _left(receipt, before)
    source = source if source is not None else read_whole(Locations(), location)
    try:
        data, mime = rendition(source, **recipe.rendition)
    except NotAnImageError as error:
        return _left(receipt, before, f"it cannot be converted: {error}")
    written = _write(mirror, file, data, mime, there=there, is_ours=is_ours)
    if written is None:
        return _left(receipt, before)
    happened, mark = written
    sha256 = hashlib.sha256(data).hexdigest()
    return msgspec.structs.replace(
        receipt,
        happened=happened,
        source_sha256=hashlib.sha256(source).hexdigest(),
        sha256=sha256,
        mark=mark if mark != sha256 else "",
        reason=SIGNATURE_LOST if is_signed(source) and not is_signed(data) else "",
    )


def _write(
    mirror: Mirror, file: str, data: bytes, mime: str, *, there: str | None, is_ours: bool
) -> tuple[str, str] | None:
    """Return what happened, and the mark of the file; None: another one has its name.

    The same bytes without a receipt are ours: a delivery broke off before it was written.
    """
    if there is not None and not is_ours:
        return (UNCHANGED, there) if mirror.read(file) == data else None
    try:
        mark = mirror.write(file, data, mime, before=there)
    except FileExistsError:
        return None
    return (ADDED if there is None else REPLACED), mark


def _mark_of(receipt: Receipt) -> str:
    return receipt.mark or receipt.sha256


def _left(receipt: Receipt, before: Receipt | None, reason: str = "") -> Receipt:
    """Return what is said of a file that stays as it is; `reason` empty: it is not ours."""
    reason = reason or ("another file has its name" if before is None else "it was changed since it was delivered")
    kept, mark = ("", "") if before is None else (before.sha256, before.mark)
    return msgspec.structs.replace(receipt, happened=LEFT, reason=reason, sha256=kept, mark=mark)


def _withdraw(mirror: Mirror, receipt: Receipt) -> Receipt:
    """Move a file that is no longer meant out of the way; one that was changed stays."""
    there = mirror.mark(receipt.file)
    if there is not None and there != _mark_of(receipt):
        reason = "it is no longer meant, and was changed since it was delivered"
        return msgspec.structs.replace(receipt, happened=LEFT, reason=reason)
    if there is not None:
        mirror.withdraw(receipt.file)
    return msgspec.structs.replace(receipt, happened=WITHDRAWN, reason="")

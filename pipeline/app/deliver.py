"""Mirrors picked images into a folder as a recipe of `deliver:` says: names, formats, sizes, colours.

`deliver.jsonl` in the folder says for each file its task, the hash of its source and what happened. A file that imgpipe
did not write, or that was changed since, is never touched; what no longer belongs there moves to `.withdrawn/`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import msgspec

from pipeline.app.context import Setup
from pipeline.app.planning import DigestMemory, plan_rows, reading
from pipeline.app.redo import marks_of
from pipeline.errors import Exit, InputError, Problem, StorageError
from pipeline.imaging.convert import rendition
from pipeline.imaging.formats import NotAnImageError
from pipeline.imaging.provenance import is_signed
from pipeline.manifest.settings import DeliveryRecipe
from pipeline.model import Edit, TaskState
from pipeline.plan.plan import PlanRow
from pipeline.plan.presence import Files
from pipeline.plan.selection import Selection
from pipeline.store.files import FileComparison
from pipeline.text import name_key

RECEIPT: Final = "deliver.jsonl"
WITHDRAWN: Final = ".withdrawn"
SIGNATURE_LOST: Final = "its signature (C2PA) is lost: the recipe converts the image"
ADDED, REPLACED, UNCHANGED, LEFT = "added", "replaced", "unchanged", "left"


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file of a delivery."""

    file: str
    task: str
    happened: str  # added, replaced, unchanged, withdrawn, left
    source_sha256: str = ""
    sha256: str = ""  # of the file as we wrote it; empty: it is not ours
    recipe: str = ""  # a digest: another recipe makes another file
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class Delivered:
    """What became of one recipe."""

    recipe: str
    folder: Path
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        return Counter(receipt.happened for receipt in self.receipts)

    @property
    def exit(self) -> Exit:
        return Exit.SOME_FAILED if self.counts[LEFT] else Exit.OK


def deliver(setup: Setup, names: Sequence[str]) -> list[Delivered]:
    """Bring the folders of the named recipes up to date (none named: of all). Raises InputError, StorageError."""
    recipes = setup.manifest.deliveries
    if not recipes:
        what = "the manifest has no `deliver:`"
        raise InputError(Problem(file=str(setup.manifest.path), what=what, instead="write one, or use --picked DIR"))
    for name in names:
        if name not in recipes:
            near = get_close_matches(name, recipes, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"its recipes: {', '.join(recipes)}"
            raise InputError(Problem(what=f"`deliver` has no {name!r}", instead=advice))
    return [_deliver(setup, recipes[name]) for name in names or recipes]


def _deliver(setup: Setup, recipe: DeliveryRecipe) -> Delivered:
    folder = recipe.folder_of(is_simulated=setup.flags.simulate)
    delivered = Delivered(recipe=recipe.name, folder=folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        former = _receipts(folder)
        seen: dict[str, str] = {}
        for row in _chosen(setup, recipe):
            context = setup.manifest.context_of(row.task)
            name = recipe.file_name(context, task_id=row.task.id, image_name=row.task.name)
            other = seen.setdefault(name_key(name), row.task.id)
            if other != row.task.id:
                reason = f"{other} has the same name"
                delivered.receipts.append(Receipt(file=name, task=row.task.id, happened=LEFT, reason=reason))
                continue
            delivered.receipts.append(_place(setup, recipe, folder, row, name, former))
        present = {receipt.file for receipt in delivered.receipts}
        gone = [receipt for file, receipt in former.items() if file not in present]
        delivered.receipts += [_withdraw(folder, receipt) for receipt in gone]
        _write(folder / RECEIPT, b"".join(msgspec.json.encode(each) + b"\n" for each in delivered.receipts))
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: {error.strerror}; mend it, then run it again") from error
    return delivered


def _chosen(setup: Setup, recipe: DeliveryRecipe) -> Iterator[PlanRow]:
    """Yield the tasks whose images are meant: done, whole, and picked where the recipe says so."""
    marks = marks_of(setup.manifest)
    selection = replace(Selection(select=recipe.select), marks=marks)
    files = Files(setup.manifest.output_folder)
    with reading(setup) as reader:
        for row in selection.apply(plan_rows(setup, reader, DigestMemory(reader))):
            known, mark = row.known, marks.get(row.task.id)
            if known is None or known.state is not TaskState.DONE or known.artifact is None:
                continue
            is_there = known.edit is Edit.EDITED or files.compare(known.artifact) in (
                FileComparison.SAME,
                FileComparison.TOUCHED,
            )
            is_picked = mark is not None and mark.kind == "picked" and mark.is_of(known.artifact)
            if is_there and (is_picked or not recipe.is_picked):
                yield row


def _place(
    setup: Setup, recipe: DeliveryRecipe, folder: Path, row: PlanRow, name: str, former: dict[str, Receipt]
) -> Receipt:
    assert row.known is not None
    assert row.known.artifact is not None
    artifact = row.known.artifact
    source = (setup.manifest.output_folder / artifact.path).read_bytes()
    source_sha256 = hashlib.sha256(source).hexdigest()
    suffix = recipe.suffix or Path(artifact.path).suffix
    file = name + suffix
    before, there = former.get(file), _sha256(folder / file)
    receipt = Receipt(
        file=file, task=row.task.id, happened=UNCHANGED, source_sha256=source_sha256, recipe=recipe.digest
    )
    is_ours = before is not None and before.sha256 != "" and there == before.sha256
    if is_ours and before is not None and (before.source_sha256, before.recipe) == (source_sha256, recipe.digest):
        return msgspec.structs.replace(receipt, sha256=before.sha256)
    if there is not None and not is_ours:
        reason = "another file has its name" if before is None else "it was changed since it was delivered"
        kept = "" if before is None else before.sha256
        return msgspec.structs.replace(receipt, happened=LEFT, reason=reason, sha256=kept)
    try:
        data, _ = rendition(
            source,
            artifact.mime,
            kind=recipe.kind,
            quality=recipe.quality,
            max_side=recipe.max_side,
            is_srgb=recipe.is_srgb,
            is_stripped=recipe.is_stripped,
        )
    except NotAnImageError as error:
        return msgspec.structs.replace(receipt, happened=LEFT, reason=f"it cannot be converted: {error}")
    _write(folder / file, data)
    happened = ADDED if there is None else REPLACED
    reason = SIGNATURE_LOST if is_signed(source) and not is_signed(data) else ""
    return msgspec.structs.replace(receipt, happened=happened, sha256=hashlib.sha256(data).hexdigest(), reason=reason)


def _withdraw(folder: Path, receipt: Receipt) -> Receipt:
    """Move a file that is no longer meant out of the way; one that was changed stays."""
    there = _sha256(folder / receipt.file)
    if there is not None and there != receipt.sha256:
        reason = "it is no longer meant, and was changed since it was delivered"
        return msgspec.structs.replace(receipt, happened=LEFT, reason=reason)
    if there is not None:
        target = folder / WITHDRAWN / receipt.file
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / receipt.file).replace(target)
    return msgspec.structs.replace(receipt, happened="withdrawn", reason="")


def _receipts(folder: Path) -> dict[str, Receipt]:
    """Return what we wrote there before, by file; what was withdrawn is not there any more."""
    path = folder / RECEIPT
    with suppress(FileNotFoundError):
        decode = msgspec.json.Decoder(Receipt).decode
        try:
            known = [decode(line) for line in path.read_bytes().splitlines()]
        except msgspec.DecodeError as error:
            raise InputError(
                Problem(file=str(path), what=f"is no list of deliveries: {error}", instead="move it away")
            ) from error
        return {each.file: each for each in known if each.sha256 and each.happened != "withdrawn"}
    return {}


def _sha256(path: Path) -> str | None:
    if not os.path.lexists(path):
        return None
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Write under another name first, so that no half file ever has the right one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

"""Decides whether one task is due, and why, from the task, its ledger row and the files of the output directory.

Files are only looked at; listings are kept while one plan is made.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Final

import msgspec

from pipeline.model import IMAGE_SUFFIXES, Artifact, Aspect, Edit, Known, Task, TaskState
from pipeline.settings import FORMER_DEFAULTS
from pipeline.store.files import PART_NAME, FileComparison, closed_folder, compare, comparison_of
from pipeline.text import name_key

NEW: Final = "new"
MISSING: Final = "missing"
RETRY: Final = "retry"
REJECTED: Final = "rejected"


class FileView:
    """What `decide` asks of an output directory. This one is not looked at: the ledger's word counts."""

    def compare(self, artifact: Artifact) -> FileComparison:  # noqa: ARG002 - others look
        """Compare a recorded image with what stands there."""
        return FileComparison.SAME

    def in_the_way(self, name: str, own: str | None) -> str | None:  # noqa: ARG002 - as above
        """Return the relative path of an image that already stands under `name` and is not `own`; None: free."""
        return None

    def is_half_published(self, path: str) -> bool:  # noqa: ARG002 - as above
        """Tell whether what is in the way is of this ledger: a run goes on, or died and the next start records it."""
        return False

    def barrier(self, name: str) -> str | None:  # noqa: ARG002 - as above
        """Say which folder keeps an image from being written under `name`, and why; None: it can be."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a person asked for on the command line, as far as it decides what is due."""

    repair: bool = False  # ask again for images that are missing or were changed
    force: bool = False  # replace images that were edited since they were written
    unknown_repeats: int = 1  # `retry.unknown`
    accept: frozenset[Aspect] = frozenset()  # these changes are taken as good without paying
    edits: frozenset[Edit] = frozenset()  # what a person did to images is taken as it is
    accept_refused: bool = False  # refusals are taken as they are
    redo: Mapping[str, str] = field(default_factory=dict)  # id -> words added to the prompt (or ""); wanted again


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`reason` None: not due. `note` says what a person should know although nothing will be sent."""

    state: TaskState
    reason: str | None = None
    note: str = ""
    is_missing: bool = False  # done, but its file is gone or was changed
    moves_to: str | None = None  # done, and its output name changed: the file moves there without a request
    barrier: str | None = None  # due, but for a folder that cannot be written to: a person must fix it
    is_given_up: bool = False  # refused, and that is taken as it is: no complaint
    edit: Edit | None = None  # done, and what a person did to the image is accepted
    is_edit_new: bool = False  # `edit` goes into the ledger
    former: str = ""  # id of the task that made the image, before it was renamed to this one
    is_accepted: bool = False  # done; what changed is taken as good: the present request goes into the ledger


def decide(task: Task, known: Known | None, files: FileView, rules: Rules) -> Verdict:
    """Say whether `task` is due."""
    if known is not None and known.artifact is not None and task.id in rules.redo:
        return _judge_redo(task, known, files, rules)
    if known is not None and known.artifact is not None and known.artifact_fingerprint in task.fingerprints:
        return _judge_done(task, known, (), files, rules)  # P4, also when a later request was made in between
    if known is None or known.state is TaskState.PENDING or known.state is TaskState.CONFLICT:
        reason = NEW if known is None or known.attempts == 0 else RETRY
        return _unless_edited(task, known, files, rules, Verdict(state=TaskState.PENDING, reason=reason))
    changed = changed_aspects(task, known)
    if known.state is TaskState.DONE:
        return _judge_done(task, known, changed, files, rules)
    if changed:
        wanted = [aspect for aspect in changed if aspect in task.rerun_when] or changed
        return _unless_edited(task, known, files, rules, Verdict(state=known.state, reason=f"{wanted[0]} changed"))
    if known.state is TaskState.UNKNOWN and known.unknowns <= rules.unknown_repeats:
        return _unless_edited(task, known, files, rules, Verdict(state=TaskState.UNKNOWN, reason=RETRY))
    if known.state is TaskState.REFUSED and (known.is_accepted or rules.accept_refused):
        return Verdict(state=TaskState.REFUSED, is_given_up=True, is_accepted=not known.is_accepted)
    return Verdict(state=known.state, note=known.reason)


def _judge_done(task: Task, known: Known, changed: Sequence[Aspect], files: FileView, rules: Rules) -> Verdict:
    assert known.artifact is not None
    path = known.artifact.path
    found = files.compare(known.artifact)
    other = files.in_the_way(task.name, path) if found is FileComparison.MISSING else None
    if other is not None and Edit.EDITED in rules.edits:  # saved as another kind of image
        found = FileComparison.CHANGED
    wanted = [aspect for aspect in changed if aspect in task.rerun_when and aspect not in rules.accept]
    edit = _edit(known, found, rules)
    is_edited = edit is Edit.EDITED or found is FileComparison.CHANGED
    if is_edited and not rules.force and (wanted or (rules.repair and edit is None)):
        return _edited(path, keep=",".join([*wanted, Edit.EDITED]))
    if wanted:
        return _unless_blocked(task, path, files, Verdict(state=TaskState.DONE, reason=f"{wanted[0]} changed"))
    if edit is None and found in (FileComparison.MISSING, FileComparison.CHANGED):
        is_gone, reason = found is FileComparison.MISSING, MISSING if rules.repair else None
        if is_gone and other is not None:
            note = f"{path} is missing and {other} stands in its place; --accept edited takes that, or move it"
            return Verdict(state=TaskState.CONFLICT, note=note)
        note = f"{path} is missing" if is_gone else f"{path} was changed"
        verdict = Verdict(state=TaskState.DONE, reason=reason, note=note, is_missing=True)
        return _unless_blocked(task, path, files, verdict) if is_gone else verdict
    verdict = Verdict(
        state=TaskState.DONE,
        is_accepted=not rules.accept.isdisjoint(changed) or _is_same_otherwise_written(task, known),
        edit=edit,
        is_edit_new=edit is not None
        and edit in rules.edits
        and (edit is not known.edit or found is FileComparison.CHANGED),
        note="" if edit is None else edit.value,
        moves_to=task.name if edit is not Edit.ABSENT and path.rpartition(".")[0] != task.name else None,
    )
    return verdict if verdict.moves_to is None else _unless_blocked(task, path, files, verdict)


def _edit(known: Known, found: FileComparison, rules: Rules) -> Edit | None:
    """Return what a person did to the image, if that is or was accepted; once accepted it stays so."""
    if found in (FileComparison.SAME, FileComparison.TOUCHED):
        return known.edit if known.edit is Edit.EDITED else None
    edit = Edit.ABSENT if found is FileComparison.MISSING else Edit.EDITED
    return edit if known.edit is edit or edit in rules.edits else None


def _judge_redo(task: Task, known: Known, files: FileView, rules: Rules) -> Verdict:
    """Judge a task whose image is there and not wanted. Maybe billed repeats are counted as they always are."""
    assert known.artifact is not None
    if known.unknowns > rules.unknown_repeats and not changed_aspects(task, known):
        note = "its new image may have been billed already and never came; `retry` it, then `redo` asks again"
        return Verdict(state=TaskState.UNKNOWN, note=note)
    return _unless_edited(task, known, files, rules, Verdict(state=TaskState.DONE, reason=REJECTED))


def _unless_edited(task: Task, known: Known | None, files: FileView, rules: Rules, verdict: Verdict) -> Verdict:
    """Return `verdict`, unless the image to be replaced, which may be that of an earlier request, was edited."""
    if known is None or known.artifact is None:
        return _unless_blocked(task, None, files, verdict)
    found = files.compare(known.artifact)
    is_edited = found is FileComparison.CHANGED or (known.edit is Edit.EDITED and found is not FileComparison.MISSING)
    if is_edited and not rules.force:
        return _edited(known.artifact.path)
    return _unless_blocked(task, known.artifact.path, files, verdict)


def _edited(path: str, *, keep: str = "") -> Verdict:
    """Refuse to replace an image; `keep` is what `--accept` takes to leave it in place, where that is a choice."""
    accept = f"--accept {keep} with --select of its id keeps it, " if keep else ""
    note = f"{path} was edited since it was written; {accept}--force replaces it and keeps it in superseded/"
    return Verdict(state=TaskState.CONFLICT, note=note)


def _unless_blocked(task: Task, own: str | None, files: FileView, verdict: Verdict) -> Verdict:
    """Return `verdict`, or what keeps it from being carried out: a file that is not ours, a folder that is closed."""
    if verdict.reason is not None and (barrier := files.barrier(task.name)) is not None:
        return Verdict(state=TaskState.PENDING, barrier=barrier, note=f"{barrier}; fix its owner or its permissions")
    blocker = files.in_the_way(task.name, own)
    if blocker is None or (verdict.reason == RETRY and files.is_half_published(blocker)):
        return verdict
    note = f"{blocker} is in the way and was not written by this manifest; move it, or change `output`"
    return Verdict(state=TaskState.CONFLICT, note=note)


def changed_aspects(task: Task, known: Known) -> list[Aspect]:
    """Return the aspects that differ from the request the known state belongs to; none: the same request.

    Other metadata of an input image (a star rating, a caption) are no difference: they are not sent.
    """
    former = as_formerly_read(task)
    if known.fingerprint in task.fingerprints or (former is not None and not changed_aspects(former, known)):
        return []
    differing = [each for each in Aspect if getattr(task.digests, each.value) != getattr(known.digests, each.value)]
    if Aspect.INPUTS in differing and _has_same_pixels(task, known):
        differing.remove(Aspect.INPUTS)
        return differing
    if differing == [Aspect.MODEL] and task.is_default_model and known.digests.model in FORMER_DEFAULTS:
        return []  # nobody changed it: the default was retired, and its images are not bought again
    return differing


def as_formerly_read(task: Task) -> Task | None:
    """Return the request as version 0.1.0 read the cells of its row and compared its text; None: as it is."""
    if (former := task.former) is None:
        return None
    return msgspec.structs.replace(task, fingerprint=former.fingerprint, digests=former.digests, former=None)


def _has_same_pixels(task: Task, known: Known) -> bool:
    return task.digests.pixels != "" and task.digests.pixels == known.digests.pixels


def _is_same_otherwise_written(task: Task, known: Known) -> bool:
    """Say whether the request is the same but for metadata of its inputs, or for how version 0.1.0 read its cells.

    Its fingerprint goes into the ledger then.
    """
    if task.fingerprint == known.fingerprint:
        return False
    if known.fingerprint in task.fingerprints:
        return True
    return task.digests.inputs != known.digests.inputs and _has_same_pixels(task, known)


LISTINGS: Final = 64  # directories remembered at once; tasks come sorted by job, so few are open at a time


class Files(FileView):
    """Looks into one output directory, for one ledger; None: there is none yet."""

    def __init__(self, output_dir: Path, *, ledger_id: str | None = None) -> None:
        self._output_dir = output_dir
        self._ledger_id = ledger_id
        self._closed_folder = cache(partial(closed_folder, output_dir))
        self._listing = lru_cache(LISTINGS)(self._list)

    def compare(self, artifact: Artifact) -> FileComparison:
        """Compare a recorded image with its file. Raises OSError where the disk cannot say."""
        path = self._output_dir / artifact.path
        try:
            return compare(path.lstat(), artifact, lambda: _sha256(path))
        except OSError as error:
            return comparison_of(error)

    def in_the_way(self, name: str, own: str | None) -> str | None:
        """Return the relative path of an image that already stands under `name` and is not `own`; None: free.

        A second link to `own` is what a move that was killed leaves behind: it is not in the way.
        """
        folder, _, stem = name.rpartition("/")
        alike = self._listing(folder).get(name_key(stem), ())
        for found in alike:
            path = f"{folder}/{found}" if folder else found
            found_stem, suffix = os.path.splitext(found)  # noqa: PTH122 - as below
            is_apart = stem + suffix in alike or not os.path.lexists(self._output_dir / (name + suffix))
            if found_stem != stem and is_apart:
                continue  # in another case, which this file system tells apart
            if path != own and not (own is not None and self._is_one_file(path, own)):
                return path
        return None

    def barrier(self, name: str) -> str | None:
        place = self._closed_folder(name.rpartition("/")[0])
        return None if place is None else f"the folder {place} cannot be written to"

    def is_half_published(self, path: str) -> bool:
        """Tell whether a part of this ledger is of the same bytes (sshfs numbers two links as two files)."""
        place = self._output_dir / path
        try:
            matches = [PART_NAME.fullmatch(entry.name) for entry in place.parent.iterdir()]
            parts = {match[3] for match in matches if match is not None and match[1] in (None, self._ledger_id)}
            return bool(parts) and stat.S_ISREG(place.lstat().st_mode) and _sha256(place) in parts
        except OSError:
            return False

    def _is_one_file(self, one: str, other: str) -> bool:
        try:
            return os.path.samestat((self._output_dir / one).lstat(), (self._output_dir / other).lstat())
        except OSError:
            return False

    def _list(self, folder: str) -> dict[str, list[str]]:
        """Return the images of a folder: `name_key` without suffix -> names."""
        listing: dict[str, list[str]] = {}
        gone = suppress(FileNotFoundError, NotADirectoryError, PermissionError)
        with gone, os.scandir(self._output_dir / folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - twice as fast, 1,000,000 times
                if suffix.lower() in IMAGE_SUFFIXES:
                    listing.setdefault(name_key(stem), []).append(entry.name)
        return listing


class Objects(FileView):
    """Looks at one listing of a bucket, for one ledger: 100,000 objects take 35 MB.

    A changed object is one with another size or ETag; nothing is read to find out.
    """

    def __init__(self, listed: Iterable[tuple[str, int, int]], is_half_published: Callable[[str], bool]) -> None:
        """`listed`: path, size in bytes, version. `is_half_published` says whether an object is of this ledger."""
        self._by_stem: dict[str, tuple[tuple[str, int, int], ...]] = {}
        self._is_half_published = is_half_published
        for path, size_bytes, version in listed:
            stem, suffix = os.path.splitext(path)  # noqa: PTH122 - no path of this machine
            if suffix.lower() in IMAGE_SUFFIXES:
                self._by_stem[stem] = (*self._by_stem.get(stem, ()), (suffix, size_bytes, version))

    def compare(self, artifact: Artifact) -> FileComparison:
        """Compare size and version with what was recorded."""
        stem, suffix = os.path.splitext(artifact.path)  # noqa: PTH122 - as above
        for found, size_bytes, version in self._by_stem.get(stem, ()):
            if found == suffix:
                is_same = (size_bytes, version) == (artifact.size_bytes, artifact.mtime_ns)
                return FileComparison.SAME if is_same else FileComparison.CHANGED
        return FileComparison.MISSING

    def in_the_way(self, name: str, own: str | None) -> str | None:
        paths = (name + suffix for suffix, _, _ in self._by_stem.get(name, ()))
        return next((path for path in paths if path != own), None)

    def is_half_published(self, path: str) -> bool:
        return self._is_half_published(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

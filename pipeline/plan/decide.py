"""Decides whether one task is due, and why, from the task and its ledger row: the states and reasons of a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from pipeline.model import Artifact, Aspect, Digests, Edit, Known, Task, TaskState
from pipeline.settings import FORMER_DEFAULTS
from pipeline.store.files import FileComparison

NEW: Final = "new"
MISSING: Final = "missing"
RETRY: Final = "retry"
REJECTED: Final = "rejected"


class FileView(Protocol):
    """What `judge` asks of the output directory."""

    def compare(self, artifact: Artifact) -> FileComparison: ...
    def in_the_way(self, name: str, own: str | None) -> str | None: ...
    def is_half_published(self, path: str) -> bool: ...
    def barrier(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a person asked for on the command line, as far as it decides what is due."""

    repair: bool = False  # ask again for images that are missing or were changed
    force: bool = False  # replace images that were edited since they were written
    unknown_repeats: int = 1  # `retry.unknown`
    accept: frozenset[Aspect] = frozenset()  # these changes are taken as good without paying
    edits: frozenset[Edit] = frozenset()  # what a person did to images is taken as it is
    accept_refused: bool = False  # refusals are taken as they are
    redo: Mapping[str, str] = field(default_factory=dict)  # id -> words added to the prompt (or ""); wanted anew


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
    is_edit_new: bool = False  # the ledger learns `edit`
    former: str = ""  # id of the task that made the image, before it was renamed to this one
    is_accepted: bool = False  # done; what changed is taken as good: the ledger learns the present request


def decide(task: Task, known: Known | None, files: FileView, rules: Rules) -> Verdict:
    """Say whether `task` is due."""
    own = known.artifact.path if known and known.artifact else None
    if known is not None and known.artifact is not None and task.id in rules.redo:
        return _judge_redo(task, known, files, rules)
    if known is not None and known.artifact is not None and known.artifact_fingerprint == task.fingerprint:
        return _judge_done(task, known, (), files, rules)  # P4, also when a later request was made in between
    if known is None or known.state is TaskState.PENDING or known.state is TaskState.CONFLICT:
        reason = NEW if known is None or known.attempts == 0 else RETRY
        return _unless_blocked(task, own, files, Verdict(state=TaskState.PENDING, reason=reason))
    changed = changed_aspects(task, known)
    if known.state is TaskState.DONE:
        return _judge_done(task, known, changed, files, rules)
    if changed:
        wanted = [aspect for aspect in changed if aspect in task.rerun_when] or changed
        return _unless_blocked(task, own, files, Verdict(state=known.state, reason=f"{wanted[0]} changed"))
    if known.state is TaskState.UNKNOWN and known.unknowns <= rules.unknown_repeats:
        return _unless_blocked(task, own, files, Verdict(state=TaskState.UNKNOWN, reason=RETRY))
    if known.state is TaskState.REFUSED and (known.is_accepted or rules.accept_refused):
        return Verdict(state=TaskState.REFUSED, is_given_up=True, is_accepted=not known.is_accepted)
    return Verdict(state=known.state, note=known.reason)


def _judge_done(task: Task, known: Known, changed: Sequence[Aspect], files: FileView, rules: Rules) -> Verdict:
    assert known.artifact is not None
    path = known.artifact.path
    found = files.compare(known.artifact)
    wanted = [aspect for aspect in changed if aspect in task.rerun_when and aspect not in rules.accept]
    edit = _edit(known, found, rules)
    is_edited = edit is Edit.EDITED or found is FileComparison.CHANGED
    if is_edited and not rules.force and (wanted or (rules.repair and edit is None)):
        return _edited(path)
    if wanted:
        return _unless_blocked(task, path, files, Verdict(state=TaskState.DONE, reason=f"{wanted[0]} changed"))
    if edit is None and found is FileComparison.MISSING:
        reason = MISSING if rules.repair else None
        verdict = Verdict(state=TaskState.DONE, reason=reason, note=f"{path} is missing", is_missing=True)
        return _unless_blocked(task, path, files, verdict)
    if edit is None and found is FileComparison.CHANGED:
        reason = MISSING if rules.repair else None
        return Verdict(state=TaskState.DONE, reason=reason, note=f"{path} was changed", is_missing=True)
    verdict = Verdict(
        state=TaskState.DONE,
        is_accepted=not rules.accept.isdisjoint(changed) or _has_new_metadata(task, known),
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
    path = known.artifact.path
    if known.fingerprint == task.fingerprint and known.unknowns > rules.unknown_repeats:
        note = "its new image may have been billed already and never came; `retry` asks again"
        return Verdict(state=TaskState.UNKNOWN, note=note)
    is_edited = known.edit is Edit.EDITED or files.compare(known.artifact) is FileComparison.CHANGED
    if is_edited and not rules.force:
        return _edited(path)
    return _unless_blocked(task, path, files, Verdict(state=TaskState.DONE, reason=REJECTED))


def _edited(path: str) -> Verdict:
    note = f"{path} was edited since it was written; --force replaces it and keeps it in superseded/"
    return Verdict(state=TaskState.CONFLICT, note=note)


def _unless_blocked(task: Task, own: str | None, files: FileView, verdict: Verdict) -> Verdict:
    """Return `verdict`, or what keeps it from being carried out: a file of somebody else, a folder that is closed."""
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
    if task.fingerprint == known.fingerprint:
        return []
    differing = [aspect for aspect in Aspect if _digest(task.digests, aspect) != _digest(known.digests, aspect)]
    if Aspect.INPUTS in differing and _has_same_pixels(task, known):
        differing.remove(Aspect.INPUTS)
        return differing
    if differing == [Aspect.MODEL] and task.is_default_model and known.digests.model in FORMER_DEFAULTS:
        return []  # nobody changed it: the default was retired, and its images are not bought again
    return differing or [Aspect.PARAMS]


def _has_same_pixels(task: Task, known: Known) -> bool:
    return task.digests.pixels != "" and task.digests.pixels == known.digests.pixels


def _has_new_metadata(task: Task, known: Known) -> bool:
    """Say whether the request is the same but for metadata of its inputs: the ledger learns its fingerprint."""
    is_other = task.fingerprint != known.fingerprint and task.digests.inputs != known.digests.inputs
    return is_other and _has_same_pixels(task, known)


def _digest(digests: Digests, aspect: Aspect) -> str:
    match aspect:
        case Aspect.PROMPT:
            return digests.prompt
        case Aspect.INPUTS:
            return digests.inputs
        case Aspect.PARAMS:
            return digests.params
        case Aspect.MODEL:
            return digests.model

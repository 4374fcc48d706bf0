"""One task and what the ledger knows of it -> due or not, and why: the states and reasons of the contract."""

from dataclasses import dataclass
from typing import Final, Protocol

from pipeline.model import Artifact, Aspect, Digests, Known, Task, TaskState
from pipeline.plan.files import Presence

NEW: Final = "new"
MISSING: Final = "missing"
RETRY: Final = "retry"
REASONS: Final = (NEW, *(f"{aspect} changed" for aspect in Aspect), MISSING, RETRY)


class FileView(Protocol):
    """What `judge` asks of the output directory."""

    def presence(self, artifact: Artifact) -> Presence: ...
    def in_the_way(self, name: str, own: str | None) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a person asked for on the command line, as far as it decides what is due."""

    repair: bool = False  # ask again for images that are missing or were changed
    force: bool = False  # replace images that were edited since they were written
    unknown_repeats: int = 1  # `retry.unknown`
    accept: frozenset[Aspect] = frozenset()  # these changes are taken as good without paying


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reason` None: not due. `note` says what a person should know although nothing will be sent."""

    state: TaskState
    reason: str | None = None
    note: str = ""
    is_missing: bool = False  # done, but its file is gone or was changed
    moves_to: str | None = None  # done, and its output name changed: the file moves there without a request


def judge(task: Task, known: Known | None, files: FileView, rules: Rules) -> Verdict:
    """Say whether `task` is due."""
    own = known.artifact.path if known and known.artifact else None
    if known is not None and known.artifact is not None and known.artifact_fingerprint == task.fingerprint:
        return _judge_done(task, known, None, files, rules)  # P4, also when a later request was made in between
    if known is None or known.state is TaskState.PENDING or known.state is TaskState.CONFLICT:
        reason = NEW if known is None or known.attempts == 0 else RETRY
        return _unless_blocked(task, own, files, Verdict(state=TaskState.PENDING, reason=reason))
    changed = _changed(task, known)
    if known.state is TaskState.DONE:
        return _judge_done(task, known, changed, files, rules)
    if changed is not None:
        return _unless_blocked(task, own, files, Verdict(state=known.state, reason=f"{changed} changed"))
    if known.state is TaskState.UNKNOWN and known.unknowns <= rules.unknown_repeats:
        return _unless_blocked(task, own, files, Verdict(state=TaskState.UNKNOWN, reason=RETRY))
    return Verdict(state=known.state, note=known.reason)


def _judge_done(task: Task, known: Known, changed: Aspect | None, files: FileView, rules: Rules) -> Verdict:
    assert known.artifact is not None
    path = known.artifact.path
    presence = files.presence(known.artifact)
    is_wanted = changed is not None and changed in task.rerun_when and changed not in rules.accept
    if presence is Presence.CHANGED and not rules.force and (is_wanted or rules.repair):
        note = f"{path} was edited since it was written; --force replaces it and keeps it in superseded/"
        return Verdict(state=TaskState.CONFLICT, note=note)
    if is_wanted:
        return _unless_blocked(task, path, files, Verdict(state=TaskState.DONE, reason=f"{changed} changed"))
    if presence is Presence.MISSING:
        reason = MISSING if rules.repair else None
        verdict = Verdict(state=TaskState.DONE, reason=reason, note=f"{path} is missing", is_missing=True)
        return _unless_blocked(task, path, files, verdict)
    if presence is Presence.CHANGED:
        reason = MISSING if rules.repair else None
        return Verdict(state=TaskState.DONE, reason=reason, note=f"{path} was changed", is_missing=True)
    if known.name != task.name:
        return _unless_blocked(task, path, files, Verdict(state=TaskState.DONE, moves_to=task.name))
    return Verdict(state=TaskState.DONE)


def _unless_blocked(task: Task, own: str | None, files: FileView, verdict: Verdict) -> Verdict:
    """Return `verdict`, or a conflict when a file of somebody else stands under the output name."""
    blocker = files.in_the_way(task.name, own)
    if blocker is None:
        return verdict
    note = f"{blocker} is in the way and was not written by this manifest; move it, or change `output`"
    return Verdict(state=TaskState.CONFLICT, note=note)


def _changed(task: Task, known: Known) -> Aspect | None:
    """Return the first aspect that differs from the request the known state belongs to; None: the same request.

    An aspect outside `rerun_when` is passed over when another one changed as well.
    """
    if task.fingerprint == known.fingerprint:
        return None
    differing = [aspect for aspect in Aspect if _digest(task.digests, aspect) != _digest(known.digests, aspect)]
    wanted = [aspect for aspect in differing if aspect in task.rerun_when]
    return next(iter(wanted or differing), Aspect.PARAMS)


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

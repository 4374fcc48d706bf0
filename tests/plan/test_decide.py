"""What is due, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from pipeline.model import Artifact, Aspect, Digests, Edit, FormerReading, Known, Task, TaskState
from pipeline.plan.decide import Rules, decide
from pipeline.settings import FORMER_DEFAULTS
from pipeline.store.files import FileComparison

OLD = Digests("prompt", "inputs", "params", "model")
ARTIFACT = Artifact(path="a.png", sha256="0" * 64, mime="image/png", width=1, height=1, size_bytes=1, mtime_ns=1)


@dataclass
class FakeFiles:
    """An output directory in words."""

    state: FileComparison = FileComparison.SAME
    blockers: Mapping[str, str] = field(default_factory=dict)
    half_published: frozenset[str] = frozenset()
    barred: str | None = None

    def compare(self, artifact: Artifact) -> FileComparison:
        return self.state

    def in_the_way(self, name: str, own: str | None) -> str | None:
        return self.blockers.get(name)

    def barrier(self, name: str) -> str | None:
        return self.barred

    def is_half_published(self, path: str) -> bool:
        return path in self.half_published


def task(digests: Digests = OLD, **fields: object) -> Task:
    fingerprint = "old" if digests == OLD else "new"
    known: dict[str, object] = {"prompt": "a", "model": "m", "name": "a", "fingerprint": fingerprint}
    return Task(id="j/a", job="j", row="a", variant=1, digests=digests, **{**known, **fields})  # type: ignore[arg-type]


def known(state: TaskState, **fields: object) -> Known:
    values: dict[str, object] = {
        "id": "j/a",
        "fingerprint": "old",
        "digests": OLD,
        "name": "a",
        "artifact": ARTIFACT if state is TaskState.DONE else None,
        "attempts": 1,
        "unknowns": 0,
        "cost_microusd": 0,
        "reason": "",
        "updated_at": datetime.now(UTC),
    }
    return Known(state=state, **{**values, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "fields", "reason"),
    [
        (TaskState.PENDING, {"attempts": 0}, "new"),
        (TaskState.PENDING, {}, "retry"),
        (TaskState.DONE, {}, None),
        (TaskState.FAILED, {}, None),
        (TaskState.REFUSED, {}, None),
        (TaskState.UNKNOWN, {"unknowns": 1}, "retry"),
        (TaskState.UNKNOWN, {"unknowns": 2}, None),
        (TaskState.CONFLICT, {}, "retry"),
    ],
)
def test_an_unchanged_task_is_due_by_its_state(state: TaskState, fields: dict[str, object], reason: str | None) -> None:
    assert decide(task(), known(state, **fields), FakeFiles(), Rules()).reason == reason


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.FAILED, TaskState.REFUSED, TaskState.UNKNOWN])
def test_P4_an_image_of_the_present_request_is_there_whatever_was_asked_since(state: TaskState) -> None:
    since = known(state, fingerprint="another", artifact=ARTIFACT, artifact_fingerprint="old")
    assert decide(task(), since, FakeFiles(), Rules()).reason is None


def test_other_metadata_of_an_input_image_is_no_difference() -> None:
    before = known(TaskState.DONE, digests=Digests("prompt", "inputs", "params", "model", pixels="same"))
    for pixels, reason in (("same", None), ("others", "inputs changed")):
        asked = task(Digests("prompt", "starred", "params", "model", pixels=pixels))
        assert decide(asked, before, FakeFiles(), Rules()).reason == reason


def test_a_task_the_ledger_does_not_know_is_new() -> None:
    assert decide(task(), None, FakeFiles(), Rules()).reason == "new"


@pytest.mark.parametrize("state", [TaskState.DONE, TaskState.FAILED, TaskState.REFUSED])
@pytest.mark.parametrize(
    ("digests", "reason"),
    [
        (Digests("other", "inputs", "params", "model"), "prompt changed"),
        (Digests("prompt", "other", "params", "model"), "inputs changed"),
        (Digests("prompt", "inputs", "other", "model"), "params changed"),
        (Digests("prompt", "inputs", "params", "other"), "model changed"),
    ],
)
def test_a_changed_request_is_due_with_what_changed(state: TaskState, digests: Digests, reason: str) -> None:
    assert decide(task(digests), known(state), FakeFiles(), Rules()).reason == reason


@pytest.mark.parametrize("is_default", [True, False])
def test_only_the_default_may_follow_a_retired_model_without_a_purchase(is_default: bool) -> None:
    before = known(TaskState.DONE, digests=Digests("prompt", "inputs", "params", min(FORMER_DEFAULTS)))
    digests = Digests("prompt", "inputs", "params", "newer")
    former = FormerReading(row="a", fields={}, fingerprint="former", digests=digests)
    read_otherwise = task(Digests("PROMPT", "inputs", "params", "newer"), is_default_model=is_default, former=former)
    for asked in (task(digests, is_default_model=is_default), read_otherwise):
        assert (decide(asked, before, FakeFiles(), Rules()).reason is None) is is_default


def test_rerun_when_leaves_other_changes_alone() -> None:
    changed = task(Digests("prompt", "inputs", "params", "other"), rerun_when=(Aspect.PROMPT,))
    assert decide(changed, known(TaskState.DONE), FakeFiles(), Rules()).reason is None


def test_rerun_when_sees_its_aspect_behind_another_change() -> None:
    changed = task(Digests("other", "inputs", "params", "other"), rerun_when=(Aspect.MODEL,))
    assert decide(changed, known(TaskState.DONE), FakeFiles(), Rules()).reason == "model changed"


def test_a_request_by_cells_as_they_were_read_before_is_the_same() -> None:
    former = FormerReading(row="a", fields={}, fingerprint="old", digests=OLD)
    changed = task(Digests("shown", "inputs", "params", "model"), former=former)
    verdict = decide(changed, known(TaskState.DONE, artifact_fingerprint="old"), FakeFiles(), Rules())
    assert (verdict.reason, verdict.is_accepted) == (None, True)
    failed = decide(changed, known(TaskState.FAILED), FakeFiles(), Rules())
    assert failed.reason is None
    other = known(TaskState.DONE, fingerprint="other", digests=Digests("other", "inputs", "params", "model"))
    assert decide(changed, other, FakeFiles(), Rules()).reason == "prompt changed"


def test_an_accepted_change_is_not_paid_for() -> None:
    changed = task(Digests("prompt", "inputs", "params", "other"))
    assert decide(changed, known(TaskState.DONE), FakeFiles(), Rules(accept=frozenset({Aspect.MODEL}))).reason is None


@pytest.mark.parametrize("presence", [FileComparison.MISSING, FileComparison.CHANGED])
def test_L09_a_lost_image_is_reported_and_asked_again_only_with_repair(presence: FileComparison) -> None:
    plain = decide(task(), known(TaskState.DONE), FakeFiles(presence), Rules())
    assert plain.reason is None
    assert plain.is_missing
    repaired = decide(task(), known(TaskState.DONE), FakeFiles(presence), Rules(repair=True, force=True))
    assert repaired.reason == "missing"


def test_an_edited_image_is_never_replaced_without_force() -> None:
    changed, files = task(Digests("other", "inputs", "params", "model")), FakeFiles(FileComparison.CHANGED)
    assert decide(changed, known(TaskState.DONE), files, Rules()).state is TaskState.CONFLICT
    assert decide(changed, known(TaskState.DONE), files, Rules(repair=True)).reason is None
    assert decide(changed, known(TaskState.DONE), files, Rules(force=True)).reason == "prompt changed"
    assert decide(task(), known(TaskState.DONE), files, Rules(repair=True)).state is TaskState.CONFLICT
    accepted = known(TaskState.DONE, edit=Edit.EDITED)  # by an earlier run: the file is as it was recorded then
    assert decide(changed, accepted, FakeFiles(), Rules()).state is TaskState.CONFLICT


@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.DONE])
def test_nothing_is_bought_that_an_edited_image_of_an_earlier_request_would_block(state: TaskState) -> None:
    asked = task(Digests("other", "inputs", "params", "model"))
    made_before = known(state, artifact=ARTIFACT, artifact_fingerprint="older")
    assert decide(asked, made_before, FakeFiles(), Rules()).reason is not None
    edited = FakeFiles(FileComparison.CHANGED)
    assert decide(asked, made_before, edited, Rules()).state is TaskState.CONFLICT
    assert decide(asked, made_before, edited, Rules(force=True)).reason is not None
    accepted = known(state, artifact=ARTIFACT, artifact_fingerprint="older", edit=Edit.EDITED)
    assert decide(asked, accepted, FakeFiles(), Rules()).state is TaskState.CONFLICT
    assert decide(asked, accepted, FakeFiles(FileComparison.MISSING), Rules()).reason is not None


def test_nothing_is_bought_for_a_folder_that_takes_no_image() -> None:
    verdict = decide(task(), None, FakeFiles(barred="the folder a cannot be written to"), Rules())
    assert (verdict.reason, verdict.barrier) == (None, "the folder a cannot be written to")


def test_what_stands_in_the_place_of_a_lost_image_can_be_accepted() -> None:
    files = FakeFiles(FileComparison.MISSING, blockers={"a": "a.jpg"})
    verdict = decide(task(), known(TaskState.DONE), files, Rules(repair=True))
    assert verdict.state is TaskState.CONFLICT
    assert "--accept edited" in verdict.note


@pytest.mark.parametrize(
    ("before", "now", "is_given_up", "is_written"),
    [(False, False, False, False), (False, True, True, True), (True, False, True, False)],
    ids=["never", "now", "since an earlier run"],
)
def test_a_refusal_that_was_accepted_stays_so(before: bool, now: bool, is_given_up: bool, is_written: bool) -> None:
    verdict = decide(task(), known(TaskState.REFUSED, is_accepted=before), FakeFiles(), Rules(accept_refused=now))
    assert (verdict.reason, verdict.is_given_up, verdict.is_accepted) == (None, is_given_up, is_written)


@pytest.mark.parametrize(("attempts", "state"), [(1, TaskState.PENDING), (0, TaskState.CONFLICT)])
def test_R09_what_a_killed_run_had_just_linked_is_no_conflict(attempts: int, state: TaskState) -> None:
    files = FakeFiles(blockers={"a": "a.png"}, half_published=frozenset({"a.png"}))
    assert decide(task(), known(TaskState.PENDING, attempts=attempts), files, Rules()).state is state


def test_D09_a_foreign_file_in_the_way_is_a_conflict_before_anything_is_spent() -> None:
    verdict = decide(task(), None, FakeFiles(blockers={"a": "a.jpg"}), Rules(force=True))
    assert verdict.state is TaskState.CONFLICT
    assert verdict.reason is None
    assert "a.jpg" in verdict.note


def test_a_new_output_name_moves_the_file_without_a_request() -> None:
    verdict = decide(task(name="b"), known(TaskState.DONE), FakeFiles(), Rules())
    assert verdict.reason is None
    assert verdict.moves_to == "b"


@pytest.mark.parametrize(
    ("digests", "accept", "reason", "is_accepted"),
    [
        (Digests("prompt", "inputs", "params", "other"), {Aspect.MODEL}, None, True),
        (Digests("other", "inputs", "params", "other"), {Aspect.PROMPT}, "model changed", False),
        (Digests("other", "inputs", "params", "other"), {Aspect.PROMPT, Aspect.MODEL}, None, True),
        (Digests("prompt", "inputs", "params", "other"), {Aspect.PROMPT}, "model changed", False),
        (OLD, {Aspect.PROMPT}, None, False),
    ],
    ids=["it changed", "another one changed too", "both accepted", "not what changed", "nothing changed"],
)
def test_accept_covers_exactly_what_it_names(
    digests: Digests, accept: set[Aspect], reason: str | None, is_accepted: bool
) -> None:
    verdict = decide(task(digests), known(TaskState.DONE), FakeFiles(), Rules(accept=frozenset(accept)))
    assert (verdict.reason, verdict.is_accepted) == (reason, is_accepted)


@pytest.mark.parametrize("presence", [FileComparison.MISSING, FileComparison.CHANGED])
def test_accept_takes_only_images_that_are_there_and_whole(presence: FileComparison) -> None:
    changed = task(Digests("prompt", "inputs", "params", "other"))
    rules = Rules(accept=frozenset({Aspect.MODEL}))
    assert not decide(changed, known(TaskState.DONE), FakeFiles(presence), rules).is_accepted


def test_redo_asks_for_an_image_that_is_there() -> None:
    verdict = decide(task(), known(TaskState.DONE), FakeFiles(), Rules(redo={"j/a": ""}))
    assert (verdict.state, verdict.reason) == (TaskState.DONE, "rejected")


def test_P3_redo_repeats_what_may_have_been_billed_no_oftener_than_a_run() -> None:
    rules = Rules(redo={"j/a": ""}, unknown_repeats=1)
    assert decide(task(), known(TaskState.DONE, unknowns=1), FakeFiles(), rules).reason == "rejected"
    former = FormerReading(row="a", fields={}, fingerprint="old", digests=OLD)
    for asked in (task(), task(Digests("shown", "inputs", "params", "model"), former=former)):
        verdict = decide(asked, known(TaskState.DONE, unknowns=2), FakeFiles(), rules)
        assert (verdict.state, verdict.reason) == (TaskState.UNKNOWN, None)


def test_P6_redo_does_not_replace_an_edited_image_without_force() -> None:
    files, redo = FakeFiles(FileComparison.CHANGED), frozenset({"j/a"})
    assert decide(task(), known(TaskState.DONE), files, Rules(redo=redo)).state is TaskState.CONFLICT
    assert decide(task(), known(TaskState.DONE), files, Rules(redo=redo, force=True)).reason == "rejected"

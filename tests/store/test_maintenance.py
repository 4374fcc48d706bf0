"""What a person orders between requests: accepted changes, tasks that have their image, bodies read again."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial

import msgspec
import pytest

from pipeline.errors import TryLater
from pipeline.model import Artifact, Billed, Failure, Fault, FormerReading, Task, TaskState
from pipeline.store.maintenance import Maintenance
from pipeline.store.marks import NAME, Marks, read_marks
from pipeline.store.rejected import list_rejected
from tests.store.conftest import Bench, Reopen
from tests.store.fakes import PRICE, answer, close, image, task

REFUSED = Failure(fault=Fault.REFUSED, billed=Billed.YES, reason="IMAGE_SAFETY", status=200)
BROKEN = Failure(fault=Fault.BROKEN, billed=Billed.YES, reason="cut", status=200, body=b'{"cut', suffix=".json")


async def fail(bench: Bench, failure: Failure, state: TaskState, *, prompt: str = "a cat") -> int:
    intent = await bench.store.begin(task(1, prompt=prompt), run=bench.run, reserved_microusd=PRICE)
    await close(bench.store, intent, failure, state=state, cost_microusd=PRICE, unknown_microusd=0, seconds=1)
    return intent.id


async def test_an_accepted_task_has_the_present_request_and_its_old_image(bench: Bench, reopen: Reopen) -> None:
    made = await bench.make(task(1))
    asked = task(1, prompt="a CAT")
    assert await bench.store.maintain(partial(Maintenance.accept, tasks=[asked, task(2)])) == 1
    await reopen()
    with bench.reader() as reader:
        known, record = reader.known("cats/1"), reader.record("cats/1")
    assert known is not None
    assert record is not None
    assert (known.state, known.fingerprint, known.artifact) == (TaskState.DONE, asked.fingerprint, made)
    assert known.artifact_fingerprint == asked.fingerprint
    assert (record["prompt"], record["fingerprint"]) == ("a cat", task(1).fingerprint)


async def test_only_done_tasks_are_accepted(bench: Bench) -> None:
    await fail(bench, REFUSED, TaskState.REFUSED)
    assert await bench.store.maintain(partial(Maintenance.accept, tasks=[task(1, prompt="a CAT")])) == 0


async def test_a_task_of_another_manifest_that_has_the_same_id_does_not_fail_with_it(
    bench: Bench, reopen: Reopen
) -> None:
    broken = Failure(fault=Fault.BROKEN, billed=Billed.YES, reason="cut")
    for manifest in ("n", "m"):
        await reopen(manifest=manifest)
        await fail(bench, broken, TaskState.PENDING)
    assert await bench.store.fail(["cats/1"]) == 1
    for manifest, state in (("n", TaskState.PENDING), ("m", TaskState.FAILED)):
        with bench.reader(manifest) as reader:
            known = reader.known("cats/1")
        assert known is not None
        assert known.state is state


@pytest.mark.parametrize(
    ("settled", "is_billed", "state", "unknowns"),
    [(1, False, TaskState.PENDING, 0), (1, True, TaskState.FAILED, 0), (0, True, TaskState.UNKNOWN, 1)],
    ids=["present-free", "present-billed", "earlier-billed"],
)
async def test_what_is_settled_says_nothing_of_another_request(
    bench: Bench, settled: int, is_billed: bool, state: TaskState, unknowns: int
) -> None:
    silence = Failure(fault=Fault.SILENCE, billed=Billed.MAYBE, reason="no answer")
    asked = [await fail(bench, silence, TaskState.UNKNOWN, prompt=prompt) for prompt in ("a cat", "a dog")]
    await bench.store.maintain(partial(Maintenance.settle, attempts=[asked[settled]], is_billed=is_billed))
    with bench.reader() as reader:
        known = reader.known("cats/1")
    assert known is not None
    assert (known.state, known.unknowns) == (state, unknowns)


def read_as_before(prompt: str) -> Task:
    """The request that was `prompt` to an earlier version."""
    before = task(1, prompt=prompt)
    former = FormerReading(row=before.row, fields={}, fingerprint=before.fingerprint, digests=before.digests)
    return msgspec.structs.replace(task(1, prompt="as it is compared now"), former=former)


async def test_a_refusal_is_accepted_also_by_what_an_earlier_version_called_it(bench: Bench) -> None:
    await fail(bench, REFUSED, TaskState.REFUSED)
    assert await bench.store.maintain(partial(Maintenance.accept, tasks=[read_as_before("a cat")])) == 1
    with bench.reader() as reader:
        known = reader.known("cats/1")
    assert known is not None
    assert known.is_accepted


async def test_unknowns_of_what_an_earlier_version_called_otherwise_are_counted_on(bench: Bench) -> None:
    lost = Failure(fault=Fault.SILENCE, billed=Billed.MAYBE, reason="silence")
    await fail(bench, lost, TaskState.UNKNOWN)
    await bench.store.begin(read_as_before("a cat"), run=bench.run, reserved_microusd=PRICE)
    with bench.reader() as reader:
        known = reader.known("cats/1")
    assert known is not None
    assert known.unknowns == 1


async def test_a_task_keeps_its_id_until_its_marks_can_go_along(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.make(task(1))
    with Marks(bench.state, manifest="m") as marks:
        marks.edit({"cats/1": {"kind": "picked"}}, at_ms=1)
    order = partial(Maintenance.take_over, renamed=[("cats/1", task(2))])
    monkeypatch.setattr("pipeline.store.marks.BUSY_S", 0.01)
    with closing(sqlite3.connect(bench.state / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TryLater):
            await bench.store.maintain(order)
    assert await bench.store.maintain(order) == 1
    assert list(read_marks(bench.state, manifest="m")) == ["cats/2"]


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.FAILED, TaskState.REFUSED, TaskState.UNKNOWN])
async def test_a_later_attempt_takes_no_image_away(bench: Bench, state: TaskState) -> None:
    made = await bench.make(task(1))
    await fail(bench, REFUSED, state)
    await bench.store.maintain(Maintenance.restore)  # of ledgers that were closed before closing kept it
    with bench.reader() as reader:
        known = reader.known("cats/1")
    assert known is not None
    assert (known.state, known.artifact, known.cost_microusd) == (TaskState.DONE, made, 2 * PRICE)


async def test_an_image_of_another_request_does_not_make_a_task_done(bench: Bench) -> None:
    await bench.make(task(1))
    await fail(bench, REFUSED, TaskState.REFUSED, prompt="a dog")
    assert await bench.store.maintain(Maintenance.restore) == 0


async def test_a_removed_image_is_nobodys_twin(bench: Bench) -> None:
    intent = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    made = await bench.store.images.put(intent, answer(1))
    assert isinstance(made, Artifact)
    flagged = replace(made, flags={"twin": "of another"}, look="0f")
    await bench.store.finish(intent, flagged, cost_microusd=PRICE, seconds=1.0)
    await bench.store.maintain(partial(Maintenance.forget_image, task_id="cats/1"))
    with bench.reader() as reader:
        known, looks = reader.known("cats/1"), reader.looks("cats", most=9)
    assert known is not None
    assert (known.state, known.flags, looks) == (TaskState.PENDING, {}, {})


async def test_a_body_that_can_be_read_after_all_becomes_its_tasks_image(bench: Bench) -> None:
    await fail(bench, BROKEN, TaskState.FAILED)
    (kept,) = list_rejected(bench.state)
    found = await bench.store.maintain(partial(Maintenance.publish_again, kept=kept, image=image(5)))
    assert found.recovered == 1
    assert list(list_rejected(bench.state)) == []
    with bench.reader() as reader:
        known = reader.known("cats/1")
    assert known is not None
    assert known.artifact is not None
    assert (known.state, known.artifact.sha256, known.cost_microusd) == (TaskState.DONE, image(5).sha256, PRICE)


async def test_a_body_of_a_task_that_has_an_image_stays(bench: Bench) -> None:
    await bench.make(task(1))
    await fail(bench, BROKEN, TaskState.FAILED)
    await bench.store.maintain(Maintenance.restore)
    (kept,) = list_rejected(bench.state)
    found = await bench.store.maintain(partial(Maintenance.publish_again, kept=kept, image=image(5)))
    assert found.recovered == 0
    assert kept.path.exists()


async def test_a_body_this_ledger_does_not_know_stays_and_is_told(bench: Bench, reopen: Reopen) -> None:
    await fail(bench, BROKEN, TaskState.FAILED)
    (kept,) = list_rejected(bench.state)
    await bench.store.aclose()
    for file in bench.state.glob("ledger.sqlite*"):
        file.unlink()
    await reopen()
    found = await bench.store.maintain(partial(Maintenance.publish_again, kept=kept, image=image(5)))
    assert "its attempt is not in this ledger" in found.notes[0]
    assert kept.path.exists()

"""An image that a check with the action `redo` flags is asked for again, in its run and within the budget."""

import pytest

from pipeline.engine.events import RetryScheduled, TaskEnded
from pipeline.model import Artifact, Due, Failure, Fault, ImageChecks, TaskState
from pipeline.settings import Budget, Limits, StopOn
from tests.engine.fakes import PRICE, FakeSender, artifact, task
from tests.engine.test_run import Bench

REDO = ImageChecks(names=("blank", "aspect"), redo=("blank",))
BLANK = artifact("blank", flags={"blank": "nearly one colour"})
WIDE = artifact("wide", flags={"aspect": "is not 1:1"})
GOOD = artifact("good")


@pytest.mark.parametrize(
    ("script", "most", "kept", "asked"),
    [
        pytest.param([BLANK, GOOD], 1, GOOD, 2, id="a-better-one"),
        pytest.param([BLANK, BLANK, GOOD], 1, BLANK, 2, id="once-and-no-more"),
        pytest.param([BLANK, BLANK, GOOD], 2, GOOD, 3, id="as-often-as-allowed"),
        pytest.param([WIDE, GOOD], 1, WIDE, 1, id="another-check-only-flags"),
        pytest.param([BLANK, Fault.REFUSED], 1, BLANK, 2, id="none-comes"),
        pytest.param([BLANK, Fault.SILENCE, Fault.SILENCE], 1, BLANK, 3, id="nobody-knows"),
        pytest.param([BLANK, Fault.BAD_REQUEST], 1, BLANK, 2, id="it-may-not-be-asked"),
        pytest.param([BLANK, GOOD], 0, BLANK, 1, id="never"),
    ],
)
async def test_a_flagged_image_is_asked_for_again(
    script: list[Fault | Failure | Artifact | Exception | None], most: int, kept: Artifact, asked: int
) -> None:
    bench = Bench(FakeSender({"job/a": script}), limits=Limits(stop_on=StopOn(consecutive_failures=1)))
    checks = ImageChecks(names=REDO.names, redo=REDO.redo, most_redos=most)
    counts = await bench.engine.run([Due(task=task("job/a", checks=checks), reason="new")])
    (ended,) = (event for event in bench.events if isinstance(event, TaskEnded))
    assert (ended.state, ended.artifact, counts.states[TaskState.DONE]) == (TaskState.DONE, kept, 1)
    assert (len(bench.sender.sent), len(bench.engine.halts)) == (asked, 0)


async def test_what_is_asked_again_is_told_and_paid() -> None:
    bench = Bench(FakeSender({"job/a": [BLANK, GOOD]}))
    await bench.engine.run([Due(task=task("job/a", checks=REDO), reason="new")])
    (told,) = (event for event in bench.events if isinstance(event, RetryScheduled))
    assert told.reason == "flagged blank: nearly one colour"
    assert bench.wallet.spent_microusd == 2 * PRICE


async def test_a_budget_without_room_for_it_stops_nothing() -> None:
    bench = Bench(FakeSender({"job/a": [BLANK, GOOD]}), limits=Limits(budget=Budget(run=PRICE)))
    counts = await bench.engine.run([Due(task=task("job/a", checks=REDO), reason="new")])
    assert (len(bench.sender.sent), counts.states[TaskState.DONE], len(bench.engine.halts)) == (1, 1, 0)

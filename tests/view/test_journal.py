import logging
from dataclasses import replace

import pytest

from pipeline.engine.events import AttemptEnded, AttemptStarted, Halted, Paused, RetryScheduled, RunEnded, Warned
from pipeline.errors import Exit
from pipeline.model import Fault, TaskState
from pipeline.view.logs import Journal, level, line

ENDED = AttemptEnded(
    task_id="posters/oslo",
    attempt=12,
    number=2,
    seconds=3.14159,
    fault=Fault.SILENCE,
    reason="no answer",
    status=None,
    request_id=None,
    cost_microusd=0,
    unknown_microusd=39_000,
)


def test_an_attempt_that_brought_an_image_is_no_secret_of_debug_logs() -> None:
    """How long an image took is in every JSON log, not only in a verbose one."""
    event = replace(ENDED, fault=None, reason="")
    name, _, fields = line(event, False)
    assert (level(event), name, fields["seconds"]) == (logging.INFO, "attempt_ended", 3.142)


@pytest.mark.parametrize("fault", [None, Fault.NO_IMAGE], ids=["H60-image", "no-image"])
def test_an_attempts_line_says_what_was_noted_of_its_answer(fault: Fault | None) -> None:
    text = line(replace(ENDED, fault=fault, reason="3 images came"), False)[1]
    assert text.endswith(" after 3.1 s: 3 images came")


def test_an_attempt_carries_the_promised_fields() -> None:
    name, _, fields = line(ENDED, False)
    assert (level(ENDED), name) == (logging.INFO, "attempt_ended")
    assert {key: fields[key] for key in ("task", "attempt", "seconds", "price_usd", "unknown_usd", "fault")} == {
        "task": "posters/oslo",
        "attempt": 12,
        "seconds": 3.142,
        "price_usd": 0.0,
        "unknown_usd": 0.039,
        "fault": "silence",
    }


def test_event_names_are_stable(started, ended, summary) -> None:
    events = [
        started(),
        AttemptStarted(task_id="a", attempt=1, number=1, price_microusd=None),
        ENDED,
        RetryScheduled(task_id="a", number=1, wait_s=2.0, reason="outage"),
        ended(),
        Paused(reason="throttled", seconds=3.0),
        Warned(text="old model"),
        Halted(exit=Exit.TRY_LATER, reason="quota"),
        RunEnded(summary=summary()),
    ]
    assert [line(event, False)[0] for event in events] == [
        "run_started",
        "attempt_started",
        "attempt_ended",
        "retry_scheduled",
        "task_ended",
        "paused",
        "warned",
        "halted",
        "run_ended",
    ]


def test_the_resume_line_says_what_is_due_and_what_it_may_cost(started) -> None:
    text = line(started(), False)[1]
    assert text == "resume: 40 done, 2 recovered, 1 unknown ($0.039), 60 to do, at most $2.34"


def test_a_lost_task_is_a_warning_and_a_done_one_is_not(ended) -> None:
    assert level(ended(TaskState.REFUSED, reason="IMAGE_SAFETY")) == logging.WARNING
    assert level(ended()) == logging.INFO


def test_the_journal_logs_play_money_as_such(started, ended, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(logging.getLogger("imgpipe.test"))
    with caplog.at_level(logging.INFO, "imgpipe.test"):
        journal(started(is_play_money=True))
        journal(ended())
    assert caplog.messages[-1] == "posters/lisbon done -> posters/lisbon.png (play $0.039)"
    assert caplog.records[-1].event == "task_ended"
    assert "reason" not in caplog.records[-1].fields

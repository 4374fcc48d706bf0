import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from pipeline.model import Artifact, TaskState
from pipeline.store.rows import Unknown
from pipeline.view.explain import AttemptLine, Request
from pipeline.view.status import (
    Status,
    StatusTask,
    TaskHistory,
    show_history,
    show_status,
    show_tasks,
    status_json,
    status_lines,
)

UNKNOWN = Unknown(
    task_id="posters/oslo",
    attempt=70,
    number=12,
    is_open=False,
    sent_at=datetime(2026, 11, 22, 19, 24, 51, tzinfo=UTC),
    price_microusd=39_000,
    reason="",
    request_id="req-1",
)
STATUS = Status(
    states={TaskState.DONE: 312, TaskState.UNKNOWN: 1},
    run_microusd=390_000,
    day_microusd=780_000,
    month_microusd=12_000_000,
    unknown_microusd=39_000,
    unknowns=(UNKNOWN,),
    not_before="2026-11-23T08:00:00Z",
    missing=3,
    orphaned=5,
)
MADE = Artifact(
    path="posters/lisbon.png",
    sha256="ab" * 32,
    mime="image/png",
    width=1344,
    height=768,
    size_bytes=1_200_000,
    mtime_ns=1,
)
DONE = StatusTask(
    id="posters/lisbon", job="posters", state=TaskState.DONE, artifact=MADE, attempts=2, cost_microusd=39_000, reason=""
)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100, color_system=None)


def seen(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_status_json_has_exactly_the_keys_of_the_contract() -> None:
    assert json.loads(json.dumps(status_json(STATUS))) == {
        "tasks": {"done": 312, "unknown": 1},
        "cost_usd": {"run": 0.39, "day": 0.78, "month": 12.0, "unknown": 0.039},
        "unknown": [
            {
                "task": "posters/oslo",
                "attempt": 12,
                "sent_at": "2026-11-22T19:24:51Z",
                "price_usd": 0.039,
                "request_id": "req-1",
            }
        ],
        "not_before": "2026-11-23T08:00:00Z",
        "missing": 3,
        "orphaned": 5,
        "running": None,
        "flagged": {},
        "edited": 0,
        "absent": 0,
    }


def test_tasks_follow_the_status_one_object_each() -> None:
    failed = replace(DONE, id="posters/oslo", state=TaskState.FAILED, artifact=None, reason="400")
    first, done, lost = status_lines(STATUS, [DONE, failed])
    assert first == status_json(STATUS)
    assert done == {
        "id": "posters/lisbon",
        "job": "posters",
        "state": "done",
        "path": "posters/lisbon.png",
        "sha256": "ab" * 32,
        "mime": "image/png",
        "width": 1344,
        "height": 768,
        "attempts": 2,
        "cost_usd": 0.039,
        "reason": "",
    }
    assert (lost["path"], lost["width"], lost["reason"]) == (None, None, "400")


def test_status_shows_tasks_money_unknowns_and_the_wait(console: Console) -> None:
    show_status(STATUS, console)
    text = seen(console)
    for part in ("312", "313", "$0.39", "$0.78", "$12.00", "maybe billed", "Nothing is sent before 2026-11-23T08"):
        assert part in text
    assert "unknown: posters/oslo, attempt 12 sent 2026-11-22T19:24:51Z, $0.039" in text


@pytest.mark.parametrize(
    ("states", "missing", "said"),
    [
        ({}, 0, "No task is selected."),
        ({TaskState.DONE: 1}, 0, "The image is there."),
        ({TaskState.DONE: 1200, TaskState.FAILED: 0}, 0, "All 1,200 images are there."),
        ({TaskState.DONE: 1, TaskState.FAILED: 1}, 0, "1 of 2 images is there; 1 failed."),
        ({TaskState.DONE: 5, TaskState.UNKNOWN: 2, TaskState.PENDING: 3}, 1,
         "4 of 10 images are there; 2 unknown, 3 pending, 1 missing or changed."),
    ],
    ids=["none", "one", "all", "half", "mixed"],
)  # fmt: skip
def test_the_first_line_says_how_far_it_is(
    console: Console, states: dict[TaskState, int], missing: int, said: str
) -> None:
    show_status(replace(STATUS, states=states, missing=missing), console)
    assert seen(console).splitlines()[0] == said


def test_status_of_a_rehearsal_is_play_money(console: Console) -> None:
    show_status(replace(STATUS, is_play_money=True), console)
    assert "play $12.00" in seen(console)


def test_tasks_are_one_line_each(console: Console) -> None:
    refused = replace(DONE, id="a/[b]\n", state=TaskState.REFUSED, artifact=None, reason="IMAGE_SAFETY\x1b[2J")
    show_tasks([DONE, refused], console, is_play_money=False)
    assert seen(console).splitlines() == [
        "done       $0.039  posters/lisbon  posters/lisbon.png",
        r"refused    $0.039  a/[b]\n  IMAGE_SAFETY\x1b[2J",
    ]


def test_history_tells_every_attempt(console: Console) -> None:
    attempts = [
        AttemptLine(
            attempt=3,
            sent_at="2026-11-22T19:24:51Z",
            outcome="silence",
            seconds=300.0,
            cost_microusd=0,
            unknown_microusd=39_000,
            reason="no answer [x]",
            request_id="req-1",
        )
    ]
    asked = [
        ("attempt 3 asked for", Request(prompt="A mug\x1b[2J", model="gemini")),
        ("a run asks next for", Request(prompt="A bottle\non a table", model="gemini")),
    ]
    show_history(TaskHistory(task=DONE, attempts=attempts, asked=asked), console, is_play_money=False)
    text = seen(console)
    assert "attempt 3 asked for\nprompt      A mug\\x1b[2J\n" in text
    assert "a run asks next for\nprompt      A bottle\n            on a table\n" in text
    assert "posters/lisbon: done, 2 attempts, $0.039" in text
    assert "1344 × 768  1.2 MB" in text
    for part in (
        "silence",
        "5 min 00 s",
        "maybe $0.039",
        "2026-11-22T19:24:51Z",
        "no answer [x]",
        "attempt 3: request id req-1",
    ):
        assert part in text

"""Events and gauges as a run would tell them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from pipeline.engine.events import Gauge, RunStarted, RunSummary, TaskEnded
from pipeline.errors import Exit
from pipeline.model import Artifact, TaskState
from tests.report.sheets import CHROMIUM, FLAGS, Sheet

SUMMARY = RunSummary(
    run=7,
    exit=Exit.OK,
    total=100,
    done=60,
    skipped=40,
    failed=0,
    refused=0,
    unknown=0,
    pending=0,
    conflict=0,
    attempts=61,
    images=60,
    bytes=56_000_000,
    seconds=72.25,
    spent_microusd=2_340_000,
    unknown_microusd=0,
    budget_left_microusd=None,
    not_before=None,
    is_play_money=False,
    reasons=(),
)
STARTED = RunStarted(
    run=7,
    total=100,
    due=60,
    skipped=40,
    recovered=2,
    unknown=1,
    unknown_microusd=39_000,
    at_most_microusd=2_340_000,
    budget_microusd=20_000_000,
    is_play_money=False,
)
GAUGE = Gauge(
    in_flight=12,
    limit=16,
    concurrency=24,
    spent_microusd=620_000,
    unknown_microusd=0,
    reserved_microusd=0,
    budget_left_microusd=None,
    pause_reason=None,
    pause_left_s=0.0,
)
ARTIFACT = Artifact(
    path="posters/lisbon.png", sha256="ab" * 32, mime="image/png", width=1344, height=768, size_bytes=1000, mtime_ns=1
)


class FakeClock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def summary() -> Callable[..., RunSummary]:
    return lambda **changes: replace(SUMMARY, **changes)


@pytest.fixture
def started() -> Callable[..., RunStarted]:
    return lambda **changes: replace(STARTED, **changes)


@pytest.fixture
def gauge() -> Callable[..., Gauge]:
    return lambda **changes: replace(GAUGE, **changes)


@pytest.fixture
def ended() -> Callable[..., TaskEnded]:
    def make(state: TaskState = TaskState.DONE, task_id: str = "posters/lisbon", reason: str = "") -> TaskEnded:
        artifact = ARTIFACT if state is TaskState.DONE else None
        return TaskEnded(
            task_id=task_id,
            job="posters",
            state=state,
            reason=reason,
            artifact=artifact,
            attempts=1,
            cost_microusd=39_000,
        )

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(reason="no chromium here: the page of the report is not tested (apt-get install chromium)")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the page is not tested")
    with driver.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light", accept_downloads=True)
    made.add_init_script("window.showSaveFilePicker = undefined")
    made.set_default_timeout(8000)
    yield made
    made.close()


@pytest.fixture(scope="module")
def window(context: Any) -> Sheet:
    """Return the page of a module: one for each test took as much CPU again as the test."""
    return Sheet(context)


@pytest.fixture
def fresh(window: Sheet) -> Iterator[Sheet]:
    """Lend the page of the module for a report, and leave nothing of it behind."""
    yield window
    window.page.evaluate("localStorage.clear()")
    window.page.emulate_media(color_scheme="light")
    window.page.goto("about:blank")

"""What is shown of the workers of a cluster; a run without them shows nothing."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipeline.engine.events import WorkerChanged, Workers
from pipeline.model import TaskState
from pipeline.store.rows import RunSnapshot
from pipeline.view.logs import level, line
from pipeline.view.progress import ProgressCounts, progress_line, screen
from pipeline.view.run import run_json
from pipeline.view.status import running_sentence, status_json
from tests.view.test_journal import ENDED
from tests.view.test_status import STATUS

WORKERS = Workers(started=4, lost=2, ready=3)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
GOING = RunSnapshot(
    run=3, manifest="shop", started_at=NOW - timedelta(seconds=57), seen_at=NOW, due=492, found={},
    asked={TaskState.DONE: 120}, in_flight=8, images=120, workers=4, workers_lost=2,
)  # fmt: skip


def test_the_progress_line_shows_workers_and_losses(gauge) -> None:
    tally = ProgressCounts(10)
    assert ", 3 of 4 workers, 2 lost, " in progress_line(tally, gauge(workers=WORKERS))
    assert "1 of 1 worker," in progress_line(tally, gauge(workers=Workers(started=1, ready=1)))
    assert "worker" not in progress_line(tally, gauge())
    assert any("3 of 4 workers, 2 lost" in text.plain for text in screen(tally, gauge(workers=WORKERS), 120))


def test_log_events_carry_the_worker() -> None:
    _, _, fields = line(replace(ENDED, worker="2@berlin"), False)
    assert fields["worker"] == "2@berlin"
    assert line(ENDED, False)[2]["worker"] is None


def test_a_lost_worker_is_a_warning_with_what_it_had() -> None:
    lost = WorkerChanged(worker="2@berlin", is_lost=True, in_flight=3)
    name, text, fields = line(lost, False)
    assert (level(lost), name) == (logging.WARNING, "worker_lost")
    assert fields == {"worker": "2@berlin", "in_flight": 3}
    assert "3 requests in flight" in text
    assert level(replace(lost, is_lost=False)) == logging.INFO


def test_run_json_has_workers_where_there_are_some(summary) -> None:
    assert run_json(summary(workers=WORKERS))["workers"] == {"started": 4, "lost": 2}
    assert "workers" not in run_json(summary())


def test_status_beside_a_run_knows_its_workers() -> None:
    status = replace(STATUS, going=GOING)
    assert status_json(status)["running"]["workers"] == {"started": 4, "lost": 2}
    assert "by 4 workers (2 lost)" in running_sentence(GOING)
    assert "worker" not in running_sentence(replace(GOING, workers=0))

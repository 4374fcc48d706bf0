"""status FILE ID: one task from its first request to what a run would ask next."""

import sqlite3
from contextlib import closing
from pathlib import Path
from unicodedata import normalize

import pytest

from pipeline.app import context, status
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.manifest.loader import load
from pipeline.model import TaskState
from tests.cli.conftest import Imgpipe


def edit(manifest: Path, old: str, new: str) -> None:
    manifest.write_text(manifest.read_text().replace(old, new))


def test_each_attempt_tells_the_prompt_it_was_made_with(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    edit(manifest, "A red mug", "A crimson mug")
    imgpipe("run", manifest, "-q")
    edit(manifest, "A crimson mug", "A scarlet mug")
    told = imgpipe("status", manifest, "mugs/red", "--json").json
    assert [attempt["prompt"] for attempt in told["history"]] == ["A red mug", "A crimson mug"]
    out = imgpipe("status", manifest, "mugs/red").out
    first, second, third = (out.index(f"prompt      A {colour} mug\n") for colour in ("red", "crimson", "scarlet"))
    assert out.index("attempt 1 asked for") < first < out.index("attempt 2 asked for") < second
    assert second < out.index("a run asks next for") < third


def test_a_request_that_an_earlier_version_recorded_otherwise_is_no_other_one(imgpipe: Imgpipe) -> None:
    apart = normalize("NFD", "Küche")
    manifest = imgpipe.made(f"{{mugs: {{items: {{red: {apart}}}}}}}")
    (task,) = Expansion(load(manifest), digests=read_digest)
    assert task.former is not None
    with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE task SET fingerprint = :now, made = :now, flags = ''", {"now": task.former.fingerprint})
        for table in ("attempt", "record"):
            ledger.execute(f"UPDATE {table} SET fingerprint = ?", (task.former.fingerprint,))
    assert "asks now for" not in imgpipe("status", manifest, "mugs/red").out
    assert imgpipe("report", manifest).exit == 0
    assert status.CHANGED not in (imgpipe.state.parent / "report" / "tasks.csv").read_text()


def test_a_task_that_was_never_asked_tells_what_it_will_ask(imgpipe: Imgpipe) -> None:
    out = imgpipe("status", imgpipe.manifest(), "mugs/blue").out
    assert out.startswith("mugs/blue: pending, 0 attempts")
    assert "a run asks next for\nprompt      A blue mug\n" in out


def test_an_accepted_change_is_what_the_manifest_asks_now(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    edit(manifest, "A red mug", "A crimson mug")
    imgpipe("run", manifest, "-q", "--accept", "prompt")
    out = imgpipe("status", manifest, "mugs/red").out
    assert "asked for\nprompt      A red mug\n" in out
    assert "the manifest asks now for\nprompt      A crimson mug\n" in out


def test_a_task_that_left_the_manifest_keeps_its_history(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    edit(manifest, "red: A red mug, ", "")
    ended = imgpipe("status", manifest, "mugs/red")
    assert ended.exit == 0
    assert "orphaned: no longer in the manifest" in ended.out
    assert "asked for\nprompt      A red mug\n" in ended.out
    assert "next" not in ended.out
    missing = imgpipe("status", manifest, "mugs/bleu")
    assert missing.exit == 2
    assert "no task has the id 'mugs/bleu'; did you mean mugs/blue?" in missing.err


def test_status_and_its_tasks_are_of_one_moment(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    with status.status_with_tasks(context.prepare(path, context.Flags())) as (found, tasks):
        with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite", isolation_level=None)) as ledger:
            ledger.execute("UPDATE task SET attempts = 9")
            assert ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)  # nobody holds it
        assert found.states[TaskState.DONE] == 2
        assert [task.attempts for task in tasks] == [1, 1]


def test_tasks_are_listed_without_a_temporary_folder(imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose root is read-only has none; where there are many tasks, one is needed."""
    manifest = imgpipe.made()
    listed = imgpipe("status", manifest, "--tasks").out
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(imgpipe.folder / "none"))
        assert imgpipe("status", manifest, "--tasks").out == listed
    monkeypatch.setattr(status, "IN_MEMORY_BYTES", 1)
    assert imgpipe("status", manifest, "--tasks").out == listed

"""The store opens under a lock that stands, whoever took it."""

import shutil
from pathlib import Path

import pytest

from pipeline.app import context
from pipeline.app.locking import open_store
from pipeline.errors import TryLater
from pipeline.store.lock import StateLock


@pytest.fixture
def setup(tmp_path: Path) -> context.Setup:
    path = tmp_path / "m.yaml"
    path.write_text("provider: {kind: simulator}\noutput_dir: out\njobs: {a: {prompt: p}}\n")
    return context.prepare(path, context.Flags())


async def test_a_lock_that_was_taken_before_is_used_and_let_go_of(setup: context.Setup) -> None:
    lock = StateLock(setup.manifest.state_dir)
    lock.acquire()
    async with open_store(setup, lock=lock):
        with pytest.raises(TryLater):
            StateLock(setup.manifest.state_dir).acquire()
    assert not lock.is_held
    with StateLock(setup.manifest.state_dir) as other:
        assert other.is_standing


@pytest.mark.parametrize("loss", ["removed", "released", "another"])
async def test_P7_a_lock_that_does_not_stand_is_taken_anew(setup: context.Setup, tmp_path: Path, loss: str) -> None:
    """Else a run that starts now would find the new directory free, and both would spend."""
    lock = StateLock(tmp_path / "elsewhere" if loss == "another" else setup.manifest.state_dir)
    lock.acquire()
    if loss == "removed":
        shutil.rmtree(setup.manifest.output_dir)
    if loss == "released":
        lock.release()
    setup.manifest.state_dir.mkdir(parents=True, exist_ok=True)
    async with open_store(setup, lock=lock):
        with pytest.raises(TryLater):
            StateLock(setup.manifest.state_dir).acquire()
    lock.release()

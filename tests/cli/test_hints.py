"""Hints mean what they say: they repeat `--simulate`, variables and selection, and `status` is honest beside a run."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.model import TaskState
from pipeline.store.lock import StateLock, is_held
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from tests.cli.conftest import Imgpipe
from tests.store.fakes import PRICE, SHA, answer, publish, task

WRONG = "picture: tiny\nlatency: 0s\nfaults: [{name: image_safety, every: 1}]\n"


def test_a_hint_of_a_rehearsal_rehearses(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {items: {red: 'A {{ vars.x }} mug', blue: A blue mug}}}", extra="vars: {x: red}")
    live = path.with_name("live.yaml")
    live.write_text(path.read_text().replace("kind: simulator, profile: shop-profile.yaml", "kind: cometapi"))
    worse = imgpipe.folder / "worse profile.yaml"
    worse.write_text(WRONG)
    ended = imgpipe("run", live, "--simulate", worse, "--var", "x=1", "--select", "mugs/red")
    again = f"{live} --simulate '{worse}' --var x=1"
    assert f"imgpipe retry {again} --select mugs/red --refused" in ended.err
    assert (
        "--var x=1 --select mugs/red --refused"
        in imgpipe("plan", live, "--simulate", worse, "--var", "x=1", "--select", "mugs/red").out
    )
    assert not any("imgpipe" in line and "--simulate" not in line for line in ended.err.splitlines())


def test_the_last_line_says_where_the_images_are(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest()
    assert imgpipe("run", path).err.splitlines()[-1] == (
        f"The images are in out; look at them: imgpipe report {path} --open"
    )


def test_missing_and_orphaned_tasks_can_be_selected(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    next(image for image in imgpipe.images() if image.stem == "red").unlink()
    listed = imgpipe("status", path, "--tasks", "--select", "state:missing").out
    assert ("mugs/red" in listed, "mugs/blue" in listed) == (True, False)
    path.write_text(path.read_text().replace(", blue: A blue mug", ""))
    found = imgpipe("status", path, "--tasks", "--json", "--select", "state:orphaned")
    assert (found.json["id"], found.json["reason"]) == ("mugs/blue", "orphaned: no longer in the manifest")
    assert len(found.out.splitlines()) == 2
    ended = imgpipe("run", path, "--select", "state:orphaned", "--json")
    assert (ended.exit, ended.json["attempts"]) == (0, 0)


def test_a_pattern_that_matches_nothing_is_told(imgpipe: Imgpipe) -> None:
    flags = ("--select", "mugs/red", "--select", "tag:summer")
    path = imgpipe.manifest()
    assert "--select 'tag:summer' matches no task" in imgpipe("plan", path, *flags).out
    ended = imgpipe("plan", path, *flags, "--strict-select")
    assert (ended.exit, "'tag:summer' matches no task" in ended.err) == (2, True)


@pytest.fixture
async def going(imgpipe: Imgpipe) -> AsyncIterator[Path]:
    """A manifest of three tasks and its run: one done, one whose image is named and not recorded, one to come."""
    path = imgpipe.manifest("{cats: {items: {1: A, 2: B, 3: C}}}")
    with StateLock(imgpipe.state):
        store = await Store.open(
            StoreSettings(
                output_dir=imgpipe.out, state_dir=imgpipe.state, manifest="shop", is_play_money=True, reserve_bytes=0
            )
        )
        run = await store.begin_run(manifest_sha256=SHA, found={"due": 3, "done": 4})
        first, *_ = [await store.begin(task(number), run=run, reserved_microusd=PRICE) for number in (1, 2)]
        await publish(store, first, answer(1), cost_microusd=PRICE, seconds=1)
        (imgpipe.out / "cats" / "2.png").write_bytes(b"named, and not recorded yet")
        yield path
        await store.aclose()


def test_status_beside_a_run_is_of_one_moment(imgpipe: Imgpipe, going: Path) -> None:
    found = imgpipe("status", going, "--json").json
    assert {state: number for state, number in found["tasks"].items() if number} == {"done": 5, "pending": 2}
    assert (found["unknown"], found["running"]["in_flight"], found["running"]["left"]) == ([], 1, 2)
    assert "is in progress: 1 in flight, 1 image so far" in imgpipe("status", going).out
    lines = imgpipe("status", going, "--tasks").out
    assert not [state for state in (TaskState.CONFLICT, TaskState.UNKNOWN) if f"\n{state.value} " in lines]


def test_the_lock_is_seen_without_touching_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert is_held(state) is False
    with StateLock(state):
        assert is_held(state) is True
    assert is_held(state) is False

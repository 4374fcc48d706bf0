"""What costs no request, when something gets in the way between plan and move: that image stays, the others go on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.app.stages import apply_free_changes
from pipeline.model import Due
from pipeline.plan.plan import ACCEPT, MOVE
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from tests.store.fakes import PRICE, SHA, answer, publish, task


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with two images, cats/1.png and cats/2.png."""
    store = await Store.open(
        StoreSettings(
            output_dir=tmp_path / "out", state_dir=tmp_path / "state", manifest="m", is_play_money=True, reserve_bytes=0
        )
    )
    await store.recover()
    run = await store.begin_run(manifest_sha256=SHA)
    for number in (1, 2):
        intent = await store.begin(task(number), run=run, reserved_microusd=PRICE)
        await publish(store, intent, answer(number), cost_microusd=PRICE, seconds=1)
    yield store
    await store.aclose()


def move(number: int, name: str) -> Due:
    return Due(task=task(number, name=name), reason=MOVE)


@pytest.mark.parametrize("is_folder", [False, True], ids=["the name is taken", "its folder is a file"])
async def test_what_is_in_the_way_stops_one_image_only(store: Store, tmp_path: Path, is_folder: bool) -> None:
    out = tmp_path / "out"
    taken = out / "b" if is_folder else out / "b" / "1.png"
    taken.parent.mkdir(parents=True, exist_ok=True)
    taken.write_bytes(b"mine")
    settled = await apply_free_changes(store, [move(1, "b/1"), move(2, "c/2")])
    assert (settled.moved, settled.conflicts) == (1, 1)
    assert "the image stays" in settled.notes[0]
    assert taken.read_bytes() == b"mine"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png") if path != taken) == [
        "c/2.png",
        "cats/1.png",
    ]


async def test_batches_are_moved_and_accepted_to_the_last(store: Store, tmp_path: Path) -> None:
    accepted = [Due(task=task(number, prompt="a CAT"), reason=ACCEPT) for number in (1, 2, 3)]
    settled = await apply_free_changes(store, [*accepted, move(1, "c/1")])
    assert (settled.accepted, settled.moved, settled.conflicts) == (2, 1, 0)
    assert (tmp_path / "out" / "c" / "1.png").is_file()

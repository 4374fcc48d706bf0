"""Images written by a process without the ledger, and what the one that has it does for it, in folders and buckets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from pipeline.buckets import Bucket
from pipeline.errors import StorageError
from pipeline.model import KEPT, Artifact, Attempt, Billed, BucketUrl, Failure, Fault, TaskState
from pipeline.store.images import StoredImages, WriterPool
from pipeline.store.rejected import apart_dir
from pipeline.store.resources import StoreSettings, open_worker_resources
from tests.store.conftest import Bench, Reopen
from tests.store.fakes import PRICE, answer, close, files, image, task

URL = BucketUrl("s3", "shop")


@dataclass
class Scene:
    """A store, and what workers of it would be opened with."""

    bench: Bench
    reopen: Reopen
    options: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def worker(self, *, is_apart: bool = False) -> AsyncIterator[StoredImages]:
        """A worker; one that is apart does not see the state directory."""
        bench, ledger_id = self.bench, self.bench.store.ledger_id
        apart = self.bench.root / "node" if self.options else apart_dir(bench.out, ledger_id)
        fixed: dict[str, Any] = {"output_dir": bench.out, "manifest": "m", "is_play_money": False}
        settings = StoreSettings(**{**fixed, "state_dir": apart if is_apart else bench.state, **self.options})
        resources = open_worker_resources(settings, ledger_id=ledger_id, is_apart=is_apart)
        pool = WriterPool(1)
        try:
            yield StoredImages(resources, pool)
        finally:
            await pool.aclose()
            resources.close_directories()

    async def begin(self, number: int = 1) -> Attempt:
        return await self.bench.store.begin(task(number), run=self.bench.run, reserved_microusd=PRICE)

    def out(self) -> dict[str, bytes]:
        if not self.options:
            return {path: data for path, data in files(self.bench.out).items() if ".part-" not in path}
        store = self.options["bucket"](URL)._store
        paths = [meta["path"] for page in store.list() for meta in page]
        return {path: bytes(store.get(path).bytes()) for path in paths}

    def rejected(self) -> list[bytes]:
        found = files(self.bench.state / "rejected") if (self.bench.state / "rejected").exists() else {}
        return [data for name, data in found.items() if not name.endswith(".facts.json")]


@pytest.fixture(params=["folder", "bucket"])
async def scene(request: pytest.FixtureRequest, bench: Bench, reopen: Reopen) -> Scene:
    found = Scene(bench, reopen)
    if request.param == "bucket":
        memory = MemoryStore()
        found.options = {"output_dir": URL, "bucket": lambda url: Bucket(url, memory)}
        await reopen(**found.options)
    return found


async def test_an_image_of_a_worker_that_died_is_found_by_its_attempt(scene: Scene) -> None:
    first, second = await scene.begin(1), await scene.begin(2)
    async with scene.worker() as images:
        await images.put(first, answer(1))
    images = scene.bench.store.images
    found = await images.find(first)
    assert isinstance(found, Artifact)
    assert (found.path, found.sha256) == ("cats/1.png", image(1).sha256)
    assert await images.find(second) is None
    assert scene.out() == {"cats/1.png": image(1).data}


async def test_a_part_without_its_name_is_published_and_a_torn_one_is_left(bench: Bench, reopen: Reopen) -> None:
    scene = Scene(bench, reopen)
    first, second = await scene.begin(1), await scene.begin(2)
    (bench.out / "cats").mkdir()
    for attempt, data in ((first, image(1).data), (second, image(1).data[:-1])):
        (bench.out / "cats" / bench.part_name(attempt.id, image(1).sha256)).write_bytes(data)
    assert isinstance(await bench.store.images.find(first), Artifact)
    assert await bench.store.images.find(second) is None
    assert scene.out() == {"cats/1.png": image(1).data}
    await bench.store.recover_late()
    assert (bench.out / "cats" / bench.part_name(second.id, image(1).sha256)).exists()  # its worker may be at work


async def test_an_output_that_cannot_be_searched_is_no_bug(bench: Bench) -> None:
    attempt = await Scene(bench, bench.open).begin(1)
    (bench.out / "cats").write_text("a file where a folder was")
    with pytest.raises(StorageError, match=r"cats/1: its image could not be looked for \(Not a directory\)"):
        await bench.store.images.find(attempt)


@pytest.mark.parametrize("is_apart", [False, True], ids=["sees-the-state", "apart"])
async def test_no_worker_moves_an_earlier_image_away(scene: Scene, is_apart: bool) -> None:
    """One that was frozen would do it in the middle of another one's work."""
    await scene.bench.make(task(1), 1)
    again = await scene.begin(1)
    assert again.previous is not None
    async with scene.worker(is_apart=is_apart) as images:
        result = await images.put(again, answer(2))
    assert isinstance(result, Failure)
    assert (result.code, result.billed, result.storage_error) == (KEPT, Billed.YES, None)
    assert scene.out()["cats/1.png"] == image(1).data
    made = await scene.bench.store.images.publish_kept(again, result)
    assert isinstance(made, Artifact)
    assert (made.sha256, made.request_id) == (image(2).sha256, "req-2")
    assert scene.out()["cats/1.png"] == image(2).data
    assert scene.rejected() == []


async def test_an_image_whose_worker_did_not_check_it_is_checked_here(scene: Scene) -> None:
    """It died, or gave the image up to the process that may move the task's earlier one away."""
    scene.options["check"] = lambda record, image: ({"blank": f"{record['id']} {image.sha256}"}, "0f")
    await scene.reopen(**scene.options)
    first = await scene.begin(1)
    async with scene.worker() as images:
        await images.put(first, answer(1))
        found = await scene.bench.store.images.find(first)
        assert isinstance(found, Artifact)
        await scene.bench.store.finish(first, found, cost_microusd=PRICE, seconds=1.0)
        again = await scene.begin(1)
        kept = await images.put(again, answer(2))
    assert isinstance(kept, Failure)
    made = await scene.bench.store.images.publish_kept(again, kept)
    assert isinstance(made, Artifact)
    for artifact, number in ((found, 1), (made, 2)):
        assert (artifact.flags, artifact.look) == ({"blank": f"{first.task.id} {image(number).sha256}"}, "0f")


async def test_a_body_that_a_worker_kept_elsewhere_comes_into_rejected(scene: Scene) -> None:
    attempt = await scene.begin(1)
    failure = Failure(fault=Fault.BROKEN, billed=Billed.YES, reason="not JSON", body=b"<html>")
    async with scene.worker(is_apart=True) as images:
        assert (await images.keep_body(attempt, failure)).storage_error is None
        await scene.bench.store.collect_kept(are_gone=False)
        assert scene.rejected() == [b"<html>"]
        assert (await images.keep_body(await scene.begin(2), failure)).storage_error is None  # its folder is there
    await scene.bench.store.collect_kept(are_gone=True)
    assert scene.rejected() == [b"<html>"] * 2
    assert scene.out() == {}
    assert not list(scene.bench.out.glob(".kept-*"))
    assert files(scene.bench.root / "node") == {}  # sent on to the bucket


async def test_of_what_is_being_written_elsewhere_nothing_is_taken(bench: Bench, reopen: Reopen) -> None:
    scene = Scene(bench, reopen)
    await bench.make(task(1), 1)
    again, other = await scene.begin(1), await scene.begin(2)
    async with scene.worker(is_apart=True) as images:
        result = await images.put(again, answer(2))
        folder = apart_dir(bench.out, bench.store.ledger_id) / "rejected"
        torn = folder / f"{bench.store.ledger_id}-{other.id}-{image(3).sha256}.png"
        torn.write_bytes(image(3).data[:-1])
        assert isinstance(result, Failure)
        assert isinstance(await bench.store.images.publish_kept(again, result), Artifact)
    assert [path.name for path in folder.iterdir()] == [torn.name]
    await bench.store.collect_kept(are_gone=True)
    assert torn.exists()
    assert scene.rejected() == []


async def test_what_workers_of_a_dead_run_kept_is_published_by_the_next_start(scene: Scene) -> None:
    await scene.bench.make(task(1), 1)
    again = await scene.begin(1)
    async with scene.worker(is_apart=True) as images:
        await images.put(again, answer(2))
    (scene.bench.state / "workers").write_text("of a run that was killed")
    await scene.reopen(**scene.options)
    assert scene.bench.recovery.recovered == 1
    assert scene.out()["cats/1.png"] == image(2).data
    assert not (scene.bench.state / "workers").exists()


async def test_an_image_that_came_late_is_the_tasks_and_the_second_one_goes_to_rejected(scene: Scene) -> None:
    """A frozen node wakes up and writes the image of an attempt that was given up, while another one is sent."""
    frozen, later = await scene.begin(1), await scene.begin(1)
    async with scene.worker() as images:
        assert isinstance(await images.put(frozen, answer(1)), Artifact)
        conflict = await images.put(later, answer(2))
    assert isinstance(conflict, Failure)
    assert conflict.fault is Fault.CONFLICT
    taken = await scene.bench.store.images.take_earlier(later, conflict, frozen)
    assert isinstance(taken, Artifact)
    assert taken.sha256 == image(1).sha256
    await scene.bench.store.finish(later, taken, cost_microusd=PRICE, seconds=1.0)
    assert scene.rejected() == [image(2).data]
    await scene.reopen(**scene.options)
    assert scene.out() == {"cats/1.png": image(1).data}
    assert scene.bench.recovery.notes == []


async def test_a_late_image_with_another_suffix_leaves_the_task_with_one_file(scene: Scene) -> None:
    frozen, later = await scene.begin(1), await scene.begin(1)
    store = scene.bench.store
    lost = Failure(fault=Fault.SILENCE, billed=Billed.MAYBE, reason="its worker died")
    await close(store, frozen, lost, state=TaskState.UNKNOWN, unknown_microusd=PRICE)
    async with scene.worker() as images:
        made = await images.put(later, answer(2, ".jpg"))
        assert isinstance(made, Artifact)
        await store.finish(later, made, cost_microusd=PRICE, seconds=1.0)
        assert isinstance(await images.put(frozen, answer(1, ".png")), Artifact)
    assert len(scene.out()) == 2
    await store.recover_late()
    assert scene.out() == {"cats/1.jpg": image(2, ".jpg").data}
    assert scene.rejected() == [image(1).data]
    with scene.bench.reader() as reader:
        assert (reader.unknowns(), reader.spend().spent_microusd) == ([], 2 * PRICE)


async def test_somebody_elses_file_in_the_way_stays_a_conflict(scene: Scene) -> None:
    earlier, later = await scene.begin(1), await scene.begin(1)
    conflict = Failure(fault=Fault.CONFLICT, billed=Billed.YES, reason="in the way")
    assert await scene.bench.store.images.take_earlier(later, conflict, earlier) is conflict


def test_a_worker_apart_keeps_in_a_folder_of_its_ledger(tmp_path: Path) -> None:
    assert apart_dir(tmp_path, "0a1b2c3d") == tmp_path / ".kept-0a1b2c3d"

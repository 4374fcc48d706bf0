"""What is promised of images, wherever they are kept: the same tests on a folder, in memory, and over S3's protocol."""

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from obstore.store import MemoryStore

from pipeline.buckets import Bucket
from pipeline.errors import Conflict, InputError
from pipeline.model import Artifact, BucketUrl, Sidecar, TaskState
from pipeline.plan.decide import Files, Objects
from pipeline.store.bucket_writer import SUPERSEDED
from pipeline.store.files import FileComparison
from pipeline.store.maintenance import Maintenance
from tests.s3 import moto_server, store_of
from tests.store.conftest import Bench
from tests.store.fakes import PRICE, answer, done, files, image, task

PREFIXES = itertools.count(1)


class Kept(Protocol):
    """Where the images of a test are, seen without the program."""

    @property
    def options(self) -> dict[str, Any]: ...
    def all(self) -> dict[str, bytes]: ...
    def superseded(self) -> list[bytes]: ...
    def write(self, path: str, data: bytes) -> None: ...
    def remove(self, path: str) -> None: ...
    def view(self) -> Files | Objects: ...


@dataclass
class InFolder:
    root: Path

    @property
    def options(self) -> dict[str, Any]:
        return {}

    def all(self) -> dict[str, bytes]:
        return {path: data for path, data in files(self.root / "out").items() if ".part-" not in path}

    def superseded(self) -> list[bytes]:
        return list(files(self.root / "state/superseded").values())

    def write(self, path: str, data: bytes) -> None:
        (self.root / "out" / path).parent.mkdir(exist_ok=True)
        (self.root / "out" / path).write_bytes(data)

    def remove(self, path: str) -> None:
        (self.root / "out" / path).unlink()

    def view(self) -> Files:
        return Files(self.root / "out")


@dataclass
class InBucket:
    store: Any  # obstore's own, of the same prefix
    url: BucketUrl

    @property
    def options(self) -> dict[str, Any]:
        return {"output_dir": self.url, "bucket": lambda url: Bucket(url, self.store)}

    def everything(self) -> dict[str, bytes]:
        paths = [meta["path"] for page in self.store.list() for meta in page]
        return {path: bytes(self.store.get(path).bytes()) for path in paths}

    def all(self) -> dict[str, bytes]:
        return {path: data for path, data in self.everything().items() if not path.startswith(SUPERSEDED)}

    def superseded(self) -> list[bytes]:
        return [data for path, data in self.everything().items() if path.startswith(SUPERSEDED)]

    def write(self, path: str, data: bytes) -> None:
        self.store.put(path, data)

    def remove(self, path: str) -> None:
        self.store.delete(path)

    def view(self) -> Objects:
        listed = Bucket(self.url, self.store).listing()
        return Objects(((each.path, each.size_bytes, each.version) for each in listed), lambda _: False)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with moto_server("bucket") as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "memory", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "folder":
        return InFolder(tmp_path)
    if request.param == "memory":
        return InBucket(MemoryStore(), BucketUrl("s3", "memory"))
    prefix = f"out {next(PREFIXES)}/ü"
    return InBucket(store_of(request.getfixturevalue("s3"), "bucket", prefix), BucketUrl("s3", "bucket", prefix))


@pytest.fixture
async def bench(tmp_path: Path, kept: Kept) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.open(**kept.options)
    yield bench
    await bench.store.aclose()


async def restart(bench: Bench, kept: Kept, **options: Any) -> None:
    await bench.store.aclose()
    await bench.open(**kept.options, **options)


def state_of(bench: Bench, number: int = 1) -> TaskState | None:
    with bench.reader() as reader:
        known = reader.known(f"cats/{number}")
    return None if known is None else known.state


async def put_only(bench: Bench, number: int, **changes: Any) -> int:
    """Put an image as a process does that dies before it is recorded; return its attempt."""
    attempt = await bench.store.begin(task(1, **changes), run=bench.run, reserved_microusd=PRICE)
    await bench.store.images.put(attempt, answer(number))
    return attempt.id


async def test_an_image_stands_whole_under_its_name_and_nothing_else(bench: Bench, kept: Kept) -> None:
    artifact = await bench.make(task(1, name="größe 50% #1/a b"), 1)
    assert kept.all() == {"größe 50% #1/a b.png": image(1).data}
    assert kept.view().compare(artifact) is FileComparison.SAME


async def test_an_image_that_was_not_recorded_is_taken_over(bench: Bench, kept: Kept) -> None:
    await put_only(bench, 1)
    await restart(bench, kept)
    assert (bench.recovery.recovered, bench.recovery.unknown, state_of(bench)) == (1, 0, TaskState.DONE)
    assert kept.all() == {"cats/1.png": image(1).data}


async def test_a_request_without_an_image_is_unknown(bench: Bench, kept: Kept) -> None:
    await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    await restart(bench, kept)
    assert (bench.recovery.recovered, bench.recovery.unknown, state_of(bench)) == (0, 1, TaskState.UNKNOWN)


async def test_a_second_start_finds_nothing_to_do(bench: Bench, kept: Kept) -> None:
    await put_only(bench, 1)
    await restart(bench, kept)
    await restart(bench, kept)
    assert (done(bench.root), bench.recovery.recovered) == (1, 0)


async def test_what_is_not_ours_is_never_replaced(bench: Bench, kept: Kept) -> None:
    kept.write("cats/1.png", b"somebody's")
    with pytest.raises(Conflict, match=r"cats/1\.png is in the way"):
        await bench.make(task(1), 1)
    assert kept.all() == {"cats/1.png": b"somebody's"}


async def test_a_kept_image_is_published_when_its_name_is_free(bench: Bench, kept: Kept) -> None:
    kept.write("cats/1.png", b"somebody's")
    with pytest.raises(Conflict):
        await bench.make(task(1), 1)
    kept.remove("cats/1.png")
    await restart(bench, kept)
    assert (bench.recovery.recovered, state_of(bench)) == (1, TaskState.DONE)
    assert kept.all() == {"cats/1.png": image(1).data}


@pytest.mark.parametrize("suffix", [".png", ".jpg"], ids=["same-name", "other-extension"])
async def test_an_earlier_image_of_the_task_makes_way(bench: Bench, kept: Kept, suffix: str) -> None:
    await bench.make(task(1), 1)
    artifact = await bench.make(task(1, prompt="a dog"), 2, suffix)
    assert kept.all() == {artifact.path: image(2, suffix).data}
    assert kept.superseded() == [image(1).data]


async def test_an_edited_image_is_never_replaced(bench: Bench, kept: Kept) -> None:
    await bench.make(task(1), 1)
    kept.write("cats/1.png", b"retouched by hand")
    with pytest.raises(Conflict):
        await bench.make(task(1, prompt="a dog"), 2)
    assert kept.all()["cats/1.png"] == b"retouched by hand"


async def test_an_edited_image_makes_way_by_force(bench: Bench, kept: Kept) -> None:
    await bench.make(task(1), 1)
    kept.write("cats/1.png", b"retouched by hand")
    await restart(bench, kept, force=True)
    await bench.make(task(1, prompt="a dog"), 2)
    assert kept.all() == {"cats/1.png": image(2).data}
    assert kept.superseded() == [b"retouched by hand"]


async def test_missing_and_changed_images_are_seen(bench: Bench, kept: Kept) -> None:
    gone, edited = await bench.make(task(1), 1), await bench.make(task(2), 2)
    kept.remove("cats/1.png")
    kept.write("cats/2.png", bytes(len(image(2).data)))
    view = kept.view()
    assert (view.compare(gone), view.compare(edited)) == (FileComparison.MISSING, FileComparison.CHANGED)
    assert view.in_the_way("cats/2", None) == "cats/2.png"
    assert view.in_the_way("cats/2", "cats/2.png") is None


async def test_an_image_moves_to_a_new_name(bench: Bench, kept: Kept) -> None:
    await bench.make(task(1), 1)
    moved = await bench.store.maintain(partial(Maintenance.move, task_id="cats/1", name="dogs/1"))
    assert kept.all() == {"dogs/1.png": image(1).data}
    assert kept.view().compare(moved) is FileComparison.SAME
    await restart(bench, kept)
    assert state_of(bench) is TaskState.DONE


async def test_an_image_never_moves_onto_another(bench: Bench, kept: Kept) -> None:
    await bench.make(task(1), 1)
    kept.write("dogs/1.png", b"somebody's")
    with pytest.raises(Conflict):
        await bench.store.maintain(partial(Maintenance.move, task_id="cats/1", name="dogs/1"))
    assert kept.all() == {"cats/1.png": image(1).data, "dogs/1.png": b"somebody's"}


@pytest.mark.parametrize("there", [None, b"somebody's", b"an older record, ours"], ids=["free", "theirs", "ours"])
async def test_a_record_lies_beside_its_image_and_moves_along(bench: Bench, kept: Kept, there: bytes | None) -> None:
    if there is not None:
        kept.write("cats/1.png.xmp", there)
    attempt = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    sidecar = Sidecar(data=b"a record, ours", mark=b"ours")
    artifact = await bench.store.images.put(attempt, replace(answer(1), sidecar=sidecar))
    assert isinstance(artifact, Artifact)
    await bench.store.finish(attempt, artifact, cost_microusd=PRICE, seconds=1.0)
    beside = b"somebody's" if there == b"somebody's" else b"a record, ours"
    assert kept.all() == {"cats/1.png": image(1).data, "cats/1.png.xmp": beside}
    await bench.store.maintain(partial(Maintenance.move, task_id="cats/1", name="dogs/1"))
    assert kept.all() == {"dogs/1.png": image(1).data, "dogs/1.png.xmp": beside}


async def test_a_name_that_leads_outside_is_refused(bench: Bench, kept: Kept) -> None:
    with pytest.raises(InputError, match="not a plain relative path"):
        await bench.store.begin(task(1, name="../1"), run=bench.run, reserved_microusd=PRICE)
    assert kept.all() == {}

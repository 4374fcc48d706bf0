"""A real full disk: a small tmpfs, where mounting is allowed (root)."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.model import Answer
from tests.store.conftest import Bench
from tests.store.fakes import PRICE, answer, done, files, image, publish, task, verified

Mount = Callable[[Path, str], None]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a tmpfs with options for the time of a test."""
    mounted: list[Path] = []

    def mount(place: Path, options: str) -> None:
        place.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(reason="mounting a tmpfs is not allowed here: the same faults are injected in test_disk_faults")
        mounted.append(place)

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip(reason="mounting a tmpfs needs root: the same faults are injected in test_disk_faults")
    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", "-l", str(place)], check=True)


def big(number: int) -> Answer:
    """Return an answer of 300 kB; what follows the image's end is padding."""
    data = image(number).data + bytes([number]) * 300_000
    return replace(answer(number), image=replace(image(number), data=data, sha256=hashlib.sha256(data).hexdigest()))


async def make_until_full(bench: Bench) -> tuple[list[int], list[int]]:
    """Publish until the disk is full; return what was published and what failed."""
    made: list[int] = []
    for number in range(12):
        intent = await bench.store.begin(task(number), run=bench.run, reserved_microusd=PRICE)
        try:
            await publish(bench.store, intent, big(number), cost_microusd=PRICE, seconds=1)
        except StorageError:
            return made, [number]
        made.append(number)
    return made, []


async def test_d01_full_output_disk_keeps_the_image_in_the_state_directory(tmp_path: Path, mount: Mount) -> None:
    mount(tmp_path / "out", "size=1m")
    bench = Bench(tmp_path)
    await bench.open()
    made, failed = await make_until_full(bench)
    await bench.store.aclose()
    assert (len(made), len(failed)) == (3, 1)
    assert big(failed[0]).image.data in files(bench.state / "rejected").values()
    (bench.out / "cats/0.png").unlink()
    await bench.open()
    await bench.store.aclose()
    assert (bench.recovery.recovered, bench.recovery.unknown) == (1, 0)
    assert verified(tmp_path) == (["cats/0.png"], [])
    assert (bench.out / f"cats/{failed[0]}.png").read_bytes() == big(failed[0]).image.data


async def test_d01_one_full_disk_gives_its_ballast(tmp_path: Path, mount: Mount) -> None:
    """Images and state on one disk: the ballast is what the last image needs."""
    mount(tmp_path, "size=4m")
    bench = Bench(tmp_path)
    await bench.open(reserve_bytes=1 << 20)
    made, failed = await make_until_full(bench)
    await bench.store.aclose()
    whole = {*files(bench.out).values(), *files(bench.state).values()}
    assert failed
    assert {big(number).image.data for number in [*made, *failed]} - whole <= {big(failed[0]).image.data}
    assert len(made) * 300_000 > (4 << 20) - (1 << 20) - 400_000
    assert not (bench.state / "ballast").exists()


async def test_d19_no_inodes_left_is_a_full_disk(tmp_path: Path, mount: Mount) -> None:
    mount(tmp_path / "out", "size=10m,nr_inodes=6")
    bench = Bench(tmp_path)
    await bench.open()
    made, failed = await make_until_full(bench)
    await bench.store.aclose()
    assert made
    assert big(failed[0]).image.data in files(bench.state / "rejected").values()


async def test_d06_disk_that_turns_read_only_keeps_the_image(tmp_path: Path, mount: Mount) -> None:
    mount(tmp_path / "out", "size=1m")
    bench = Bench(tmp_path)
    await bench.open()
    await bench.make(task(1), 1)
    intent = await bench.store.begin(task(2), run=bench.run, reserved_microusd=PRICE)
    subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "out")], check=True)
    with pytest.raises(StorageError, match="Read-only file system"):
        await publish(bench.store, intent, answer(2), cost_microusd=PRICE, seconds=1)
    await bench.store.aclose()
    subprocess.run(["mount", "-o", "remount,rw", str(tmp_path / "out")], check=True)
    await bench.open()
    await bench.store.aclose()
    assert (done(tmp_path), bench.recovery.recovered) == (2, 1)


async def test_superseding_across_real_file_systems(tmp_path: Path, mount: Mount) -> None:
    mount(tmp_path / "out", "size=1m")
    bench = Bench(tmp_path)
    await bench.open()
    await bench.make(task(1), 1)
    await bench.make(task(1, prompt="a dog"), 2)
    await bench.store.aclose()
    assert files(bench.out) == {"cats/1.png": image(2).data}
    assert files(bench.state / "superseded") == {"1-1.png": image(1).data}

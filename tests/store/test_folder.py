"""An image from memory to `done`: names, modes, what may be replaced and what may not."""

import errno
import os
import stat
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import Conflict, InputError, StorageError
from pipeline.model import TaskState
from pipeline.store.maintenance import Maintenance
from tests.store.conftest import Bench, Reopen
from tests.store.fakes import CaselessDisk, FaultyDisk, files, image, task, without_links


async def test_publish_gives_the_final_name_and_leaves_no_part(bench: Bench) -> None:
    artifact = await bench.make(task(1), 1)
    assert artifact.path == "cats/1.png"
    assert files(bench.out) == {"cats/1.png": image(1).data}


async def test_publish_records_artifact_and_price(bench: Bench) -> None:
    artifact = await bench.make(task(1), 1, cost=40_000)
    with bench.reader() as reader:
        known = reader.known("cats/1")
        (attempt,) = reader.attempts("cats/1")
        spend = reader.spend()
    assert known is not None
    assert (known.state, known.artifact, known.cost_microusd) == (TaskState.DONE, artifact, 40_000)
    assert known.artifact_fingerprint == task(1).fingerprint
    assert (attempt.state, attempt.request_id, attempt.sha256) == ("ok", "req-1", artifact.sha256)
    assert (spend.spent_microusd, spend.unknown_microusd) == (40_000, 0)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000], ids=lambda mask: f"D18-{mask:03o}")
async def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        bench = Bench(tmp_path / "new")
        await bench.open()
        await bench.make(task(1))
        await bench.store.aclose()
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE((bench.root / path).stat().st_mode) for path in MODES}
    assert modes == {path: mode if is_fixed else mode & ~mask for path, (mode, is_fixed) in MODES.items()}


async def test_a_state_directory_that_others_can_write_to_is_told(bench: Bench, reopen: Reopen) -> None:
    await reopen()
    assert bench.warnings == []
    bench.state.chmod(0o777)
    await reopen()
    assert any(f"chmod go-w {bench.state}" in text for text in bench.warnings)


MODES = {
    "out": (0o777, False),
    "out/cats": (0o777, False),
    "out/cats/1.png": (0o666, False),
    "state": (0o700, True),
    "state/ledger.sqlite": (0o600, True),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg"], ids=["same-name", "other-extension"])
async def test_own_older_image_moves_to_superseded(bench: Bench, suffix: str) -> None:
    await bench.make(task(1), 1)
    artifact = await bench.make(task(1, prompt="a dog"), 2, suffix)
    assert files(bench.out) == {artifact.path: image(2, suffix).data}
    assert files(bench.state / "superseded") == {"1-1.png": image(1).data}


async def test_P6_what_has_the_name_in_superseded_stays_there(bench: Bench) -> None:
    await bench.make(task(1), 1)
    theirs = b"x" * len(image(1).data)
    (bench.state / "superseded").mkdir()
    (bench.state / "superseded/1-1.png").write_bytes(theirs)
    await bench.make(task(1, prompt="a dog"), 2)
    assert files(bench.state / "superseded") == {"1-1.png": theirs, "1.2-1.png": image(1).data}


async def test_superseding_works_across_file_systems(bench: Bench, reopen: Reopen) -> None:
    def no_link_into_state(call: str, place: Path) -> int | None:
        return errno.EXDEV if call == "link" and place.is_relative_to(bench.state) else None

    await bench.make(task(1), 1)
    await reopen(disk=FaultyDisk(no_link_into_state))
    await bench.make(task(1, prompt="a dog"), 2)
    assert files(bench.out) == {"cats/1.png": image(2).data}
    assert files(bench.state / "superseded") == {"1-1.png": image(1).data}


async def test_edited_image_is_never_replaced(bench: Bench) -> None:
    await bench.make(task(1), 1)
    (bench.out / "cats/1.png").write_bytes(b"retouched by hand")
    with pytest.raises(Conflict, match=r"cats/1\.png is in the way") as caught:
        await bench.make(task(1, prompt="a dog"), 2)
    kept = files(bench.out)
    assert kept == {"cats/1.png": b"retouched by hand", caught.value.kept: image(2).data}
    assert not (bench.state / "superseded").exists()


async def test_edited_image_makes_way_with_force(bench: Bench, reopen: Reopen) -> None:
    await bench.make(task(1), 1)
    (bench.out / "cats/1.png").write_bytes(b"retouched by hand")
    await reopen(force=True)
    await bench.make(task(1, prompt="a dog"), 2)
    assert files(bench.out) == {"cats/1.png": image(2).data}
    assert files(bench.state / "superseded") == {"1-1.png": b"retouched by hand"}


async def test_edited_image_of_another_extension_stays_where_it_is(bench: Bench) -> None:
    await bench.make(task(1), 1)
    (bench.out / "cats/1.png").write_bytes(b"retouched by hand")
    await bench.make(task(1, prompt="a dog"), 2, ".jpg")
    assert files(bench.out) == {"cats/1.png": b"retouched by hand", "cats/1.jpg": image(2, ".jpg").data}


def _file(path: Path) -> None:
    path.write_bytes(b"somebody's")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _outside(path: Path) -> None:
    target = path.parent.parent.parent / "outside"
    target.write_bytes(b"somebody's")
    path.symlink_to(target)


OBSTACLES = {
    "D09-file": _file,
    "D09-directory": Path.mkdir,
    "D09-fifo": os.mkfifo,
    "D10-dangling-link": _dangling,
    "D10-link-outside": _outside,
}


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
@pytest.mark.parametrize("put", OBSTACLES.values(), ids=OBSTACLES.keys())
async def test_foreign_file_is_never_replaced(bench: Bench, reopen: Reopen, put, force: bool) -> None:
    await reopen(force=force)
    (bench.out / "cats").mkdir()
    obstacle = bench.out / "cats/1.png"
    put(obstacle)
    before = obstacle.lstat()
    with pytest.raises(Conflict) as caught:
        await bench.make(task(1), 1)
    after = obstacle.lstat()
    assert (before.st_ino, before.st_mtime_ns, before.st_size) == (after.st_ino, after.st_mtime_ns, after.st_size)
    assert (bench.out / caught.value.kept).read_bytes() == image(1).data
    with bench.reader() as reader:
        known = reader.known("cats/1")
        assert known is not None
        assert known.state is TaskState.CONFLICT
        assert reader.spend().spent_microusd == 39_000


@pytest.mark.parametrize("put", [Path.mkdir, _outside], ids=["D09-directory", "D10-link-outside"])
async def test_what_stands_in_the_place_of_the_earlier_image_is_not_moved(bench: Bench, put) -> None:
    old = bench.out / (await bench.make(task(1), 1)).path
    old.unlink()
    put(old)
    with pytest.raises(Conflict) as caught:
        await bench.make(task(1, prompt="a dog"), 2)
    assert (bench.out / caught.value.kept).read_bytes() == image(2).data
    assert not (bench.state / "superseded").exists()


async def test_conflict_is_published_without_a_request_once_the_way_is_free(bench: Bench, reopen: Reopen) -> None:
    (bench.out / "cats").mkdir()
    (bench.out / "cats/1.png").write_bytes(b"somebody's")
    with pytest.raises(Conflict):
        await bench.make(task(1), 1, cost=31_200)
    await reopen()
    assert any(note.startswith("cats/1: ") for note in bench.recovery.notes)
    with bench.reader() as reader:
        (attempt,) = reader.attempts("cats/1")
    assert (attempt.request_id, attempt.sha256) == ("req-1", image(1).sha256)
    (bench.out / "cats/1.png").unlink()
    await reopen()
    assert bench.recovery.recovered == 1
    assert files(bench.out) == {"cats/1.png": image(1).data}
    with bench.reader() as reader:
        assert reader.spend().spent_microusd == 31_200  # as it was settled


@pytest.mark.parametrize("name", ["cats/1", "cats/deep/1"], ids=["D11-parent", "D11-grandparent"])
async def test_symbolic_link_among_the_parents_is_refused(bench: Bench, name: str) -> None:
    elsewhere = bench.root / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (bench.out / "cats").symlink_to(elsewhere)
    with pytest.raises(Conflict, match="a link or a file stands where a directory belongs") as caught:
        await bench.make(task(1, name=name), 1)
    assert files(elsewhere) == {}
    assert (bench.state / caught.value.kept).read_bytes() == image(1).data


async def test_part_made_by_an_attacker_is_not_written_through(bench: Bench) -> None:
    """S10."""
    victim = bench.root / "victim"
    victim.write_bytes(b"precious")
    (bench.out / "cats").mkdir()
    (bench.out / "cats" / bench.part_name(1, image(1).sha256)).symlink_to(victim)
    with pytest.raises(StorageError, match=r"the image is in rejected/"):
        await bench.make(task(1), 1)
    assert victim.read_bytes() == b"precious"
    assert image(1).data in files(bench.state / "rejected").values()


def no_links_no_exclusive(call: str, _place: Path) -> int | None:
    if call == "rename_exclusive":
        return errno.EINVAL
    return without_links(call, _place)


def links_are_io_errors(call: str, _place: Path) -> int | None:
    """rclone mount, and what else is built on its library for file systems."""
    return errno.EIO if call == "link" else None


@pytest.mark.parametrize(
    "decide",
    [without_links, no_links_no_exclusive, links_are_io_errors],
    ids=["D15-renameat2", "D15-look-then-rename", "D15-io-error"],
)
async def test_without_hard_links_a_rename_gives_the_name(bench: Bench, reopen: Reopen, decide) -> None:
    await reopen(disk=FaultyDisk(decide))
    await bench.make(task(1), 1)
    (bench.out / "cats/2.png").write_bytes(b"somebody's")
    with pytest.raises(Conflict) as caught:
        await bench.make(task(2), 2)
    assert files(bench.out) == {
        "cats/1.png": image(1).data,
        "cats/2.png": b"somebody's",
        caught.value.kept: image(2).data,
    }


async def test_output_directory_removed_mid_run_keeps_the_image(bench: Bench, reopen: Reopen) -> None:
    """D07: it is not made again; the image waits in rejected/ for the next run."""
    bench.out.rmdir()
    with pytest.raises(StorageError, match=r"the image is in rejected/"):
        await bench.make(task(1), 1)
    assert not bench.out.exists()
    await reopen()
    assert bench.recovery.recovered == 1
    assert files(bench.out) == {"cats/1.png": image(1).data}


async def test_output_directory_renamed_mid_run_is_followed(bench: Bench) -> None:
    """D07."""
    bench.out.rename(bench.root / "renamed")
    await bench.make(task(1), 1)
    assert files(bench.root / "renamed") == {"cats/1.png": image(1).data}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//x", "a/", "", "a\udcff"], ids=ascii)
async def test_names_that_lead_outside_are_refused_before_anything_is_paid(bench: Bench, name: str) -> None:
    """P15."""
    with pytest.raises(InputError, match="the output name is"):
        await bench.store.begin(task(1, name=name), run=bench.run, reserved_microusd=1)
    with bench.reader() as reader:
        assert reader.unknowns() == []


async def test_move_follows_a_renamed_output(bench: Bench) -> None:
    await bench.make(task(1), 1)
    artifact = await bench.store.maintain(partial(Maintenance.move, task_id="cats/1", name="tigers/one"))
    assert artifact.path == "tigers/one.png"
    assert files(bench.out) == {"tigers/one.png": image(1).data}
    with bench.reader() as reader:
        known = reader.known("cats/1")
    assert known is not None
    assert (known.artifact, known.name, known.state) == (artifact, "tigers/one", TaskState.DONE)


async def test_move_never_replaces(bench: Bench) -> None:
    await bench.make(task(1), 1)
    (bench.out / "taken.png").write_bytes(b"somebody's")
    with pytest.raises(Conflict):
        await bench.store.maintain(partial(Maintenance.move, task_id="cats/1", name="taken"))
    assert files(bench.out) == {"cats/1.png": image(1).data, "taken.png": b"somebody's"}


@pytest.mark.parametrize(
    ("name", "there"),
    [("Cats/a", "cats/a.png"), ("cats/A", "cats/A.png"), ("CATS/A", "cats/A.png"), ("A", "A.png")],
    ids=["folder", "file", "both", "elsewhere"],
)
async def test_a_move_to_the_same_name_in_another_case_keeps_the_image(
    bench: Bench, reopen: Reopen, name: str, there: str
) -> None:
    await reopen(disk=CaselessDisk())
    await bench.make(task(1, name="cats/a"), 1)
    await bench.store.maintain(partial(Maintenance.move, task_id="cats/1", name=name))
    assert files(bench.out) == {there: image(1).data}


async def test_a_move_to_another_case_takes_the_old_name_away_where_case_counts(bench: Bench) -> None:
    await bench.make(task(1, name="cats/a"), 1)
    (bench.out / "cats/A.png").hardlink_to(bench.out / "cats/a.png")  # an earlier move was cut short
    await bench.store.maintain(partial(Maintenance.move, task_id="cats/1", name="cats/A"))
    assert files(bench.out) == {"cats/A.png": image(1).data}


async def test_a_part_in_a_folder_whose_name_is_in_another_case_is_published(bench: Bench, reopen: Reopen) -> None:
    await reopen(disk=CaselessDisk())
    (bench.out / "cats").mkdir()
    (bench.out / "cats/a.png").write_bytes(b"somebody's")
    with pytest.raises(Conflict):
        await bench.make(task(1, name="CATS/a"), 1)
    (bench.out / "cats/a.png").unlink()
    await reopen(disk=CaselessDisk())
    assert bench.recovery.recovered == 1
    assert files(bench.out) == {"cats/a.png": image(1).data}

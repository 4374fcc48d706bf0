"""What a start finds and what it makes of it: parts, lost requests, changed files, and deaths in the middle of it."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.model import Billed, Failure, Fault, TaskState
from pipeline.store.reader import LedgerReader
from pipeline.store.rejected import list_rejected
from tests.store.conftest import Bench, Reopen
from tests.store.fakes import (
    PRICE,
    FaultyDisk,
    close,
    done,
    files,
    image,
    recover,
    states,
    task,
    verified,
    without_links,
)

POINTS = ("intent", "mid-write", "write", "fsync", "link", "dirsync", "done", "unlink")
IN_RECOVERY = {
    "recover-part": "fsync",
    "recover-link": "fsync",
    "recover-done": "fsync",
    "recover-unknown": "mid-write",
}


def die(root: Path, point: str, count: int = 3) -> None:
    """Run a victim that is killed at `point`."""
    environ = os.environ | {"FAILPOINT": f"{point}:1:kill"}
    command = [sys.executable, "-m", "tests.store.victim", str(root), str(count)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def check_after_death(root: Path, asked: int) -> None:
    """P1, P3, P4, P5 after the next start."""
    requests = (root / "requests").read_text().split() if (root / "requests").exists() else []
    with LedgerReader(root / "state", manifest="m") as reader:
        known = {each.id: each for each in reader.all_known()}
        spend = reader.spend()
        assert not any(unknown.is_open for unknown in reader.unknowns())
    done = {name: data for name, data in files(root / "out").items() if ".part-" not in name}
    assert done == {f"cats/{name}.png": image(int(name)).data for name in map(_number, known) if _is_done(known, name)}
    assert set(map(_number, known)) >= set(requests)
    lost = sum(each.state is TaskState.UNKNOWN for each in known.values())
    assert spend.unknown_microusd == lost * PRICE
    assert spend.spent_microusd == len(done) * PRICE
    assert lost <= asked


def _number(task_id: str) -> str:
    return task_id.rpartition("/")[2]


def _is_done(known, name: str) -> bool:
    return known[f"cats/{name}"].state is TaskState.DONE


@pytest.mark.parametrize("point", POINTS, ids=[f"R02-R13-{point}" for point in POINTS])
def test_killed_at_any_step_nothing_is_lost(quick_path: Path, point: str) -> None:
    die(quick_path, point)
    arrived = files(quick_path / "out")
    recovery = recover(quick_path)
    check_after_death(quick_path, 3)
    whole = {data for data in arrived.values() if data in {image(number).data for number in range(3)}}
    assert whole <= set(files(quick_path / "out").values())
    assert (recovery.recovered + done(quick_path) > 0) == (point not in ("intent", "mid-write"))
    assert recover(quick_path).recovered == 0


@pytest.mark.parametrize("point", IN_RECOVERY, ids=[f"R02-R13-{point}" for point in IN_RECOVERY])
def test_killed_in_recovery_the_next_one_finishes(quick_path: Path, point: str) -> None:
    die(quick_path, IN_RECOVERY[point])
    die(quick_path, point)
    recover(quick_path)
    check_after_death(quick_path, 3)
    again = recover(quick_path)
    assert (again.recovered, again.unknown) == (0, 0)


async def lose(bench: Bench, number: int = 1, *, prompt: str = "a cat") -> int:
    """Write an attempt down and forget it, as a dead process does; return its number."""
    intent = await bench.store.begin(task(number, prompt=prompt), run=bench.run, reserved_microusd=PRICE)
    return intent.id


async def test_lost_request_is_unknown_with_its_price(bench: Bench, reopen: Reopen) -> None:
    """P3."""
    await lose(bench)
    await reopen()
    assert (bench.recovery.unknown, bench.recovery.unknown_microusd) == (1, PRICE)
    with bench.reader() as reader:
        known = reader.known("cats/1")
        (unknown,) = reader.unknowns()
    assert known is not None
    assert (known.state, known.unknowns) == (TaskState.UNKNOWN, 1)
    assert (unknown.task_id, unknown.price_microusd, unknown.is_open) == ("cats/1", PRICE, False)
    await reopen()
    assert bench.recovery.unknown == 0


@pytest.mark.parametrize(("folder", "unknown", "recovered"), [("out2", 0, 1), ("out", 1, 0)], ids=["other", "same"])
async def test_a_run_looks_for_requests_of_its_own_output_directory(
    bench: Bench, reopen: Reopen, folder: str, unknown: int, recovered: int
) -> None:
    """Those of another manifest that writes elsewhere wait for a run of theirs: it finds their images."""
    theirs = {"manifest": "n", "output_dir": bench.root / folder}
    await reopen(**theirs)
    attempt = await lose(bench)
    await reopen()
    assert bench.recovery.unknown == unknown
    part = bench.root / "out2/cats" / bench.part_name(attempt, image(1).sha256)
    part.parent.mkdir(parents=True)
    part.write_bytes(image(1).data)
    await reopen(**theirs)
    assert bench.recovery.recovered == recovered


async def test_whole_part_is_published_at_the_reserved_price(bench: Bench, reopen: Reopen) -> None:
    attempt = await lose(bench)
    (bench.out / "cats").mkdir()
    (bench.out / "cats" / bench.part_name(attempt, image(1).sha256)).write_bytes(image(1).data)
    await reopen()
    assert (bench.recovery.recovered, bench.recovery.unknown, done(bench.root)) == (1, 0, 1)
    assert files(bench.out) == {"cats/1.png": image(1).data}
    with bench.reader() as reader:
        assert reader.spend().spent_microusd == PRICE
        assert reader.attempts("cats/1")[0].reason == "recovered without a request"


@pytest.mark.parametrize("make", [lambda part: part.write_bytes(image(1).data[:-9]), os.mkfifo], ids=["cut", "a fifo"])
async def test_torn_part_is_removed(bench: Bench, reopen: Reopen, make: Callable[[Path], object]) -> None:
    attempt = await lose(bench)
    (bench.out / "cats").mkdir()
    make(bench.out / "cats" / bench.part_name(attempt, image(1).sha256))
    await reopen()
    assert bench.recovery.unknown == 1
    assert files(bench.out) == {}


async def test_S10_a_link_in_the_place_of_a_part_is_not_followed(bench: Bench, reopen: Reopen) -> None:
    attempt = await lose(bench)
    elsewhere = bench.root / "elsewhere.png"
    elsewhere.write_bytes(image(1).data)
    (bench.out / "cats").mkdir()
    (bench.out / "cats" / bench.part_name(attempt, image(1).sha256)).symlink_to(elsewhere)
    with pytest.raises(StorageError, match="nothing was sent"):
        await reopen()
    assert elsewhere.read_bytes() == image(1).data


async def test_part_of_an_unknown_attempt_is_still_published(bench: Bench, reopen: Reopen) -> None:
    """It may come to light later: a directory that could not be read, a disk that was not mounted."""
    attempt = await lose(bench)
    await reopen()
    assert bench.recovery.unknown == 1
    (bench.out / "cats").mkdir()
    (bench.out / "cats" / bench.part_name(attempt, image(1).sha256)).write_bytes(image(1).data)
    await reopen()
    assert bench.recovery.recovered == 1
    with bench.reader() as reader:
        known = reader.known("cats/1")
        assert reader.unknowns() == []
        assert reader.spend().unknown_microusd == 0
    assert known is not None
    assert (known.state, known.unknowns, known.cost_microusd) == (TaskState.DONE, 0, PRICE)


async def test_foreign_parts_are_left_and_reported(bench: Bench, reopen: Reopen) -> None:
    """D17."""
    foreign = {f".part-{number}-{'a' * 64}": b"?" for number in range(900, 930)} | {".part-mine": b"notes"}
    for name, data in foreign.items():
        (bench.out / name).write_bytes(data)
    await reopen()
    assert bench.recovery.foreign == 31
    assert len(bench.recovery.notes) == 20
    assert files(bench.out) == foreign


async def test_numbers_of_foreign_parts_are_never_given_again(bench: Bench, reopen: Reopen) -> None:
    """Else a part of a lost ledger would one day be taken for another task's image."""
    (bench.out / bench.part_name(900, "a" * 64)).write_bytes(b"?")
    await reopen()
    assert await lose(bench) == 901


async def test_part_of_a_done_task_is_the_leftover_of_its_commit(bench: Bench, reopen: Reopen) -> None:
    await bench.make(task(1), 1)
    os.link(bench.out / "cats/1.png", bench.out / "cats" / bench.part_name(1, image(1).sha256))
    await reopen()
    assert (bench.recovery.recovered, done(bench.root), bench.recovery.notes) == (0, 1, [])
    assert files(bench.out) == {"cats/1.png": image(1).data}
    assert not (bench.state / "superseded").exists()


async def test_part_gives_a_removed_image_back(bench: Bench, reopen: Reopen) -> None:
    """P4: a whole part is the image."""
    await bench.make(task(1), 1)
    (bench.out / "cats/1.png").rename(bench.out / "cats" / bench.part_name(1, image(1).sha256))
    await reopen()
    assert (bench.recovery.recovered, verified(bench.root)) == (1, ([], []))
    assert files(bench.out) == {"cats/1.png": image(1).data}


async def test_part_nobody_asks_for_any_more_is_kept_aside(bench: Bench, reopen: Reopen) -> None:
    attempt = await lose(bench)
    await bench.make(task(1, prompt="a dog"), 2)
    (bench.out / "cats" / bench.part_name(attempt, image(1).sha256)).write_bytes(image(1).data)
    await reopen()
    assert files(bench.out) == {"cats/1.png": image(2).data}
    assert files(bench.state / "superseded") == {f"{attempt}-1.png": image(1).data}
    assert any("no longer asked for" in note for note in bench.recovery.notes)
    with bench.reader() as reader:
        known = reader.known("cats/1")
        assert reader.unknowns() == []
        assert reader.spend().spent_microusd == 2 * PRICE
    assert known is not None
    assert known.state is TaskState.DONE


async def test_second_image_of_a_task_goes_to_rejected_with_its_attempt(bench: Bench, reopen: Reopen) -> None:
    """A worker that was frozen wrote it when another one had brought the image already."""
    attempt = await lose(bench)
    await bench.make(task(1), 2)
    (bench.out / "cats" / bench.part_name(attempt, image(1).sha256)).write_bytes(image(1).data)
    await reopen()
    assert files(bench.out) == {"cats/1.png": image(2).data}
    kept = {name: data for name, data in files(bench.state / "rejected").items() if name.endswith(".png")}
    assert kept == {f"{bench.store.ledger_id}-{attempt}-{image(1).sha256}.png": image(1).data}
    with bench.reader() as reader:
        assert (reader.unknowns(), reader.spend().spent_microusd) == ([], 2 * PRICE)
        known = reader.known("cats/1")
    assert known is not None
    assert known.unknowns == 0
    await reopen()
    assert (bench.recovery.recovered, files(bench.out)) == (0, {"cats/1.png": image(2).data})


async def test_lost_request_of_a_task_that_is_done_since_stays_money_only(bench: Bench, reopen: Reopen) -> None:
    await lose(bench)
    await bench.make(task(1), 1)
    await reopen()
    assert bench.recovery.unknown == 1
    with bench.reader() as reader:
        assert states(reader) == {TaskState.DONE: 1}
        assert reader.spend().unknown_microusd == PRICE


async def test_part_in_an_earlier_output_directory_is_published_in_the_new_one(bench: Bench, reopen: Reopen) -> None:
    attempt = await lose(bench)
    (bench.out / "cats").mkdir()
    (bench.out / "cats" / bench.part_name(attempt, image(1).sha256)).write_bytes(image(1).data)
    await reopen(output_dir=bench.root / "new")
    assert (bench.recovery.recovered, bench.recovery.unknown) == (1, 0)
    assert files(bench.root / "new") == {"cats/1.png": image(1).data}
    assert files(bench.out) == {}


@pytest.mark.parametrize(("is_replaced", "found"), [(False, (1, 0, 1)), (True, (0, 1, 0))], ids=["ours", "somebody's"])
async def test_image_that_lost_its_part_to_a_rename_is_adopted(
    bench: Bench, reopen: Reopen, is_replaced: bool, found: tuple[int, int, int]
) -> None:
    """L10, D15: no hard links; killed between the rename and the ledger."""

    def dies_after_rename(call: str, place: Path) -> int | None:
        if call == "fsync_dir" and place == bench.out / "cats" and (place / "1.png").exists():
            raise Killed
        return without_links(call, place)

    await reopen(disk=FaultyDisk(dies_after_rename))
    with pytest.raises(Killed):
        await bench.make(task(1), 1)
    assert files(bench.out) == {"cats/1.png": image(1).data}
    if is_replaced:
        (bench.out / "cats/1.png").write_bytes(image(2).data)
    await reopen()
    assert (bench.recovery.recovered, bench.recovery.unknown, done(bench.root)) == found


async def test_both_names_of_an_image_may_look_like_two_files(bench: Bench, reopen: Reopen) -> None:
    """Killed between the link and the ledger on sshfs, which numbers two links as two files."""
    attempt = await lose(bench)
    (bench.out / "cats").mkdir()
    for name in (bench.part_name(attempt, image(1).sha256), "1.png"):
        (bench.out / "cats" / name).write_bytes(image(1).data)
    await reopen()
    assert (bench.recovery.recovered, bench.recovery.unknown, done(bench.root)) == (1, 0, 1)
    assert files(bench.out) == {"cats/1.png": image(1).data}


class Killed(Exception):  # noqa: N818 - an event, not an error
    """SIGKILL, as far as one process can pretend."""


def full(bench: Bench) -> FaultyDisk:
    return FaultyDisk(lambda call, place: errno.ENOSPC if call == "write" and bench.out in place.parents else None)


async def test_images_kept_in_rejected_are_published(bench: Bench, reopen: Reopen) -> None:
    await reopen(disk=full(bench))
    with pytest.raises(StorageError, match=r"published by the next run, without a request"):
        await bench.make(task(1), 1)
    await reopen()
    assert (bench.recovery.recovered, bench.recovery.unknown) == (1, 0)
    assert files(bench.out) == {"cats/1.png": image(1).data}
    assert files(bench.state / "rejected") == {}


async def test_an_image_from_rejected_that_finds_its_name_taken_is_kept_once(bench: Bench, reopen: Reopen) -> None:
    await reopen(disk=full(bench))
    with pytest.raises(StorageError):
        await bench.make(task(1), 1)
    (bench.out / "cats/1.png").write_bytes(b"somebody's")
    await reopen()
    part = f"cats/{bench.part_name(1, image(1).sha256)}"
    assert files(bench.out) == {"cats/1.png": b"somebody's", part: image(1).data}
    assert list(list_rejected(bench.state)) == []


OTHERS = ["of another request", "of another manifest", "of another ledger, as an earlier version kept it"]


@pytest.mark.parametrize("what", ["torn", *OTHERS])
async def test_what_is_kept_and_not_the_image_that_is_asked_for_stays(bench: Bench, reopen: Reopen, what: str) -> None:
    await reopen(disk=full(bench))
    with pytest.raises(StorageError):
        await bench.make(task(1), 1)
    (kept,) = list_rejected(bench.state)
    if what == "torn":
        kept.path.write_bytes(image(1).data[:-9])
    elif what == "of another request":
        await lose(bench, prompt="a dog")
    elif what == "of another manifest":
        await reopen(manifest="n")
    else:
        facts = kept.path.with_name(kept.name + ".facts.json")
        facts.write_bytes(facts.read_bytes().replace(b"cats/1", b"dogs/7"))
        for path in (facts, kept.path):
            path.rename(path.with_name(path.name.removeprefix(f"{bench.store.ledger_id}-")))
    if what != "of another manifest":
        await reopen()
    assert (bench.recovery.recovered, files(bench.out)) == (0, {})
    assert [each.sha256 for each in list_rejected(bench.state)] == [kept.sha256]


async def test_bodies_without_an_image_stay_for_people(bench: Bench, reopen: Reopen) -> None:
    intent = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    failure = Failure(fault=Fault.BROKEN, billed=Billed.YES, reason="cut", body=image(1).data, suffix=".png")
    await close(
        bench.store, intent, failure, state=TaskState.FAILED, cost_microusd=PRICE, unknown_microusd=0, seconds=1
    )
    await reopen()
    (kept,) = list_rejected(bench.state)
    assert bench.recovery.recovered == 0
    assert kept.facts is not None
    assert (kept.attempt, kept.facts.task, kept.facts.fault) == (intent.id, "cats/1", "broken")


@pytest.mark.parametrize("harm", ["missing", "edited", "truncated", "replaced-by-a-directory"], ids="L09-{}".format)
async def test_done_files_are_compared_with_the_ledger(bench: Bench, reopen: Reopen, harm: str) -> None:
    for number in range(3):
        await bench.make(task(number), number)
    victim = bench.out / "cats/1.png"
    match harm:
        case "missing":
            victim.unlink()
        case "edited":
            victim.write_bytes(image(9).data)
        case "truncated":
            os.truncate(victim, 10)
        case _:
            victim.unlink()
            victim.mkdir()
    await reopen()
    assert verified(bench.root) == ((["cats/1.png"], []) if harm == "missing" else ([], ["cats/1.png"]))
    assert done(bench.root) == 3


async def test_touched_file_is_hashed_once(bench: Bench, reopen: Reopen) -> None:
    await bench.make(task(1), 1)
    os.utime(bench.out / "cats/1.png", ns=(1, 1))
    await reopen()
    assert verified(bench.root) == ([], [])
    with bench.reader() as reader:
        known = reader.known("cats/1")
    assert known is not None
    assert known.artifact is not None
    assert known.artifact.mtime_ns == 1
    disk = FaultyDisk()
    await reopen(disk=disk)
    assert not any(call == "read" for call, _ in disk.calls)


async def test_state_directory_inside_the_outputs_is_not_searched(bench: Bench, tmp_path: Path) -> None:
    await bench.store.aclose()
    state = bench.out / ".pipeline"
    await bench.open(state_dir=state)
    (state / bench.part_name(5, "a" * 64)).write_bytes(b"?")
    await bench.store.aclose()
    await bench.open(state_dir=state)
    assert bench.recovery.foreign == 0


def crash_copy(bench: Bench, target: Path) -> None:
    """Copy everything as it is on disk while the store is open."""
    shutil.copytree(bench.out, target / "out")
    shutil.copytree(bench.state, target / "state")
    (target / "state/ledger.sqlite-shm").unlink()


def _deleted(wal: Path) -> None:
    wal.unlink()


def _truncated(wal: Path) -> None:
    os.truncate(wal, wal.stat().st_size // 2)


def _swapped(wal: Path) -> None:
    data = bytearray(wal.read_bytes())
    data[16:24] = b"othersal"
    wal.write_bytes(data)


@pytest.mark.parametrize("harm", [_deleted, _truncated, _swapped], ids=["L03-deleted", "L03-truncated", "L03-swapped"])
async def test_lost_log_leads_to_no_second_purchase(bench: Bench, tmp_path: Path, harm) -> None:
    """The ledger is older than the disk; every image that stands keeps its task from being bought again."""
    for number in range(5):
        await bench.make(task(number), number)
    attempt = await lose(bench, 5)
    (bench.out / "cats" / bench.part_name(attempt, image(5).sha256)).write_bytes(image(5).data)
    crashed = tmp_path / "crashed"
    crash_copy(bench, crashed)
    wal = crashed / "state/ledger.sqlite-wal"
    assert wal.stat().st_size > 0
    harm(wal)
    before = {name for name in files(crashed / "out") if ".part-" not in name}
    recover(crashed)
    after = files(crashed / "out")
    assert before <= set(after)
    assert image(5).data in after.values()
    with LedgerReader(crashed / "state", manifest="m") as reader:
        for number in range(5):
            known = reader.known(f"cats/{number}")
            is_done = known is not None and known.state is TaskState.DONE
            is_owned = known is not None and known.artifact is not None
            assert is_done or (not is_owned and f"cats/{number}.png" in after)


async def test_unreadable_folder_is_said_and_survived(bench: Bench, reopen: Reopen) -> None:
    """D17."""
    (bench.out / "secret").mkdir()
    (bench.out / "secret").chmod(0)
    try:
        await reopen()
    finally:
        (bench.out / "secret").chmod(0o700)
    is_root = os.geteuid() == 0
    assert is_root or any(re.search("secret cannot be read", note) for note in bench.recovery.notes)


async def test_an_image_whose_folder_is_closed_waits_and_stops_nobody(bench: Bench, reopen: Reopen) -> None:
    """Every night would else end before it began, for every job."""

    def closed(call: str, place: Path) -> int | None:
        return errno.EACCES if call == "create" and place.name == "cats" else None

    await reopen(disk=FaultyDisk(closed))
    with pytest.raises(StorageError, match="rejected/"):
        await bench.make(task(1), 1)
    await reopen(disk=FaultyDisk(closed))
    assert (bench.recovery.recovered, done(bench.root)) == (0, 0)
    assert any("Permission denied" in note for note in bench.recovery.notes)
    await reopen()
    assert bench.recovery.recovered == 1


async def test_a_part_whose_task_was_renamed_to_below_a_file_is_kept_and_stops_nobody(
    bench: Bench, reopen: Reopen
) -> None:
    attempt = await lose(bench)
    (bench.out / "cats").mkdir()
    (bench.out / "cats" / bench.part_name(attempt, image(1).sha256)).write_bytes(image(1).data)
    await bench.store.begin(task(1, name="dogs/1"), run=bench.run, reserved_microusd=PRICE)
    (bench.out / "dogs").write_bytes(b"somebody's")
    await reopen()
    assert any("stands where a directory belongs" in note for note in bench.recovery.notes)
    assert image(1).data in files(bench.state / "rejected").values()
    (bench.out / "dogs").unlink()
    await reopen()
    assert bench.recovery.recovered == 1
    assert files(bench.out) == {"dogs/1.png": image(1).data}


@pytest.mark.parametrize("code", [errno.EACCES, errno.ELOOP], ids=["closed", "link"])
async def test_a_part_whose_task_was_renamed_into_a_folder_that_cannot_be_opened_stops_nobody(
    bench: Bench, reopen: Reopen, code: int
) -> None:
    attempt = await lose(bench)
    for folder in ("cats", "dogs"):
        (bench.out / folder).mkdir()
    (bench.out / "cats" / bench.part_name(attempt, image(1).sha256)).write_bytes(image(1).data)
    await bench.store.begin(task(1, name="dogs/1"), run=bench.run, reserved_microusd=PRICE)

    class Closed(FaultyDisk):
        def open_dir(self, name: str | Path, *, dir_fd: int | None = None) -> int:
            if name == "dogs":
                raise OSError(code, os.strerror(code))
            return super().open_dir(name, dir_fd=dir_fd)

    await reopen(disk=Closed())
    assert any("dogs/1.png could not be written" in note for note in bench.recovery.notes)
    await reopen()
    assert bench.recovery.recovered == 1
    assert files(bench.out) == {"dogs/1.png": image(1).data}

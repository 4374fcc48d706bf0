"""Every file operation of a publish fails, once or from then on: no image that arrived is lost, a rerun completes."""

import asyncio
import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import ImgpipeError, InputError, StorageError
from pipeline.model import Artifact, Attempt, Failure, Fault, Task, TaskState
from pipeline.store import ledger_file
from pipeline.store.files import Disk
from pipeline.store.images import StoredImages, WriterPool
from pipeline.store.ledger_file import query
from pipeline.store.reader import LedgerReader
from pipeline.store.rejected import list_rejected
from pipeline.store.resources import open_resources
from pipeline.store.rows import begin, close, finish, record_of, task_row
from pipeline.store.tree import FILE_BYTES
from pipeline.store.writer import part_name
from tests.store.conftest import Bench, Reopen
from tests.store.fakes import PRICE, SHA, FaultyDisk, answer, files, image, publish, recover, settings, task

ERRORS = {
    "ENOSPC": errno.ENOSPC,
    "EIO": errno.EIO,
    "EACCES": errno.EACCES,
    "EROFS": errno.EROFS,
    "EDQUOT": errno.EDQUOT,
}


class Room:
    """A store without a loop, for many short lives: begin, ask, publish on a disk that fails, start again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk: Disk = FaultyDisk()

    def live(self, *tasks: tuple[Task, int], suffix: str = ".png") -> list[ImgpipeError]:
        """Publish an image for each task; return what went wrong."""
        chosen = settings(self.root, disk=self.disk)
        resources = open_resources(chosen)
        ledger = resources.ledger

        images = StoredImages(resources, WriterPool(1), received=ledger.receive)
        troubles: list[ImgpipeError] = []
        try:
            values = {
                "manifest": "m",
                "output": b"../out",
                "manifest_sha256": SHA,
                "version": "0",
                "now": 1,
                "found": "",
            }
            resources.ledger.run(
                lambda c: (c.execute(query("set_manifest"), values), c.execute(query("begin_run"), values))[0]
            )
            for wanted, number in tasks:
                attempt = resources.ledger.run(lambda c, wanted=wanted: self._begin(c, wanted))
                if isinstance(self.disk, FaultyDisk):
                    self.disk.calls.clear()
                self.before_publish(attempt)
                result = images._put(attempt, answer(number, suffix))
                if isinstance(result, Failure):
                    troubles.append(StorageError(result.reason))
                try:
                    self._record(resources, images, attempt, result)
                except ImgpipeError as error:
                    troubles.append(error)
                self.before_publish = lambda _: None
        finally:
            if isinstance(self.disk, FaultyDisk):
                self.disk.decide = lambda _call, _place: None
            resources.close()
        return troubles

    def _record(self, resources, images: StoredImages, attempt: Attempt, result: Artifact | Failure) -> None:
        if isinstance(result, Artifact):
            resources.ledger.run(lambda c: finish(c, attempt.id, result, cost=PRICE, now=1))
            images._release(attempt, result)
            return
        state = TaskState.CONFLICT if result.fault is Fault.CONFLICT else TaskState.PENDING
        resources.ledger.run(lambda c: close(c, attempt.id, result, state=state, cost=PRICE, now=1))

    def before_publish(self, attempt: Attempt) -> None:
        """Arm the fault; replaced by tests."""

    def _begin(self, connection, wanted: Task) -> Attempt:
        row = task_row(wanted, manifest="m", now=1)
        return begin(connection, wanted, row, record_of(wanted, self.root), run=1, reserved=PRICE)


def call_sites(root: Path, replacing: bool) -> list[str]:
    """Return the file operations of one publish, in order."""
    room = Room(root)
    if replacing:
        room.live((task(1), 1))
    room.live((task(1, prompt="again"), 2))
    return [call for call, _ in room.disk.calls]


@pytest.mark.parametrize("code", ERRORS.values(), ids=[f"D01-D03-D06-{name}" for name in ERRORS])
@pytest.mark.parametrize("replacing", [False, True], ids=["first", "replacing"])
@pytest.mark.parametrize("is_for_good", [False, True], ids=["once", "for-good"])
def test_no_arrived_image_is_lost(quick_path: Path, code: int, replacing: bool, is_for_good: bool) -> None:
    sites = call_sites(quick_path / "count", replacing)
    assert {"create", "write", "fsync", "link", "fsync_dir", "unlink"} <= set(sites)
    before = quick_path / "before"
    Room(before).live(*[(task(1), 1)] * replacing)
    for index, call in enumerate(sites):
        root = quick_path / f"{index}-{call}"
        shutil.copytree(before, root)
        room = Room(root)
        room.before_publish = lambda _, room=room, index=index, call=call: arm(room, index, call, code, is_for_good)
        troubles = room.live((task(1, prompt="again"), 2))
        safe = image(2).data in {**files(root / "out"), **files(root / "state")}.values()
        assert safe, f"{call}, number {index}: {troubles}"
        assert all(isinstance(trouble, StorageError) for trouble in troubles)
        check_completes(root)


def arm(room: Room, index: int, call: str, code: int, is_for_good: bool) -> None:
    """Let the call of this number fail; for good: all calls of its kind in the output directory from then on."""
    count = iter(range(10_000))
    out = room.root / "out"

    def decide(each: str, place: Path) -> int | None:
        number = next(count)
        if number == index or (is_for_good and number > index and each == call and place.is_relative_to(out)):
            return code
        return None

    room.disk.decide = decide


def check_completes(root: Path) -> None:
    """The next start has the image under its name, without a request, and nothing is left over."""
    recovery = recover(root)
    assert recovery.unknown == 0
    assert files(root / "out") == {"cats/1.png": image(2).data}
    assert list(list_rejected(root / "state")) == []
    with LedgerReader(root / "state", manifest="m") as reader:
        known = reader.known("cats/1")
        assert known is not None
        assert known.state is TaskState.DONE
        assert reader.spend().unknown_microusd == 0


def test_both_directories_dead_is_said(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.before_publish = lambda _: setattr(
        room.disk, "decide", lambda call, _place: errno.EIO if call in ("create", "write") else None
    )
    (trouble,) = room.live((task(1), 1))
    assert "could not be kept in rejected/ either" in str(trouble)


def test_a_descriptor_whose_sync_failed_is_never_synced_again(tmp_path: Path) -> None:
    """D03: Linux marks the pages clean after a failed fsync; a second one would lie."""
    synced: list[int] = []

    class Watching(FaultyDisk):
        def create(self, name: str, *, dir_fd: int, mode: int = 0o666) -> int:
            fd = super().create(name, dir_fd=dir_fd, mode=mode)
            created.append(name)
            return fd

        def fsync(self, fd: int) -> None:
            synced.append(fd)
            if len(synced) == 1:
                raise OSError(errno.EIO, "lost a page")
            super().fsync(fd)

    created: list[str] = []
    room = Room(tmp_path)
    room.disk = Watching()
    room.before_publish = lambda _: (synced.clear(), created.clear())[0]
    assert room.live((task(1), 1)) == []
    with LedgerReader(tmp_path / "state", manifest="m") as reader:
        part = part_name(str(reader.ledger_id), 1, image(1).sha256)
    assert created == [part, part]
    assert files(tmp_path / "out") == {"cats/1.png": image(1).data}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP], ids=["D04-EINVAL", "D04-ENOTSUP"])
async def test_directories_that_cannot_be_synced_are_noted_once(bench: Bench, reopen: Reopen, code: int) -> None:
    await reopen(disk=FaultyDisk(lambda call, _: code if call == "fsync_dir" else None))
    await bench.make(task(1), 1)
    await bench.make(task(2), 2)
    assert sum("cannot sync directories" in text and str(bench.out) in text for text in bench.warnings) == 1


async def test_D04_a_directory_whose_sync_fails_stops_the_run(bench: Bench, reopen: Reopen) -> None:
    out = bench.out / "cats"
    await reopen(disk=FaultyDisk(lambda call, at: errno.EIO if (call, at) == ("fsync_dir", out) else None))
    with pytest.raises(StorageError, match="could not be written: Input"):
        await bench.make(task(1), 1)


async def test_ballast_is_given_up_when_space_is_missing(bench: Bench, reopen: Reopen) -> None:
    """D01: the same bytes fit once the ballast is gone."""
    reserve = bench.state / "ballast"

    def full_while_ballast(call: str, place: Path) -> int | None:
        return errno.ENOSPC if call == "write" and reserve.exists() else None

    await reopen(disk=FaultyDisk(full_while_ballast), reserve_bytes=1 << 20)
    assert reserve.stat().st_blocks * 512 >= 1 << 20
    await bench.make(task(1), 1)
    assert files(bench.out) == {"cats/1.png": image(1).data}
    assert not reserve.exists()


async def test_what_the_ballast_frees_is_not_for_new_requests(bench: Bench, reopen: Reopen) -> None:
    """D01: it is kept for the images in flight, so nothing new is sent on a disk that was full."""
    reserve = bench.state / "ballast"
    disk = FaultyDisk(lambda call, _: errno.ENOSPC if call == "write" and reserve.exists() else None)
    disk.statvfs = lambda _fd: SimpleNamespace(f_bavail=20, f_frsize=1 << 20, f_files=0)  # type: ignore[method-assign,assignment,return-value]
    await reopen(disk=disk, reserve_bytes=1 << 20)
    assert await bench.store.free_bytes() == 20 << 20
    await bench.make(task(1), 1)
    assert await bench.store.free_bytes() == 19 << 20


async def test_a_drive_that_went_away_stops_new_requests_as_a_storage_error(bench: Bench, reopen: Reopen) -> None:
    await reopen(disk=FaultyDisk(lambda call, _: errno.ENOTCONN if call == "statvfs" else None))
    with pytest.raises(StorageError, match="state: Transport endpoint is not connected"):
        await bench.store.free_bytes()


async def test_ballast_that_cannot_be_made_is_said(bench: Bench, reopen: Reopen) -> None:
    """D20."""
    await reopen(disk=FaultyDisk(lambda call, _: errno.ENOSPC if call == "allocate" else None), reserve_bytes=1 << 20)
    assert any("no disk reserve" in text for text in bench.warnings)
    assert not (bench.state / "ballast").exists()


async def test_a_limit_of_files_is_an_error_before_anything_is_sent(bench: Bench, reopen: Reopen) -> None:
    """As `ulimit -f` and the batch systems set it: no image could be written, nor kept in rejected/."""
    disk = FaultyDisk(lambda call, _: errno.EFBIG if call == "allocate" else None)
    with pytest.raises(StorageError, match="ulimit -f"):
        await reopen(disk=disk, reserve_bytes=1 << 20)


async def test_ballast_goes_with_the_store(bench: Bench, reopen: Reopen) -> None:
    await reopen(reserve_bytes=1 << 20)
    await bench.store.aclose()
    assert not (bench.state / "ballast").exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS], ids=["D05-EACCES", "D05-EPERM", "D05-EROFS"])
@pytest.mark.parametrize("place", ["out", "state"])
def test_unwritable_directory_is_an_input_error_at_start(tmp_path: Path, place: str, code: int) -> None:
    disk = FaultyDisk(lambda call, where: code if call == "create" and where == tmp_path / place else None)
    with pytest.raises(InputError, match="cannot be written"):
        open_resources(settings(tmp_path, disk=disk))
    assert not (tmp_path / "state" / ledger_file.NAME).exists()


class ShortWrites(Disk):
    """Takes a few bytes at a time, as a signal or a nearly full disk makes it."""

    def write(self, fd: int, data: memoryview) -> int:
        return super().write(fd, data[:7])


async def test_D02_a_disk_that_takes_nothing_and_names_no_error_ends_the_write(bench: Bench, reopen: Reopen) -> None:
    class Full(Disk):
        def write(self, fd: int, data: memoryview) -> int:
            return 0

    await reopen(disk=Full())
    with pytest.raises(StorageError, match="took no bytes"):
        await bench.make(task(1), 1)


async def test_short_writes_are_looped(bench: Bench, reopen: Reopen) -> None:
    """D02."""
    await reopen(disk=ShortWrites())
    await bench.make(task(1), 1)
    assert files(bench.out) == {"cats/1.png": image(1).data}


@pytest.fixture
def small_files():
    """RLIMIT_FSIZE at 150,000 bytes for this process; SIGXFSZ is ignored by Python."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_image_over_the_file_size_limit_is_an_error_and_leaves_no_part(
    bench: Bench, small_files: Callable[[], None]
) -> None:
    """D02: EFBIG after a short write; neither place can hold it, and that is said."""
    intent = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    big = SimpleNamespace(**{name: getattr(image(1), name) for name in image(1).__slots__} | {"data": bytes(200_000)})
    huge = answer(1).__class__(image=big)
    small_files()
    with pytest.raises(StorageError, match="could not be kept"):
        await publish(bench.store, intent, huge, cost_microusd=1, seconds=1)
    assert files(bench.out) == {}


async def test_free_bytes_is_the_scarcer_directory(bench: Bench, reopen: Reopen) -> None:
    """D08: what the engine's gate watches."""

    class Scarce(Disk):
        def statvfs(self, fd: int):
            return SimpleNamespace(f_bavail=next(left), f_frsize=4096, f_files=0)

    left = iter([1000, 10] * 10)
    await reopen(disk=Scarce())
    next(left)
    assert await bench.store.free_bytes() == 40960


def no_file(name: str, *, dir_fd: int, mode: int = 0o666) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


@pytest.mark.parametrize("left", [10, 0], ids=str)
async def test_few_free_files_count_as_a_disk_that_is_nearly_full(bench: Bench, reopen: Reopen, left: int) -> None:
    """D19: the reserve gives bytes, not inodes; an image in flight must not find none left."""
    disk = FaultyDisk()
    disk.statvfs = lambda _fd: SimpleNamespace(f_bavail=1 << 30, f_frsize=4096, f_files=99, f_favail=left)  # type: ignore[method-assign,assignment,return-value]
    await reopen(disk=disk)
    if left == 0:
        assert await bench.store.free_bytes() == 1 << 42  # as on CephFS: a file can be made all the same
        disk.create = no_file  # type: ignore[method-assign]
    assert [await bench.store.free_bytes() for _ in range(2)] == [left * FILE_BYTES] * 2
    assert (
        sum(f"only {left} more files (inodes) fit" in text for text in bench.warnings) == 2
    )  # once for each directory


async def test_r26_images_are_saved_when_descriptors_run_out(bench: Bench, many_files: Callable[[], list[int]]) -> None:
    """The spare ones are given up for it."""
    intents = [await bench.store.begin(task(number), run=bench.run, reserved_microusd=PRICE) for number in range(6)]
    answers = [answer(number) for number in range(6)]
    taken = many_files()
    try:
        async with asyncio.TaskGroup() as group:
            for number, intent in enumerate(intents):
                publishing = publish(bench.store, intent, answers[number], cost_microusd=PRICE, seconds=1)
                group.create_task(publishing)
    finally:
        for fd in taken:
            os.close(fd)
    found = {
        name: data for name, data in files(bench.out).items() if ".part-" not in name
    }  # those go at the next start
    assert found == {f"cats/{number}.png": image(number).data for number in range(6)}


@pytest.fixture
def many_files():
    """Take every descriptor this process may still have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def take() -> list[int]:
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, before[1]))
        taken: list[int] = []
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                return taken

    yield take
    resource.setrlimit(resource.RLIMIT_NOFILE, before)

"""Folders that are done already: a run finds out without reading an image, and pays for what changed alone."""

import os
import time
from pathlib import Path

import pytest

from pipeline.app import plan as app_plan
from pipeline.app import status as app_status
from pipeline.model import TaskState
from pipeline.plan.decide import Rules
from pipeline.plan.selection import Selection
from tests.e2e.album import PAST, Album, Opened
from tests.provider.conftest import png

PHOTOS = 200


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()


@pytest.fixture
async def album(tmp_path: Path) -> Album:
    """An album that is done, and whose last run has seen every photograph."""
    album = Album(tmp_path / "album", PHOTOS)
    album.finish()
    await album.run()
    return album


async def test_P4_a_run_that_finds_nothing_to_do_reads_no_photograph_and_no_image(album: Album, opened: Opened) -> None:
    with opened.below(album.folder / "photos") as photos:
        summary = await album.run()
    assert (summary.exit, summary.attempts, summary.skipped) == (0, 0, PHOTOS)
    assert photos == []
    with opened.below(album.folder / "out") as files:
        await album.run()
    assert [path for path in files if path.endswith(".png")] == []


async def test_the_first_run_reads_each_photograph_once(tmp_path: Path, opened: Opened) -> None:
    album = Album(tmp_path / "album", 20)
    album.finish()
    with opened.below(album.folder / "photos") as photos:
        await album.run()
    assert sorted(photos) == [str(album.photo(number)) for number in range(20)]


async def test_one_changed_photograph_is_read_once_and_costs_one_request(album: Album, opened: Opened) -> None:
    album.photo(7).write_bytes(png(24, 24))
    bill = app_plan.bill(album.setup)
    assert [(line.reason, line.tasks) for line in bill.lines if line.is_due] == [("inputs changed", 1)]
    with opened.below(album.folder / "photos") as photos:
        summary = await album.run()
    assert (summary.attempts, summary.images, summary.skipped) == (1, 1, PHOTOS - 1)
    assert set(photos) == {str(album.photo(7))}
    assert (await album.run()).attempts == 0


async def test_a_photograph_of_the_same_size_and_another_time_is_a_change_too(album: Album) -> None:
    size = album.photo(9).stat().st_size
    album.photo(9).write_bytes(album.photo(8).read_bytes())
    assert album.photo(9).stat().st_size == size
    assert (await album.run()).attempts == 1


async def test_a_photograph_of_the_same_size_and_time_is_read_anew_once_a_request_found_out_i09(album: Album) -> None:
    """Such as an export without compression whose time is kept: it was changed since the plan, whatever was run."""
    album.photo(9).write_bytes(album.photo(8).read_bytes())
    os.utime(album.photo(9), (PAST, PAST))
    assert (await album.run()).attempts == 0
    (album.folder / "out" / "00009.png").unlink()
    summary = await album.run(rules=Rules(repair=True))
    assert (summary.exit, summary.attempts) == (3, 0)
    summary = await album.run(rules=Rules(repair=True))
    assert (summary.exit, summary.attempts, summary.images) == (0, 1, 1)


async def test_a_touched_photograph_is_read_once_more_and_costs_nothing(album: Album, opened: Opened) -> None:
    os.utime(album.photo(3))
    with opened.below(album.folder / "photos") as photos:
        summary = await album.run()
    assert (summary.exit, summary.attempts) == (0, 0)
    assert photos == [str(album.photo(3))]
    with opened.below(album.folder / "photos") as again:
        await album.run()
    assert again == []


async def test_a_touched_image_is_hashed_and_costs_nothing(album: Album) -> None:
    os.utime(album.folder / "out" / "00003.png")
    summary = await album.run()
    assert (summary.exit, summary.attempts) == (0, 0)


async def test_a_removed_photograph_leaves_an_orphan_that_is_told_and_not_touched(album: Album) -> None:
    album.photo(0).unlink()
    album.photo(1).unlink()
    summary = await album.run()
    assert (summary.exit, summary.attempts, summary.total) == (0, 0, PHOTOS - 2)
    status = app_status.status(album.setup)
    assert (status.orphaned, status.states[TaskState.DONE]) == (2, PHOTOS - 2)
    orphaned = [line for line in app_plan.bill(album.setup).lines if line.reason == "orphaned"]
    assert [(line.job, line.tasks, line.is_due) for line in orphaned] == [("relit", 2, False)]
    assert (album.folder / "out" / "00000.png").exists()


async def test_orphans_are_not_told_of_a_selection(album: Album) -> None:
    album.photo(0).unlink()
    setup = album.prepared(selection=Selection(select=["relit/0000*"]))
    assert app_status.status(setup).orphaned == 0
    assert "orphaned" not in [line.reason for line in app_plan.bill(setup).lines]


async def test_a_new_photograph_costs_one_request(album: Album) -> None:
    album.photo(PHOTOS).write_bytes(png(24, 24))
    summary = await album.run()
    assert (summary.attempts, summary.images, summary.skipped) == (1, 1, PHOTOS)


async def test_a_young_photograph_waits_and_is_told(album: Album) -> None:
    album.each = ", min_age: 1h"
    album.photo(5).write_bytes(png(24, 24))
    album.photo(PHOTOS).write_bytes(png(24, 24))
    text = "2 input files are younger than min_age, left for a later run"
    assert text in app_plan.bill(album.setup).notes
    summary = await album.run()
    assert (summary.exit, summary.attempts) == (0, 0)
    assert album.warnings == [text]
    assert app_status.status(album.setup).orphaned == 0
    hour_ago = time.time() - 3601
    os.utime(album.photo(5), (hour_ago, hour_ago))
    os.utime(album.photo(PHOTOS), (hour_ago, hour_ago))
    assert (await album.run()).attempts == 2


async def test_a_missing_image_is_told_without_repair_and_bought_with_it(album: Album) -> None:
    (album.folder / "out" / "00004.png").unlink()
    (album.folder / "out" / "00005.png").write_bytes(png(24, 24))
    assert app_status.status(album.setup).missing == 2
    bill = app_plan.bill(album.setup)
    assert [(line.reason, line.tasks, line.is_due) for line in bill.lines] == [
        ("unchanged", PHOTOS - 2, False),
        ("missing", 2, False),
    ]
    assert any("2 images missing or changed since" in note and "--repair" in note for note in bill.notes)
    summary = await album.run()
    assert (summary.exit, summary.attempts) == (3, 0)
    summary = await album.run(rules=Rules(repair=True, force=True))
    assert (summary.exit, summary.attempts) == (0, 2)


async def test_a_plan_changes_no_file(album: Album) -> None:
    os.utime(album.photo(3))
    before = moments(album.folder)
    app_plan.bill(album.setup)
    app_status.status(album.setup)
    assert moments(album.folder) == before


def moments(folder: Path) -> dict[Path, int]:
    """Return every file's time but those of what each test's own set-up and SQLite's readers write."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".yaml", ".sqlite-shm"))
    return {path: path.stat().st_mtime_ns for path in files if path.stat().st_size}

"""The state directory is gone and the images are there: more was spent than anybody knows, and that is said."""

import contextlib
import shutil
import sqlite3

from tests.cli.conftest import Imgpipe

DOUBT = "more may have been spent"


def test_a_ledger_that_begins_beside_its_images_is_told_until_a_day_without_it(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    assert imgpipe("run", path, "-q").err == ""
    shutil.rmtree(imgpipe.state)
    assert DOUBT in imgpipe("plan", path).out
    path.write_text(path.read_text().replace("blue: A blue mug", "blue: A blue mug, green: A green mug"))
    first = imgpipe("run", path)
    assert first.err.index(DOUBT) < first.err.index("1 image")  # before anything is bought
    assert DOUBT in imgpipe("run", path, "-q").err
    assert DOUBT in imgpipe("status", path).out


def test_a_rebuild_after_the_new_ledger_has_begun_says_so_as_well(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    shutil.rmtree(imgpipe.state)
    imgpipe("run", path, "-q")
    rebuilt = imgpipe("rebuild", path)
    assert "2 images recorded" in rebuilt.err
    assert "MORE MAY HAVE BEEN SPENT" in rebuilt.err
    quiet = imgpipe("run", path, "-q")
    assert (quiet.exit, DOUBT in quiet.err) == (0, True)


def test_a_file_of_ones_own_in_a_ledger_at_work_is_a_conflict_and_no_doubt(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    path.write_text(path.read_text().replace("blue: A blue mug", "blue: A blue mug, green: A green mug"))
    shutil.copy(imgpipe.images()[0], imgpipe.out / "mugs/green.png")
    ended = imgpipe("run", path)
    assert (ended.exit, DOUBT in ended.err) == (3, False)


def test_money_that_is_dated_later_than_now_is_told_until_it_counts(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    with contextlib.closing(sqlite3.connect(imgpipe.state / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE attempt SET sent_at = sent_at + 3600000000 * 26")
    quiet = imgpipe("run", path, "-q")
    assert (quiet.exit, "is dated later than now" in quiet.err) == (0, True)
    assert "is dated later than now" in imgpipe("status", path).out
    with contextlib.closing(sqlite3.connect(imgpipe.state / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE attempt SET sent_at = sent_at - 3600000000 * 26")
    assert imgpipe("run", path, "-q").err == ""

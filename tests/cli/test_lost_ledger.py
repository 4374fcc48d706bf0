"""The state directory is gone and the images are there: more was spent than anybody knows, and that is said."""

import contextlib
import shutil
import sqlite3

import pytest

from tests.cli.conftest import Imgpipe

DOUBT = "more may have been spent"


@pytest.mark.parametrize("lost", ["*", "ledger.sqlite*"], ids=["L07-state", "L07-ledger"])
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_images_without_their_ledger_stop_a_run_before_anything_is_bought(
    imgpipe: Imgpipe, verb: str, lost: str
) -> None:
    path = imgpipe.made()
    for file in imgpipe.state.glob(lost):
        file.unlink()
    path.write_text(path.read_text().replace("blue: A blue mug", "blue: A blue mug, green: A green mug"))
    for _again in range(2):
        ended = imgpipe(verb, path)
        assert (ended.exit, len(imgpipe.images())) == (2, 2)
        assert "files exist under the names of 2 tasks" in ended.err
        assert f"imgpipe rebuild {path}" in ended.err
        assert all(f"mugs/{file.stem}: mugs/{file.name} is in the way" in ended.err for file in imgpipe.images())
    assert imgpipe("rebuild", path).exit == 0
    assert imgpipe("run", path, "--json").json["attempts"] == 1


def test_what_has_no_file_is_bought_without_the_ledger_when_it_is_selected(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    shutil.rmtree(imgpipe.state)
    path.write_text(path.read_text().replace("blue: A blue mug", "blue: A blue mug, green: A green mug"))
    assert imgpipe("run", path, "--select", "mugs/green", "--json").json["attempts"] == 1


def test_a_rebuild_of_a_lost_ledger_says_what_is_not_known_until_a_day_without_it(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    assert imgpipe("run", path, "-q").err == ""
    shutil.rmtree(imgpipe.state)
    imgpipe("run", path, "-q")
    rebuilt = imgpipe("rebuild", path)
    assert "2 images recorded" in rebuilt.err
    assert "MORE MAY HAVE BEEN SPENT" in rebuilt.err
    quiet = imgpipe("run", path, "-q")
    assert (quiet.exit, DOUBT in quiet.err) == (0, True)
    assert DOUBT in imgpipe("status", path).out


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


def test_L07_answers_that_were_kept_without_their_ledger_stop_a_run(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {items: {red: A red mug}}}")
    kept = imgpipe.state / "rejected" / f"0123abcd-1-{'0' * 64}.png"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"paid for")
    ended = imgpipe("run", path)
    assert (ended.exit, imgpipe.images()) == (2, [])
    assert f"imgpipe rebuild {path}" in ended.err

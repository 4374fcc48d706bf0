"""A ledger of an earlier version is opened and continued: nothing that it has paid for is bought again."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Imgpipe

OLD = Path(__file__).with_name("ledger_v2")  # killed with one image in a part and one request in flight


@pytest.fixture
def old(imgpipe: Imgpipe) -> Path:
    """Return the manifest of a shop as the earlier version left it."""
    shutil.copytree(OLD, imgpipe.folder, dirs_exist_ok=True)
    imgpipe.state.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(imgpipe.state / "ledger.sqlite")) as ledger:
        ledger.executescript(imgpipe.folder.joinpath("ledger.sql").read_text())
    return imgpipe.folder / "shop.yaml"


def test_an_old_ledger_is_read_as_it_is(imgpipe: Imgpipe, old: Path) -> None:
    before = (imgpipe.state / "ledger.sqlite").read_bytes()
    assert imgpipe("plan", old, "--json").json["reasons"] == {"retry": 2}
    tasks = imgpipe("status", old, "--json").json["tasks"]
    assert {state: number for state, number in tasks.items() if number} == {"pending": 2, "done": 3, "refused": 1}
    assert (imgpipe.state / "ledger.sqlite").read_bytes() == before


def test_an_old_ledger_is_continued_without_a_purchase(imgpipe: Imgpipe, old: Path) -> None:
    ended = imgpipe("run", old, "--json")
    assert ended.json["attempts"] == 0, ended.err
    assert ended.exit == 3  # one refused before, one unknown
    after = imgpipe("status", old, "--json").json
    counts = {state: number for state, number in after["tasks"].items() if number}
    assert counts == {"done": 4, "refused": 1, "unknown": 1}
    assert (imgpipe.out / "mugs" / "lost-1.png").is_file()  # from the part, whose name says no ledger
    assert [each["task"] for each in after["unknown"]] == ["mugs/lost@2"]
    assert after["cost_usd"]["unknown"] == 0.134
    assert (imgpipe.state / "ledger-v2.sqlite").is_file()
    assert imgpipe("verify", old).exit == 0
    assert imgpipe("run", old, "--json").json["attempts"] == 0


def test_a_damaged_old_ledger_is_rebuilt_without_a_purchase(imgpipe: Imgpipe, old: Path) -> None:
    ledger = imgpipe.state / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'task_name'").fetchone()
    data = bytearray(ledger.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    ledger.write_bytes(data)
    assert imgpipe("rebuild", old).exit in (0, 3)
    assert imgpipe("run", old, "--json").json["attempts"] == 0

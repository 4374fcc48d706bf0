"""The ledger for everybody who only looks."""

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipeline.errors import LedgerError
from pipeline.model import Billed, Failure, Fault, TaskState, Usage
from pipeline.store import rows
from pipeline.store.ledger_file import query
from pipeline.store.reader import LedgerReader
from tests.store.conftest import Bench, Reopen
from tests.store.fakes import PRICE, answer, close, files, image, publish, states, task


def test_missing_ledger_is_an_empty_one(tmp_path: Path) -> None:
    with LedgerReader(tmp_path / "state", manifest="m") as reader:
        assert reader.is_missing
        assert reader.is_play_money is None
        assert reader.known("x") is None
        assert list(reader.all_known()) == []
        assert reader.spend().spent_microusd == 0
        assert (reader.runs(), reader.unknowns(), reader.holds()) == ([], [], [])
        assert reader.known_among(["x"]) == {}
        assert reader.claimed_elsewhere(["x"]) == {}
    assert list(tmp_path.iterdir()) == []


async def test_l12_reader_works_while_a_run_writes_and_never_checkpoints(bench: Bench) -> None:
    """The log only grows while readers come and go; the main file is not touched."""
    await bench.make(task(0), 0)
    main = bench.state / "ledger.sqlite"
    before = main.read_bytes()
    for number in range(1, 20):
        await bench.make(task(number), number)
        with bench.reader() as reader:
            assert states(reader)[TaskState.DONE] == number + 1
    assert main.read_bytes() == before


async def test_l12_open_reader_sees_new_rows_and_blocks_nobody(bench: Bench) -> None:
    with bench.reader() as reader:
        walk = reader.all_known()
        await bench.make(task(1), 1)
        assert [known.id for known in walk] == ["cats/1"]
        walk = reader.all_known()
        assert next(walk).id == "cats/1"
        await bench.make(task(2), 2)
        assert list(walk) == []
        assert reader.known("cats/2") is not None


async def test_walking_images_lets_the_log_be_reset(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.reader.BATCH", 2)
    for number in range(5):
        await bench.make(task(number), number)
    with bench.reader() as reader, closing(sqlite3.connect(bench.state / "ledger.sqlite")) as other:
        walk = reader.all_done()
        first, _ = next(walk)
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        assert [first, *(task_id for task_id, _ in walk)] == [f"cats/{number}" for number in range(5)]


async def test_what_is_dated_later_than_now_is_not_part_of_today(bench: Bench, reopen: Reopen) -> None:
    """A clock that was ahead one night."""
    await reopen(clock=lambda: datetime(2027, 11, 22, tzinfo=UTC))
    await bench.make(task(1), 1)
    with bench.reader() as reader:
        assert reader.spend(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC)).spent_microusd == 0
        assert reader.spend(datetime(2026, 11, 1, tzinfo=UTC)).spent_microusd == PRICE


async def test_reader_cannot_write(bench: Bench) -> None:
    with bench.reader() as reader:
        assert reader._connection is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM task")


async def test_reader_survives_the_end_of_the_run(bench: Bench) -> None:
    await bench.make(task(1), 1)
    with bench.reader() as reader:
        await bench.store.aclose()
        assert reader.known("cats/1") is not None


async def test_closed_ledger_is_left_as_it_is(bench: Bench) -> None:
    await bench.make(task(1), 1)
    await bench.store.aclose()
    before = (bench.state / "ledger.sqlite").read_bytes()
    with bench.reader() as reader:
        assert states(reader) == {TaskState.DONE: 1}
    assert (bench.state / "ledger.sqlite").read_bytes() == before


class Calendar:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


async def spread(bench: Bench, reopen: Reopen) -> None:
    """Three days of spending: an image a day, and a lost request on the last one."""
    calendar = Calendar()
    await reopen(clock=calendar)
    for number in range(3):
        job = "dogs" if number == 2 else "cats"
        await bench.make(task(number, job=job, model=f"model-{number % 2}"), number, cost=1000 * (number + 1))
        calendar.now += timedelta(days=1)
    calendar.now -= timedelta(hours=1)
    intent = await bench.store.begin(task(9), run=bench.run, reserved_microusd=PRICE)
    lost = Failure(fault=Fault.SILENCE, billed=Billed.MAYBE, reason="silence")
    await close(bench.store, intent, lost, state=TaskState.UNKNOWN, cost_microusd=0, unknown_microusd=PRICE, seconds=1)


async def test_spend_since_a_moment(bench: Bench, reopen: Reopen) -> None:
    await spread(bench, reopen)
    with bench.reader() as reader:
        assert reader.spend().spent_microusd == 6000
        last = reader.spend(datetime(2026, 11, 21, 12, tzinfo=UTC))
        assert (last.spent_microusd, last.unknown_microusd) == (5000, PRICE)
        assert reader.spend(datetime(2026, 12, 1, tzinfo=UTC)).spent_microusd == 0


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (["job"], {("cats",): (3, 3000, PRICE), ("dogs",): (1, 3000, 0)}),
        (["model"], {("gemini",): (1, 0, PRICE), ("model-0",): (2, 4000, 0), ("model-1",): (1, 2000, 0)}),
        (["day"], {("2026-11-20",): (1, 1000, 0), ("2026-11-21",): (1, 2000, 0), ("2026-11-22",): (1, 3000, 0),
                   ("2026-11-23",): (1, 0, PRICE)}),
        ([], {(): (4, 6000, PRICE)}),
    ],
    ids=["job", "model", "day", "total"],
)  # fmt: skip
async def test_costs_by_group(bench: Bench, reopen: Reopen, by: list[str], expected) -> None:
    await spread(bench, reopen)
    with bench.reader() as reader:
        found = {cost.key: (cost.attempts, cost.spent_microusd, cost.unknown_microusd) for cost in reader.costs(by=by)}
    assert found == expected


@pytest.mark.parametrize("outer", ["imageConfig", "image_config"])
@pytest.mark.parametrize("inner", ["imageSize", "image_size"])
async def test_P9_the_dearest_answer_counts_for_the_size_that_its_params_ask_for(
    bench: Bench, outer: str, inner: str
) -> None:
    usage = Usage(prompt_tokens=1, image_tokens=2520, text_tokens=0)
    for number, params in enumerate(({}, {outer: {inner: "4K"}})):
        intent = await bench.store.begin(task(number, size="2K", params=params), run=bench.run, reserved_microusd=PRICE)
        await publish(bench.store, intent, replace(answer(number), usage=usage), cost_microusd=PRICE + number)
    with bench.reader() as reader:
        found = reader.dearest(datetime(2026, 1, 1, tzinfo=UTC))
    assert found == {("gemini", "2K", "standard"): PRICE, ("gemini", "4K", "standard"): PRICE + 1}


async def test_days_are_those_of_the_time_zone(bench: Bench, reopen: Reopen) -> None:
    """Nepal is 5:45 ahead: its days begin on a quarter of an hour."""
    calendar = Calendar()
    calendar.now = datetime(2026, 11, 20, 18, 14, tzinfo=UTC)
    await reopen(clock=calendar)
    await bench.make(task(1), 1)
    calendar.now += timedelta(minutes=2)
    await bench.make(task(2), 2)
    with bench.reader() as reader:
        found = [cost.key for cost in reader.costs(by=["day"], tz=ZoneInfo("Asia/Kathmandu"))]
    assert found == [("2026-11-20",), ("2026-11-21",)]


@pytest.mark.parametrize("name", ["spend_since", "spend_of_last_run"])
async def test_money_is_summed_from_an_index(bench: Bench, name: str) -> None:
    with bench.reader() as reader:
        assert reader._connection is not None
        plan = reader._connection.execute(
            f"EXPLAIN QUERY PLAN {query(name)}", {"since": 0, "until": 1, "manifest": "m"}
        ).fetchall()
    assert any("USING COVERING INDEX" in row[3] for row in plan)


@pytest.mark.parametrize(
    "name",
    [
        "known_among",
        "record",
        "record_of",
        "recorded_near",
        "attempts",
        "claimed_elsewhere",
        "made_by_path",
        "made_by_sha256",
        "twins",
        "unknowns",
    ],
)
async def test_lookups_walk_no_table(bench: Bench, name: str) -> None:
    values = dict.fromkeys(re.findall(r":(\w+)", query(name)), "[]")
    with bench.reader() as reader:
        assert reader._connection is not None
        plan = reader._connection.execute(f"EXPLAIN QUERY PLAN {query(name)}", values).fetchall()
    assert not any(row[3].startswith("SCAN task") or row[3] == "SCAN attempt" for row in plan), plan


async def test_two_manifests_share_a_directory(bench: Bench, reopen: Reopen) -> None:
    await bench.make(task(1, name="Café/x"), 1)
    await reopen(manifest="other")
    await bench.make(task(1, name="y"), 2)
    with bench.reader("other") as reader:
        assert reader.claimed_elsewhere(["CAFE\u0301/X", "y"]) == {"CAFE\u0301/X": "m: cats/1"}
        assert [known.name for known in reader.all_known()] == ["y"]
        assert reader.is_recorded("Café/x.png")
    elsewhere = LedgerReader(bench.state, manifest="third", output_dir=bench.root / "third")
    assert elsewhere.claimed_elsewhere(["y"]) == {}
    elsewhere.close()


async def test_several_tasks_are_looked_up_at_once(bench: Bench) -> None:
    for number in range(3):
        await bench.make(task(number), number)
    with bench.reader() as reader:
        found = reader.known_among(["cats/2", "cats/new", "cats/0", "cats/\udcff"])
        assert found == {"cats/0": reader.known("cats/0"), "cats/2": reader.known("cats/2")}


async def test_makers_of_an_image_by_path_and_hash(bench: Bench) -> None:
    """`explain`: superseded images are found by their hash."""
    await bench.make(task(1), 1)
    await bench.make(task(1, prompt="a dog"), 2)
    with bench.reader() as reader:
        (by_path,) = reader.makers(path="cats/1.png")
        (by_hash,) = reader.makers(sha256=image(1).sha256)
        assert reader.makers(path="nothing", sha256="0" * 64) == []
    assert (by_path.task_id, by_path.attempt) == ("cats/1", 2)
    assert (by_hash.task_id, by_hash.attempt) == ("cats/1", 1)


async def test_record_tells_how_an_image_came_to_be(bench: Bench) -> None:
    await bench.make(task(1, tags=("a",), matrix={"mood": "dawn"}, params={"x": 1}), 1)
    with bench.reader() as reader:
        record = reader.record("cats/1")
    assert record is not None
    assert (record["prompt"], record["tags"], record["params"]) == ("a cat", ["a"], {"x": 1})
    assert record["matrix"] == {"mood": "dawn"}


async def test_each_request_of_a_task_keeps_its_record(bench: Bench) -> None:
    """Asked for a cat, a dog, and the cat again: the later word on the cat counts, the dog is not forgotten."""
    await bench.make(task(1, prompt="a cat"), 1)
    await bench.make(task(1, prompt="a dog"), 2)
    await bench.make(task(1, prompt="a cat", tags=("again",)), 3)
    with bench.reader() as reader:
        cat, dog = (
            reader.record("cats/1", fingerprint=task(1, prompt=each).fingerprint) for each in ("a cat", "a dog")
        )
        latest, unasked = reader.record("cats/1"), reader.record("cats/1", fingerprint="0" * 64)
    assert cat is not None
    assert dog is not None
    assert (cat["prompt"], cat["tags"], dog["prompt"]) == ("a cat", ["again"], "a dog")
    assert (latest, unasked) == (cat, None)


async def test_orphans_are_known_and_not_in_the_manifest(bench: Bench) -> None:
    """M20."""
    for number in range(3):
        await bench.make(task(number), number)
    with bench.reader() as reader:
        assert [known.id for known in reader.orphans(["cats/0", "cats/2", "cats/new"])] == ["cats/1"]


async def test_older_image_stays_known_while_a_newer_one_fails(bench: Bench) -> None:
    """A person who takes the change back finds the image made for it."""
    artifact = await bench.make(task(1), 1)
    intent = await bench.store.begin(task(1, prompt="a dog"), run=bench.run, reserved_microusd=PRICE)
    failure = Failure(fault=Fault.REFUSED, billed=Billed.YES, reason="SAFETY")
    await close(
        bench.store, intent, failure, state=TaskState.REFUSED, cost_microusd=PRICE, unknown_microusd=0, seconds=1
    )
    with bench.reader() as reader:
        known = reader.known("cats/1")
    assert known is not None
    assert (known.state, known.fingerprint) == (TaskState.REFUSED, task(1, prompt="a dog").fingerprint)
    assert (known.artifact, known.artifact_fingerprint) == (artifact, task(1).fingerprint)
    assert files(bench.out) == {"cats/1.png": image(1).data}


async def test_row_that_cannot_be_read_is_damage(bench: Bench) -> None:
    """L02."""
    await bench.make(task(1), 1)
    await bench.store.aclose()
    with closing(sqlite3.connect(bench.state / "ledger.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE task SET name = CAST(x'ff' AS TEXT), updated_at = 1 << 62")
        connection.execute("UPDATE record SET record = 'no JSON'")
    with bench.reader() as reader:
        asks: list[Callable[[], object]] = [
            lambda: reader.known("cats/1"),
            lambda: reader.known_among(["cats/1"]),
            lambda: reader.record("cats/1"),
            lambda: list(reader.all_known()),
        ]
        for ask in asks:
            with pytest.raises(LedgerError, match="imgpipe rebuild"):
                ask()


async def test_the_pace_is_that_of_the_last_run_with_enough_images(bench: Bench, reopen: Reopen) -> None:
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    store = await reopen(clock=lambda: moment)
    for number in range(4):
        await bench.make(task(number), number)
    moment += timedelta(seconds=8)
    await store.end_run(bench.run, exit=0)
    store = await reopen(clock=lambda: moment)
    await bench.make(task(9), 9)
    moment += timedelta(seconds=100)
    await store.end_run(bench.run, exit=0)
    with bench.reader() as reader:
        assert reader.pace(fewest=2) == 0.5
        assert reader.pace(fewest=1) == 0.01
        assert reader.pace(fewest=9) is None
    with bench.reader("another") as reader:
        assert reader.pace(fewest=1) is None


async def test_the_pace_of_a_run_that_died_ends_with_its_last_attempt(bench: Bench, reopen: Reopen) -> None:
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    await reopen(clock=lambda: moment)
    await bench.make(task(0), 0)
    moment += timedelta(seconds=4)
    await bench.make(task(1), 1)
    with bench.reader() as reader:
        assert reader.pace(fewest=2) == 0.5


async def test_jobs_are_counted_with_all_their_tasks(bench: Bench) -> None:
    for number in range(3):
        await bench.make(task(number), number)
    with bench.reader() as reader:
        assert reader.jobs() == {"cats": 3}
    with bench.reader("another") as reader:
        assert reader.jobs() == {}


@pytest.mark.parametrize("state_dir", ["/", "/a/s", "/a/s/.pipeline", "/a/b"])
@pytest.mark.parametrize(
    "path", ["/a/b/c.png", "/a/x", "/c.png", "/a/s/y.png", "/a/s", "/a", "/a/s/../b/q.png", "/a/b/..", "/a/b/", "//a/b"]
)
def test_the_short_way_to_a_relative_path_ends_where_the_long_one_does(path: str, state_dir: str) -> None:
    assert rows.relative_bytes(path, Path(state_dir)) == os.fsencode(os.path.relpath(path, state_dir))

"""What a damaged ledger still says, and what is counted where it says nothing: a budget never begins anew (P9, P12)."""

import asyncio
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.model import Billed, Failure, Fault, Spend, TaskState
from pipeline.store.ledger_file import NAME
from pipeline.store.ledger_salvage import LOST
from pipeline.store.reader import LedgerReader
from pipeline.store.rebuild import Rebuilt, find_traces, rebuild_ledger
from tests.store.conftest import Bench
from tests.store.fakes import PRICE, close, files, image, settings, states, task

MADE, UNKNOWN = 60, 4
TASKS = [task(number) for number in range(MADE + UNKNOWN)]
ALL = Spend(spent_microusd=MADE * PRICE, unknown_microusd=UNKNOWN * PRICE)
PAGE = 4096


async def fill(bench: Bench) -> None:
    """Make sixty images, and lose the answers of four requests more."""
    await bench.open()
    for number in range(MADE):
        await bench.make(task(number), number)
    for number in range(MADE, MADE + UNKNOWN):
        intent = await bench.store.begin(task(number), run=bench.run, reserved_microusd=PRICE)
        failure = Failure(fault=Fault.SILENCE, billed=Billed.MAYBE, reason="silence", request_id=f"req-{number}")
        await close(
            bench.store, intent, failure, state=TaskState.UNKNOWN, cost_microusd=0, unknown_microusd=PRICE, seconds=1
        )
    await bench.store.aclose()


@pytest.fixture(scope="module")
def filled() -> Iterator[Path]:
    """A store that was used and closed, in memory where there is one: the tests break copies of it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None, prefix="imgpipe-") as name:
        asyncio.run(fill(Bench(Path(name))))
        yield Path(name)


@pytest.fixture
def bench(filled: Path, quick_path: Path) -> Bench:
    shutil.copytree(filled, quick_path, dirs_exist_ok=True)
    return Bench(quick_path)


def again(bench: Bench) -> Rebuilt:
    return rebuild_ledger(settings(bench.root), [TASKS], price=lambda _: PRICE)


def root_of(ledger: Path, name: str) -> int:
    with closing(sqlite3.connect(ledger)) as connection:
        return int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0])


def spoil(ledger: Path, page: int) -> None:
    data = bytearray(ledger.read_bytes())
    data[(page - 1) * PAGE : page * PAGE] = random.Random(page).randbytes(PAGE)
    ledger.write_bytes(data)


@pytest.mark.parametrize("name", ["task_name", "task_path", "attempt_task", "attempt_open", "attempt_run_money"])
def test_l01_an_unreadable_index_costs_nothing(bench: Bench, name: str) -> None:
    ledger = bench.state / NAME
    spoil(ledger, root_of(ledger, name))
    before = ledger.read_bytes()
    rebuilt = again(bench)
    assert rebuilt.salvaged is not None
    assert (rebuilt.salvaged.attempts, rebuilt.doubt, rebuilt.kept) == (MADE + UNKNOWN, None, MADE)
    assert rebuilt.salvaged.source.read_bytes() == before
    with bench.reader() as reader:
        assert reader.spend() == ALL
        assert [each.request_id for each in reader.unknowns()] == [f"req-{n}" for n in range(MADE, MADE + UNKNOWN)]
        known = reader.known(task(MADE).id)
    assert known is not None
    assert (known.state, known.unknowns) == (TaskState.UNKNOWN, 1)


@pytest.mark.parametrize("name", ["task", "record", "run", "manifest"])
def test_l01_money_counts_when_nobody_can_tell_whose_it_was(bench: Bench, name: str) -> None:
    ledger = bench.state / NAME
    spoil(ledger, root_of(ledger, name))
    rebuilt = again(bench)
    assert rebuilt.salvaged is not None
    assert rebuilt.salvaged.attempts == MADE + UNKNOWN
    with bench.reader() as reader:
        assert reader.spend() == ALL
        assert states(reader)[TaskState.DONE] == MADE


def test_l01_images_of_a_later_stage_raise_no_doubt(bench: Bench) -> None:
    spoil(bench.state / NAME, root_of(bench.state / NAME, "task"))
    stages = (TASKS[:1], TASKS[1:])
    rebuilt = rebuild_ledger(settings(bench.root), stages, price=lambda _: PRICE)
    assert (rebuilt.adopted, rebuilt.counted_microusd, rebuilt.doubt) == (MADE, 0, None)
    with bench.reader() as reader:
        assert reader.spend() == ALL
        assert reader.doubt(datetime(1970, 1, 1, tzinfo=UTC)) is None


def test_l01_the_index_of_money_stands_in_for_the_requests(bench: Bench) -> None:
    ledger = bench.state / NAME
    spoil(ledger, root_of(ledger, "attempt"))
    rebuilt = again(bench)
    assert (rebuilt.doubt, rebuilt.counted_microusd) == (None, 0)
    with bench.reader() as reader:
        assert len(reader.unknowns(of_nobody=True)) == UNKNOWN
        assert reader.spend() == ALL
        assert states(reader)[TaskState.DONE] == MADE


def test_l01_pages_after_a_broken_one_are_read(bench: Bench) -> None:
    ledger = bench.state / NAME
    spoil(ledger, leaf_of(ledger))
    rebuilt = again(bench)
    assert rebuilt.salvaged is not None
    assert (rebuilt.salvaged.attempts, rebuilt.salvaged.is_anonymous) == (MADE + UNKNOWN, True)
    with bench.reader() as reader:
        assert reader.spend() == ALL
        assert len(reader.attempts(task(MADE - 1).id)) == 1


def leaf_of(ledger: Path) -> int:
    """Return the second leaf of the table of attempts, from the root page (https://www.sqlite.org/fileformat.html)."""
    at = (root_of(ledger, "attempt") - 1) * PAGE
    page = ledger.read_bytes()[at : at + PAGE]
    assert page[0] == 5, "the table has only one page"
    cell = int.from_bytes(page[12 + 2 : 12 + 4])
    return int.from_bytes(page[cell : cell + 4])


def test_l01_images_are_counted_where_nothing_can_be_read(bench: Bench) -> None:
    (bench.state / NAME).write_bytes(b"garbage")
    rebuilt = again(bench)
    assert (rebuilt.adopted, rebuilt.counted_microusd) == (MADE, MADE * PRICE)
    assert rebuilt.doubt is not None
    with bench.reader() as reader:
        assert reader.spend(datetime.now(UTC) - timedelta(hours=1)).spent_microusd == MADE * PRICE
        assert reader.spend(datetime.now(UTC) + timedelta(hours=1)) == Spend()
        assert reader.doubt(datetime.now(UTC) - timedelta(hours=1)) is not None
    assert again(bench).counted_microusd == 0


def test_l07_a_lost_ledger_is_doubted_and_its_images_counted_once(bench: Bench) -> None:
    (bench.state / NAME).unlink()
    rebuilt = again(bench)
    assert (rebuilt.counted_microusd, rebuilt.salvaged) == (MADE * PRICE, None)
    assert rebuilt.doubt is not None


@pytest.mark.parametrize("step", ["moved", "its log not yet"])
def test_l01_a_rebuild_that_was_killed_half_way_goes_on(bench: Bench, step: str) -> None:
    ledger = bench.state / NAME
    spoil(ledger, root_of(ledger, "task_name"))
    ledger.rename(bench.state / f"{NAME}.damaged-1")
    if step == "its log not yet":
        (bench.state / f"{NAME}-wal").write_bytes(b"")
    assert list(find_traces(bench.out, bench.state))
    rebuilt = again(bench)
    assert rebuilt.salvaged is not None
    assert (rebuilt.salvaged.attempts, rebuilt.kept) == (MADE + UNKNOWN, MADE)
    with bench.reader() as reader:
        assert reader.spend() == ALL
    assert sorted(path.name for path in bench.state.glob(f"{NAME}*") if "-shm" not in path.name)[0] == NAME


async def test_P1_parts_of_a_damaged_ledger_are_published(bench: Bench) -> None:
    await bench.open()
    intent = await bench.store.begin(task(MADE), run=bench.run, reserved_microusd=PRICE)
    await bench.store.aclose()
    (bench.out / "cats" / bench.part_name(intent.id, image(1).sha256)).write_bytes(image(1).data)
    ledger = bench.state / NAME
    spoil(ledger, root_of(ledger, "task_name"))
    assert again(bench).recovery.recovered == 1
    assert (bench.out / f"cats/{MADE}.png").read_bytes() == image(1).data


def damage_bits(data: bytes, seed: int) -> bytes:
    changed, chance = bytearray(data), random.Random(seed)
    for place in chance.sample(range(100, len(data)), 40):
        changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def damage_tail(data: bytes, seed: int) -> bytes:
    return data[: len(data) * (seed % 7 + 1) // 8]


@pytest.mark.parametrize("damage", [damage_bits, damage_tail], ids=["L01-bits", "L01-truncated"])
def test_whatever_the_damage_a_rebuild_works_and_reports_no_less_than_the_images(
    bench: Bench, damage: Callable[[bytes, int], bytes]
) -> None:
    ledger, outputs = bench.state / NAME, files(bench.out)
    sound = ledger.read_bytes()
    for seed in range(12):
        for path in bench.state.glob(f"{NAME}*"):
            path.unlink()
        ledger.write_bytes(damage(sound, seed))
        rebuilt = again(bench)
        assert files(bench.out) == outputs
        if rebuilt.set_aside is None:
            continue  # the damage is where nothing is written
        with bench.reader() as reader:
            spend = reader.spend()
        assert spend.spent_microusd + spend.unknown_microusd >= ALL.spent_microusd, f"seed {seed}"
        assert rebuilt.doubt is not None or spend.spent_microusd >= ALL.spent_microusd, f"seed {seed}"


def test_the_lost_have_a_place_that_no_manifest_has(bench: Bench) -> None:
    ledger = bench.state / NAME
    spoil(ledger, root_of(ledger, "task"))
    rebuilt = again(bench)
    assert rebuilt.set_aside is not None
    with LedgerReader(bench.state, manifest=rebuilt.set_aside.name) as reader:
        costs = {cost.key: cost for cost in reader.costs(by=["job"])}
    assert costs[LOST,].attempts > 0


def test_l01_prompts_of_earlier_requests_are_carried_over(bench: Bench) -> None:
    changed = task(0, prompt="a dog")

    async def ask_for_a_dog() -> None:
        await bench.open()
        await bench.make(changed, MADE)
        await bench.store.aclose()

    asyncio.run(ask_for_a_dog())
    spoil(bench.state / NAME, root_of(bench.state / NAME, "attempt_open"))
    rebuild_ledger(settings(bench.root), [[changed, *TASKS[1:]]], price=lambda _: PRICE)
    with bench.reader() as reader:
        latest, earlier = reader.record(changed.id), reader.record(changed.id, fingerprint=TASKS[0].fingerprint)
    assert latest is not None
    assert earlier is not None
    assert (latest["prompt"], latest["fingerprint"]) == ("a dog", changed.fingerprint)
    assert earlier["prompt"] == TASKS[0].prompt


def test_l01_what_a_person_ordered_of_tasks_is_carried_over(bench: Bench) -> None:
    ledger, ordered = bench.state / NAME, "task, released, accepted, edit, pixels_digest"
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("UPDATE task SET released = 7, accepted = fingerprint WHERE task = 3")
        connection.execute("UPDATE task SET edit = 'absent', pixels_digest = 'abc' WHERE task = 2")
        wanted = connection.execute(f"SELECT {ordered} FROM task ORDER BY task").fetchall()
    spoil(ledger, root_of(ledger, "attempt_open"))
    again(bench)
    with closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute(f"SELECT {ordered} FROM task ORDER BY task").fetchall() == wanted

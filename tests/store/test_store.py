"""Intents, closings and cancellations: what a run asks of the store."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import InputError, StorageError, TryLater
from pipeline.model import Answer, Billed, Failure, Fault, InputImage, TaskState, Usage
from pipeline.store.lock import StateLock
from pipeline.store.rejected import list_rejected
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from tests.store.conftest import Bench, Reopen
from tests.store.fakes import PRICE, FaultyDisk, answer, close, files, image, publish, states, task

SILENCE = Failure(fault=Fault.SILENCE, billed=Billed.MAYBE, reason="no answer in 300 s")
REFUSED = Failure(fault=Fault.REFUSED, billed=Billed.YES, reason="IMAGE_SAFETY", status=200, code="IMAGE_SAFETY")
THROTTLED = Failure(fault=Fault.THROTTLED, billed=Billed.NO, reason="slow down", status=429)


async def end(bench: Bench, failure: Failure, state: TaskState, *, cost: int = 0, unknown: int = 0, number: int = 1):
    intent = await bench.store.begin(task(number), run=bench.run, reserved_microusd=PRICE)
    await close(bench.store, intent, failure, state=state, cost_microusd=cost, unknown_microusd=unknown, seconds=1)
    return intent


async def test_intent_is_committed_as_sent_with_its_price(bench: Bench) -> None:
    """B0."""
    first = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    second = await bench.store.begin(task(2), run=bench.run, reserved_microusd=None)
    assert (first.id, first.number, second.id, second.number) == (1, 1, 2, 1)
    with bench.reader() as reader:
        assert reader.spend().unknown_microusd == PRICE
        assert [unknown.is_open for unknown in reader.unknowns()] == [True, True]


@pytest.mark.parametrize(
    ("failure", "state", "cost", "unknown", "attempt_state"),
    [
        (SILENCE, TaskState.UNKNOWN, 0, PRICE, "unknown"),
        (REFUSED, TaskState.REFUSED, PRICE, 0, "paid"),
        (THROTTLED, TaskState.PENDING, 0, 0, "free"),
    ],
    ids=["maybe-billed", "billed", "free"],
)
async def test_close_settles_the_money(bench: Bench, failure, state, cost, unknown, attempt_state) -> None:
    await end(bench, failure, state, cost=cost, unknown=unknown)
    with bench.reader() as reader:
        known, spend = reader.known("cats/1"), reader.spend()
        (attempt,) = reader.attempts("cats/1")
    assert known is not None
    assert (known.state, known.reason, known.cost_microusd) == (state, failure.reason, cost)
    assert (spend.spent_microusd, spend.unknown_microusd) == (cost, unknown)
    assert (attempt.state, attempt.fault, attempt.status) == (attempt_state, failure.fault, failure.status)


async def test_unknowns_belong_to_one_fingerprint(bench: Bench) -> None:
    await end(bench, SILENCE, TaskState.UNKNOWN, unknown=PRICE)
    await end(bench, SILENCE, TaskState.UNKNOWN, unknown=PRICE)
    with bench.reader() as reader:
        known = reader.known("cats/1")
        assert known is not None
        assert (known.unknowns, known.attempts) == (2, 2)
    await bench.store.begin(task(1, prompt="a dog"), run=bench.run, reserved_microusd=PRICE)
    with bench.reader() as reader:
        known = reader.known("cats/1")
        assert known is not None
        assert (known.unknowns, known.attempts, known.state) == (0, 3, TaskState.PENDING)


async def test_P9_an_unknown_keeps_what_was_set_aside_while_it_was_in_flight(bench: Bench) -> None:
    await end(bench, SILENCE, TaskState.UNKNOWN, unknown=PRICE + 5_000)  # its like had cost more
    with bench.reader() as reader:
        assert reader.spend().unknown_microusd == PRICE + 5_000


async def test_body_is_kept_before_the_attempt_is_closed(bench: Bench) -> None:
    failure = Failure(
        fault=Fault.BROKEN, billed=Billed.YES, reason="not JSON", body=b"{oops", status=200, request_id="r"
    )
    intent = await end(bench, failure, TaskState.FAILED, cost=PRICE)
    assert (await bench.store.images.keep_body(intent, failure)).body is None  # its memory is free
    (kept,) = list_rejected(bench.state)
    assert kept.path.read_bytes() == b"{oops"
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert kept.facts is not None
    assert (kept.attempt, kept.suffix, kept.facts.task, kept.facts.is_image) == (
        intent.id,
        ".json",
        "cats/1",
        False,
    )


async def test_body_that_cannot_be_kept_is_said_and_the_attempt_closed(bench: Bench, reopen: Reopen) -> None:
    await reopen(disk=FaultyDisk(lambda call, _: 5 if call == "write" else None))
    failure = Failure(fault=Fault.BROKEN, billed=Billed.YES, reason="not JSON", body=b"{oops")
    with pytest.raises(StorageError, match="could not be kept"):
        await end(bench, failure, TaskState.FAILED, cost=PRICE)
    with bench.reader() as reader:
        assert reader.spend().spent_microusd == PRICE


async def test_usage_and_ids_are_recorded(bench: Bench) -> None:
    usage = Usage(prompt_tokens=10, image_tokens=1290, text_tokens=3)
    intent = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    full = Answer(
        image=image(1), usage=usage, model_version="gemini-1", response_id="resp", request_id="req", notes=("2 images",)
    )
    await publish(bench.store, intent, full, cost_microusd=PRICE, seconds=2.5)
    with bench.reader() as reader:
        (attempt,) = reader.attempts("cats/1")
    assert (attempt.model_version, attempt.response_id, attempt.reason, attempt.seconds) == (
        "gemini-1",
        "resp",
        "2 images",
        2.5,
    )


async def test_cancelled_intent_is_taken_back(bench: Bench) -> None:
    """Nothing was sent: the attempt must not stay as an unknown one."""
    asking = asyncio.ensure_future(bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await bench.store.forget_holds(provider="", key="")
    with bench.reader() as reader:
        assert reader.spend().unknown_microusd == 0
        assert all(attempt.state == "free" for attempt in reader.attempts("cats/1"))


class Slow(FaultyDisk):
    """Waits in the middle of a write until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_writing = threading.Event()
        self.go_on = threading.Event()

    def write(self, fd: int, data: memoryview) -> int:
        self.is_writing.set()
        self.go_on.wait(10)
        return super().write(fd, data)


async def test_r22_cancelled_publish_goes_on_and_is_joined(bench: Bench, reopen: Reopen) -> None:
    disk = Slow()
    await reopen(disk=disk)
    intent = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    publishing = asyncio.ensure_future(publish(bench.store, intent, answer(1), cost_microusd=PRICE, seconds=1))
    await asyncio.to_thread(disk.is_writing.wait, 10)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    closing = asyncio.ensure_future(bench.store.aclose())
    assert (await asyncio.wait({closing}, timeout=0.05))[0] == set()
    disk.go_on.set()
    await closing
    await bench.open()
    assert files(bench.out) == {"cats/1.png": image(1).data}
    with bench.reader() as reader:
        assert states(reader) == {TaskState.DONE: 1}


@pytest.mark.parametrize("turns", range(8), ids="R22-after-{}-turns".format)
async def test_publish_survives_cancellation_at_any_await(bench: Bench, reopen: Reopen, turns: int) -> None:
    """Whatever was not recorded any more is recorded by the next start, without a request."""
    attempt = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    publishing = asyncio.ensure_future(publish(bench.store, attempt, answer(1)))
    for _ in range(turns):
        await asyncio.sleep(0)
    publishing.cancel()
    await asyncio.wait({publishing})
    await reopen()
    assert files(bench.out) == ({} if turns == 0 else {"cats/1.png": image(1).data})
    with bench.reader() as reader:
        assert states(reader) == {TaskState.UNKNOWN if turns == 0 else TaskState.DONE: 1}


async def test_many_at_once_share_commits(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(bench.make(task(number), number))
    assert len(files(bench.out)) == 60
    assert bench.store._ledger.groups < bench.store._ledger.pieces


async def test_release_makes_tasks_due_again(bench: Bench) -> None:
    await end(bench, REFUSED, TaskState.REFUSED, cost=PRICE, number=1)
    await end(bench, SILENCE, TaskState.UNKNOWN, unknown=PRICE, number=2)
    await end(bench, REFUSED, TaskState.FAILED, cost=PRICE, number=3)
    asked = ["cats/1", "cats/2", "cats/3"]
    assert await bench.store.release([TaskState.FAILED, TaskState.UNKNOWN], asked) == 2
    with bench.reader() as reader:
        assert states(reader) == {TaskState.PENDING: 2, TaskState.REFUSED: 1}
        known = reader.known("cats/2")
        assert known is not None
        assert (known.unknowns, known.attempts) == (0, 1)
        assert reader.spend().unknown_microusd == PRICE
    assert await bench.store.release([TaskState.REFUSED], ["cats/1", "cats/3", "cats/404"]) == 1


async def test_hold_is_remembered_and_forgotten(bench: Bench) -> None:
    """H12, P11."""
    moment = datetime(2026, 11, 23, 8, 0, 0, 123, tzinfo=UTC)
    await bench.store.hold(moment, "the day's quota is used up", run=bench.run)
    await bench.store.hold(moment - timedelta(hours=1), "earlier", run=bench.run)
    await bench.store.hold(moment, "of another key", run=bench.run, provider="google", key="0123abcd")
    with bench.reader() as reader:
        assert [(hold.not_before, hold.reason) for hold in reader.holds()] == [
            (moment, "earlier"),
            (moment, "of another key"),
        ]
    await bench.store.forget_holds(provider="google", key="0123abcd")
    with bench.reader() as reader:
        assert reader.holds() == []


async def test_a_hold_names_the_model_that_was_told_to_wait(bench: Bench) -> None:
    intent = await bench.store.begin(task(1, model="pro"), run=bench.run, reserved_microusd=PRICE)
    full = Failure(fault=Fault.QUOTA, billed=Billed.NO, reason="used up")
    await bench.store.close(intent, full, state=TaskState.PENDING, cost_microusd=0, unknown_microusd=0, seconds=1.0)
    await bench.store.hold(datetime(2030, 1, 1, tzinfo=UTC), "used up", run=bench.run, provider="google", key="k")
    with bench.reader() as reader:
        (hold,) = reader.holds()
    assert (hold.provider, hold.key, hold.model) == ("google", "k", "pro")


async def test_digests_are_remembered_by_size_and_time(bench: Bench) -> None:
    path = Path("/data/café \udce9.png")  # a file name that is not UTF-8
    await bench.store.remember_digests([(path, 10, 20, "a" * 64, "d" * 64), (Path("/data/b"), 1, 2, "b" * 64, "")])
    with bench.reader() as reader:
        assert reader.digest(path, 10, 20) == ("a" * 64, "d" * 64)
        assert reader.digest(path, 10, 21) is None
        assert reader.digest(Path("/data/c"), 10, 20) is None
    await bench.store.remember_digests([(path, 11, 21, "c" * 64, "")])
    with bench.reader() as reader:
        assert reader.digest(path, 11, 21) == ("c" * 64, "")


async def test_text_that_is_not_unicode_is_stored_escaped(bench: Bench) -> None:
    """I10: ids come from file names."""
    odd = task(
        1, id="cats/\udcff", row="\udcff", fields={"path": "\udcff"}, images=(InputImage("/x/\udcff", "a" * 64, 1, 1),)
    )
    await bench.make(odd, 1)
    with bench.reader() as reader:
        known = reader.known("cats/\udcff")
    assert known is not None
    assert known.id == "cats/\\udcff"


async def test_two_runs_are_listed_with_their_ends(bench: Bench) -> None:
    await bench.make(task(1), 1)
    await bench.store.end_run(bench.run, exit=3)
    with bench.reader() as reader:
        assert reader.spend_of_last_run().spent_microusd == PRICE
    second = await bench.store.begin_run(manifest_sha256="f" * 64)
    with bench.reader() as reader:
        assert len(reader.runs()) == 2
        assert reader.spend_of_last_run().spent_microusd == 0
    with closing(sqlite3.connect(bench.state / "ledger.sqlite")) as ledger:
        runs = ledger.execute("SELECT run, exit, reason, ended_at IS NULL FROM run ORDER BY run").fetchall()
    assert runs == [(bench.run, 3, "", 0), (second, None, "", 1)]


async def test_r28_a_clock_that_jumps_reorders_nothing(bench: Bench, reopen: Reopen) -> None:
    moments = iter(
        datetime(year, 1, 1, tzinfo=UTC) for year in (2026, 1970, 2030, 1999, 2026, 1971, *range(2001, 2100))
    )
    await reopen(clock=lambda: next(moments))
    for _ in range(3):
        await end(bench, THROTTLED, TaskState.PENDING)
    with bench.reader() as reader:
        assert [attempt.number for attempt in reader.attempts("cats/1")] == [1, 2, 3]


async def test_failing_open_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        await Store.open(
            StoreSettings(output_dir=tmp_path / "out", state_dir=tmp_path / "s", manifest="m", is_play_money=False)
        )


async def test_lock_and_store_share_a_directory(tmp_path: Path) -> None:
    with StateLock(tmp_path / "s"):
        store = await Store.open(
            StoreSettings(
                output_dir=tmp_path / "out", state_dir=tmp_path / "s", manifest="m", is_play_money=True, reserve_bytes=0
            )
        )
        with pytest.raises(TryLater):
            StateLock(tmp_path / "s").acquire()
        await store.aclose()
        await store.aclose()
    assert repr(store).startswith("<Store ")


async def test_r27_one_writer_is_only_slower(bench: Bench, reopen: Reopen) -> None:
    await reopen(workers=1)
    async with asyncio.TaskGroup() as group:
        made = [group.create_task(bench.make(task(number), number)) for number in range(8)]
    assert len({each.result().path for each in made}) == 8


async def test_fail_is_for_what_is_pending_alone(bench: Bench) -> None:
    await end(bench, REFUSED, TaskState.REFUSED, cost=PRICE, number=1)
    await end(bench, REFUSED, TaskState.PENDING, cost=PRICE, number=2)
    assert await bench.store.fail(["cats/1", "cats/2", "cats/404"]) == 1
    with bench.reader() as reader:
        assert states(reader) == {TaskState.REFUSED: 1, TaskState.FAILED: 1}

"""Queue, crew and halts, with a scripted sender."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tenacity import AsyncRetrying

from pipeline.engine import attempt
from pipeline.engine.events import AttemptEnded, Event, Halted, Paused, RetryScheduled, TaskEnded, Warned
from pipeline.engine.halt import HaltPolicy
from pipeline.engine.retry import AttemptHistory
from pipeline.engine.run import Engine
from pipeline.engine.throttle import Gate, Throttle
from pipeline.engine.wallet import Period, Refusal, Wallet
from pipeline.errors import Exit, ImgpipeError, LedgerError, TryLater
from pipeline.model import Attempt, Due, Fault, Task, TaskState, Usage
from pipeline.settings import Budget, Limits, Retry, StopOn
from tests.engine.fakes import PRICE, FakeLedger, FakePrices, FakeSender, due, failure, task, unpublished

QUICK = Retry(attempts=3, wait_initial_s=0.0001, wait_max_s=0.001)


class Bench:
    """An engine with everything around it."""

    def __init__(
        self,
        sender: FakeSender,
        *,
        limits: Limits | None = None,
        retry: Retry = QUICK,
        ledger: FakeLedger | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sender = sender
        self.limits = limits or Limits(concurrency=4)
        self.ledger = ledger or FakeLedger()
        self.events: list[Event] = []
        self.wallet = Wallet(self.limits.budget, now=now)
        self.engine = Engine(
            number=1,
            sender=sender,
            ledger=self.ledger,
            prices=FakePrices(),
            gate=Gate(Throttle(self.limits, retry=retry, clock=clock)),
            wallet=self.wallet,
            policy=HaltPolicy(self.limits.stop_on),
            limits=self.limits,
            retry=retry,
            listen=self.events.append,
        )

    async def has_told(self, kind: type, task_id: str | None) -> None:
        while not any(isinstance(event, kind) and getattr(event, "task_id", "") == task_id for event in self.events):
            await asyncio.sleep(0)

    async def run(self, *ids: str) -> dict[TaskState, int]:
        counts = await self.engine.run(due(*ids))
        return {state: n for state, n in counts.states.items() if n}


async def test_every_task_is_asked_once_and_finished() -> None:
    bench = Bench(FakeSender())
    ids = [f"job/{n}" for n in range(50)]
    assert await bench.run(*ids) == {TaskState.DONE: 50}
    assert sorted(bench.sender.sent) == sorted(ids)
    assert bench.wallet.spent_microusd == 50 * PRICE


async def test_what_a_task_met_is_forgotten_with_it() -> None:
    """Not when the garbage collector comes by: with it go answers that could not be used, of many MB."""
    gc.collect()  # what other tests have left
    gc.disable()
    try:
        before = retryings()
        await Bench(FakeSender()).run("a", "b")
        assert retryings() == before
    finally:
        gc.enable()


def retryings() -> int:
    return sum(isinstance(each, AsyncRetrying) for each in gc.get_objects())


async def test_an_intent_is_written_before_its_request() -> None:
    bench = Bench(FakeSender())
    await bench.run("job/a")
    assert [verb for verb, _ in bench.ledger.log] == ["begin", "finish"]


async def test_the_first_answer_is_awaited_before_others_are_asked() -> None:
    sender = FakeSender(hold=asyncio.Event())
    bench = Bench(sender)
    running = asyncio.create_task(bench.run(*(f"job/{n}" for n in range(8))))
    while not sender.sent:
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(sender.sent) == 1
    assert sender.hold is not None
    sender.hold.set()
    assert await running == {TaskState.DONE: 8}


async def test_what_waited_over_midnight_is_paid_by_the_new_day() -> None:
    """Money reserved before midnight and sent after it would come on top of the new day's budget."""
    now = [datetime(2026, 11, 22, 23, 59, tzinfo=UTC)]
    sender = FakeSender(hold=asyncio.Event())
    limits = Limits(concurrency=8, budget=Budget(day=4 * PRICE))
    bench = Bench(sender, limits=limits, now=lambda: now[0])
    running = asyncio.create_task(bench.run(*(f"job/{n}" for n in range(12))))
    while bench.wallet.reserved_microusd < 4 * PRICE:
        await asyncio.sleep(0)
    now[0] += timedelta(minutes=2)
    assert sender.hold is not None
    sender.hold.set()
    assert (await running)[TaskState.DONE] == 1 + 4
    assert len(sender.sent) == 1 + 4
    assert [verb for verb, _ in bench.ledger.log].count("begin") == 1 + 4  # none was written down and taken back
    assert bench.engine.halts.exit is Exit.BUDGET


async def test_a_day_that_ends_while_an_attempt_is_written_takes_it_back() -> None:
    now = [datetime(2026, 11, 22, 23, 59, tzinfo=UTC)]

    class Slow(FakeLedger):
        async def begin(self, task: Task, *, run: int, reserved_microusd: int | None) -> Attempt:
            attempt = await super().begin(task, run=run, reserved_microusd=reserved_microusd)
            if attempt.number == 1:
                now[0] += timedelta(minutes=2)
            return attempt

    bench = Bench(FakeSender(), limits=Limits(budget=Budget(day=PRICE)), ledger=Slow(), now=lambda: now[0])
    assert await bench.run("job/a") == {TaskState.DONE: 1}
    assert [verb for verb, _ in bench.ledger.log] == ["begin", "close", "begin", "finish"]
    assert bench.wallet.left_microusd == 0


async def test_an_outage_is_repeated_and_then_deferred_as_pending() -> None:
    bench = Bench(FakeSender(always=Fault.OUTAGE))
    assert await bench.run("job/a") == {TaskState.PENDING: 1}
    assert len(bench.sender.sent) == QUICK.attempts


async def test_a_deferred_task_has_another_turn_once_images_came() -> None:
    sender = FakeSender(script={"job/a": [Fault.OUTAGE] * 3})
    bench = Bench(sender, limits=Limits(concurrency=1))
    assert await bench.run("job/a", "job/b", "job/c") == {TaskState.DONE: 3}
    assert sender.sent.count("job/a") == 4
    assert sender.sent[-1] == "job/a"


@pytest.mark.parametrize(("before", "sent"), [(0, 2), (1, 1)], ids=["never asked", "unknown since an earlier run"])
async def test_P3_silence_keeps_its_price_reserved_and_is_asked_once_more(before: int, sent: int) -> None:
    bench = Bench(FakeSender(always=Fault.SILENCE))
    counts = await bench.engine.run(due("job/a", unknowns=before))
    assert (counts.states[TaskState.UNKNOWN], len(bench.sender.sent)) == (1, sent)
    assert bench.wallet.unknown_microusd == sent * PRICE == bench.ledger.unknown_microusd


async def test_a_refusal_is_paid_and_never_repeated() -> None:
    bench = Bench(FakeSender(always=Fault.REFUSED))
    assert await bench.run("job/a") == {TaskState.REFUSED: 1}
    assert bench.wallet.spent_microusd == PRICE


async def test_a_rejected_key_stops_the_run_after_one_request() -> None:
    bench = Bench(FakeSender(always=Fault.ACCOUNT))
    states = await bench.run(*(f"job/{n}" for n in range(20)))
    assert bench.engine.halts.exit is Exit.ACCOUNT
    assert len(bench.sender.sent) == 1
    assert states.get(TaskState.DONE) is None


async def test_the_budget_is_never_overshot_by_concurrent_workers() -> None:
    bench = Bench(FakeSender(), limits=Limits(concurrency=16, start=16, budget=Budget(run=7 * PRICE + 1)))
    states = await bench.run(*(f"job/{n}" for n in range(40)))
    assert states[TaskState.DONE] == 7 == len(bench.sender.sent)
    assert bench.engine.halts.exit is Exit.BUDGET


class LearningPrices(FakePrices):
    """The first answer costs what was reserved for it, the others three times as much, and they teach so."""

    def __init__(self) -> None:
        self.answers = 0

    def reserve(self, task: Task) -> int | None:
        return 3 * PRICE if self.answers > 1 else PRICE

    def settle(self, task: Task, usage: Usage | None) -> int | None:
        self.answers += 1
        return self.reserve(task)


async def test_P9_a_request_in_flight_is_topped_up_when_its_like_proves_dearer() -> None:
    wallet, limits, slow = (
        Wallet(Budget(run=6 * PRICE)),
        Limits(concurrency=4, start=4),
        FakeSender(hold=asyncio.Event()),
    )
    attempts = attempt.Attempts(
        run=1,
        sender=slow,
        ledger=FakeLedger(),
        prices=LearningPrices(),
        gate=Gate(Throttle(limits, retry=QUICK)),
        wallet=wallet,
        retry=QUICK,
        emit=lambda _event: None,
        sleep=asyncio.sleep,
    )

    async def sent(name: str, *, is_held: bool) -> asyncio.Task[None]:
        begun = await attempts.begin(due(name)[0].task, AttemptHistory())
        assert isinstance(begun, attempt.Begun)
        slow.hold = asyncio.Event() if is_held else None

        async def rest() -> None:
            await attempts.record(begun, await attempts.send(begun), AttemptHistory())

        task = asyncio.create_task(rest())
        await asyncio.sleep(0)
        return task

    await (await sent("job/canary", is_held=False))
    in_flight = await sent("job/slow", is_held=True)
    held = slow.hold
    assert wallet.reserved_microusd == PRICE
    await (await sent("job/dear", is_held=False))
    assert (wallet.spent_microusd, wallet.reserved_microusd) == (4 * PRICE, 3 * PRICE)
    assert isinstance(wallet.reserve(1), Refusal)  # at its first price there was room for one more
    assert held is not None
    held.set()
    await in_flight
    assert (wallet.exceeded, wallet.overrun_microusd) == (((Period.RUN, PRICE),), 4 * PRICE)


async def test_a_worker_waits_for_money_that_may_come_free() -> None:
    sender = FakeSender(script={"job/0": [Fault.BAD_REQUEST]})
    bench = Bench(sender, limits=Limits(concurrency=4, budget=Budget(run=PRICE)))
    states = await bench.run("job/0", "job/1")
    assert states == {TaskState.FAILED: 1, TaskState.DONE: 1}


async def test_max_tasks_stops_with_its_own_exit() -> None:
    bench = Bench(FakeSender(), limits=Limits(concurrency=2, max_tasks=3))
    assert await bench.run(*(f"job/{n}" for n in range(9))) == {TaskState.DONE: 3}
    assert bench.engine.halts.exit is Exit.BUDGET


async def test_a_halt_awaits_and_saves_what_is_in_flight() -> None:
    sender = FakeSender(hold=asyncio.Event())
    bench = Bench(sender, limits=Limits(concurrency=3))
    running = asyncio.create_task(bench.run(*(f"job/{n}" for n in range(9))))
    while not sender.sent:
        await asyncio.sleep(0)
    bench.engine.halt(Exit.INTERRUPTED, "INT")
    assert sender.hold is not None
    sender.hold.set()
    states = await running
    assert states[TaskState.DONE] == len(sender.sent) == 1
    assert bench.wallet.reserved_microusd == 0  # of those who waited for a slot


async def test_abandoning_leaves_unknowns_and_no_request_hanging() -> None:
    sender = FakeSender(hold=asyncio.Event())
    bench = Bench(sender)
    running = asyncio.create_task(bench.run("job/a", "job/b"))
    while not sender.sent:
        await asyncio.sleep(0)
    bench.engine.halt(Exit.INTERRUPTED, "INT")
    bench.engine.abandon()
    states = await running
    assert states[TaskState.UNKNOWN] == 1
    assert bench.wallet.unknown_microusd == PRICE
    assert sender.in_flight == 0
    assert not any(isinstance(event, RetryScheduled) for event in bench.events)


async def test_cancelling_the_run_saves_what_has_arrived() -> None:
    sender = FakeSender(hold=asyncio.Event())
    bench = Bench(sender)
    running = asyncio.create_task(bench.run("job/a", "job/b"))
    while not sender.sent:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert list(bench.ledger.states.values()) == [TaskState.UNKNOWN]


async def test_a_full_disk_halts_with_the_storage_exit() -> None:
    bench = Bench(FakeSender(always=unpublished(Fault.STORAGE)))
    await bench.run(*(f"job/{n}" for n in range(9)))
    assert bench.engine.halts.exit is Exit.STORAGE
    assert len(bench.sender.sent) < 9
    assert bench.engine.counts.attempts == len(bench.sender.sent)


@pytest.mark.parametrize(("error", "code"), [(TryLater("locked"), Exit.TRY_LATER), (LedgerError("torn"), Exit.STORAGE)])
async def test_L05_a_ledger_that_takes_no_intent_halts_with_the_exit_of_its_error(
    error: ImgpipeError, code: Exit
) -> None:
    class Closed(FakeLedger):
        async def begin(self, task: Task, *, run: int, reserved_microusd: int | None) -> Attempt:
            raise error

    bench = Bench(FakeSender(), ledger=Closed())
    assert await bench.run("job/a", "job/b") == {TaskState.PENDING: 2}
    assert (bench.engine.halts.exit, bench.sender.sent) == (code, [])
    assert (bench.wallet.reserved_microusd, bench.engine.gate.throttle.in_flight) == (0, 0)


async def test_a_bug_in_a_worker_is_raised_after_the_others_are_saved() -> None:
    sender = FakeSender(script={"job/1": [ZeroDivisionError("a bug")]})
    bench = Bench(sender, limits=Limits(concurrency=4, start=4))
    with pytest.raises(ZeroDivisionError):
        await bench.run("job/0", "job/1", "job/2")
    assert bench.engine.halts.exit is Exit.BUG


async def test_a_bug_of_the_sender_leaves_nobody_waiting_for_its_money() -> None:
    sender = FakeSender(script={"job/0": [ZeroDivisionError("a bug")]})
    bench = Bench(sender, limits=Limits(concurrency=4, start=4, budget=Budget(run=PRICE)))
    with pytest.raises(ZeroDivisionError):
        await bench.run("job/0", "job/1", "job/2")
    assert (bench.wallet.reserved_microusd, bench.wallet.unknown_microusd) == (0, PRICE)
    assert sender.sent == ["job/0"]


async def test_every_asked_task_ends_with_one_event() -> None:
    bench = Bench(FakeSender(script={"job/1": [Fault.BAD_REQUEST], "job/2": [Fault.OUTAGE]}))
    await bench.run("job/0", "job/1", "job/2")
    ended = [event.task_id for event in bench.events if isinstance(event, TaskEnded)]
    assert sorted(ended) == ["job/0", "job/1", "job/2"]


async def test_a_halt_is_told_once() -> None:
    bench = Bench(FakeSender(always=Fault.ACCOUNT))
    await bench.run("job/0", "job/1")
    assert len([event for event in bench.events if isinstance(event, Halted)]) == 1


async def test_H69_the_same_bytes_for_two_tasks_are_accepted_and_told() -> None:
    bench = Bench(FakeSender())
    assert await bench.run("job/a", "job/b") == {TaskState.DONE: 2}
    assert [(e.task_id, e.text) for e in bench.events if isinstance(e, Warned)] == [
        ("job/b", "its image has the same bytes as that of job/a; it was accepted")
    ]


async def test_H72_a_pause_is_told_once_with_what_was_seen() -> None:
    bench = Bench(FakeSender(script={"job/a": [failure(Fault.THROTTLED, 30.0)]}), limits=Limits(concurrency=1))
    running = asyncio.create_task(bench.run("job/a"))
    while not (paused := [event for event in bench.events if isinstance(event, Paused)]):
        await asyncio.sleep(0)
    bench.engine.halt(Exit.INTERRUPTED, "INT")
    await running
    assert [pause.reason for pause in paused] == ["the server asked for 30 s (it was throttled)"]
    assert 29 <= paused[0].seconds <= 33


class SlowLedger(FakeLedger):
    """Takes its time to write the intent of `job/b` down: as long as `meanwhile` takes, the first time."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def begin(self, task: Task, *, run: int, reserved_microusd: int | None) -> Attempt:
        attempt = await super().begin(task, run=run, reserved_microusd=reserved_microusd)
        if task.id == "job/b" and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return attempt


async def test_P11_a_pause_that_begins_while_an_intent_is_written_holds_it_back() -> None:
    sender = FakeSender(script={"job/a": [failure(Fault.THROTTLED, 0.05)]})
    ledger, loop = SlowLedger(), asyncio.get_running_loop()
    bench = Bench(sender, ledger=ledger, limits=Limits(concurrency=4, start=4, adaptive=False))
    ledger.meanwhile = lambda: bench.has_told(AttemptEnded, "job/a")
    began = loop.time()
    assert await bench.run("job/first", "job/a", "job/b") == {TaskState.DONE: 3}
    assert loop.time() - began >= 0.05
    assert sender.sent[:2] == ["job/first", "job/a"]
    assert sender.sent.count("job/b") == 1
    assert ledger.log.count(("begin", "job/b")) == 2
    assert bench.wallet.spent_microusd == 3 * PRICE


async def test_a_503_is_as_quick_as_it_was_from_when_it_went_out() -> None:
    """A commit that takes long makes no outage, an attempt of the task, of what is a refusal."""
    now, ledger, busy = [0.0], SlowLedger(), replace(failure(Fault.OUTAGE, 30.0), status=503)
    bench = Bench(FakeSender(script={"job/b": [busy]}), ledger=ledger, clock=lambda: now[0])

    async def take_long() -> None:
        now[0] += 5.0

    ledger.meanwhile = take_long
    running = asyncio.create_task(bench.run("job/b"))
    await bench.has_told(AttemptEnded, "job/b")
    bench.engine.halt(Exit.INTERRUPTED, "enough")
    await running
    (ended,) = (event for event in bench.events if isinstance(event, AttemptEnded))
    assert ended.fault is Fault.THROTTLED


@pytest.mark.parametrize(("before", "state"), [(0, TaskState.PENDING), (1, TaskState.UNKNOWN)])
async def test_a_halt_while_an_intent_is_written_sends_nothing(before: int, state: TaskState) -> None:
    ledger, sender = SlowLedger(), FakeSender()
    bench = Bench(sender, ledger=ledger)

    async def stop() -> None:
        bench.engine.halt(Exit.INTERRUPTED, "INT")

    ledger.meanwhile = stop
    await bench.engine.run(due("job/b", unknowns=before))
    assert sender.sent == []
    assert list(ledger.states.values()) == [state]  # P3: what may have been billed stays unknown
    assert (bench.wallet.reserved_microusd, bench.engine.counts.attempts) == (0, 0)


async def test_D08_a_full_disk_is_told_once_and_nothing_is_sent() -> None:
    bench = Bench(FakeSender(), ledger=FakeLedger(free=0))
    running = asyncio.create_task(bench.run("job/a", "job/b"), name="run")
    await bench.has_told(Warned, None)
    bench.engine.halt(Exit.INTERRUPTED, "enough")
    await running
    (warned,) = [event.text for event in bench.events if isinstance(event, Warned)]
    assert "the disk is nearly full" in warned
    assert bench.sender.sent == []


class TardyLedger(FakeLedger):
    """Takes many turns of the loop to write a failure down."""

    async def close(self, *args: Any, **more: Any) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        await super().close(*args, **more)


async def test_stop_on_does_not_wait_for_the_ledger() -> None:
    limits = Limits(concurrency=1, stop_on=StopOn(consecutive_failures=3))
    bench = Bench(FakeSender(always=Fault.BAD_REQUEST), limits=limits, ledger=TardyLedger())
    bench.sender.script = {"job/0": [None]}
    counts = await bench.run(*(f"job/{n}" for n in range(40)))
    assert (counts[TaskState.FAILED], len(bench.sender.sent)) == (3, 4)


async def test_an_image_ends_a_row_of_failures() -> None:
    limits = Limits(concurrency=1, stop_on=StopOn(consecutive_failures=2))
    bench = Bench(FakeSender(script={f"job/{n}": [Fault.BAD_REQUEST] for n in (1, 3, 5)}), limits=limits)
    assert await bench.run(*(f"job/{n}" for n in range(7))) == {TaskState.DONE: 4, TaskState.FAILED: 3}


async def test_who_waits_for_money_when_the_run_halts_does_not_call_the_budget_used_up() -> None:
    limits = Limits(concurrency=4, start=4, budget=Budget(run=2 * PRICE), stop_on=StopOn(consecutive_failures=1))
    bench = Bench(FakeSender(script={"job/1": [Fault.LINK]}), limits=limits)
    await bench.run("job/0", "job/1", "job/2")
    assert (bench.sender.sent, bench.engine.halts.exit) == (["job/0", "job/1"], Exit.SOME_FAILED)


@pytest.mark.parametrize("fault", [Fault.FORBIDDEN, Fault.NOT_FOUND])
async def test_what_may_be_no_fault_of_a_task_fails_it_only_when_the_run_ends(fault: Fault) -> None:
    bench = Bench(FakeSender(script={"job/1": [fault]}))
    states = await bench.run(*(f"job/{n}" for n in range(3)))
    assert states == {TaskState.DONE: 2, TaskState.FAILED: 1}
    assert set(bench.ledger.states.values()) == {TaskState.PENDING}  # what a kill before the end leaves
    assert bench.ledger.log[-1] == ("fail", ["job/1"])


async def test_tasks_whose_failure_stopped_the_run_stay_pending() -> None:
    bench = Bench(FakeSender(always=Fault.FORBIDDEN))
    states = await bench.run(*(f"job/{n}" for n in range(9)))
    assert (bench.engine.halts.exit, states) == (Exit.ACCOUNT, {TaskState.PENDING: 9})
    assert "fail" not in [verb for verb, _ in bench.ledger.log]


@pytest.mark.parametrize(("before", "sent"), [(2, 1), (3, 0)], ids=["one is left", "none is left"])
async def test_a_task_that_was_asked_as_often_as_it_may_be_is_not_bought_again(before: int, sent: int) -> None:
    bench = Bench(FakeSender(always=Fault.NO_IMAGE))
    await bench.engine.run([Due(task=task("job/0"), reason="retry", faults=(Fault.NO_IMAGE,) * before)])
    assert len(bench.sender.sent) == sent
    assert bench.engine.counts.states[TaskState.FAILED] == 1
    assert bench.ledger.log[-1] == (("close", Fault.NO_IMAGE) if sent else ("fail", ["job/0"]))


async def test_an_input_that_cannot_be_sent_is_no_attempt() -> None:
    bench = Bench(FakeSender(script={"job/a": [Fault.INPUT]}))
    assert await bench.run("job/a", "job/b") == {TaskState.FAILED: 1, TaskState.DONE: 1}
    assert bench.engine.counts.attempts == 1


async def test_an_input_whose_folder_went_away_leaves_its_task_pending() -> None:
    bench = Bench(FakeSender(script={"job/a": [Fault.LOCAL]}))
    assert await bench.run("job/a", "job/b") == {TaskState.PENDING: 1, TaskState.DONE: 1}
    assert bench.engine.counts.attempts == 1


async def test_D08_a_disk_that_fills_up_in_the_wait_for_a_slot_holds_the_next_request_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt, "LOOK_S", 0.0)  # every question looks
    bench = Bench(FakeSender(hold=asyncio.Event()), limits=Limits(concurrency=1))
    assert bench.sender.hold is not None
    running = asyncio.create_task(bench.run("job/0", "job/1"))
    for _ in range(100):
        await asyncio.sleep(0)
    bench.ledger.free = 0
    bench.sender.hold.set()
    await asyncio.wait_for(bench.has_told(Paused, ""), 20)  # the answer is judged in a thread meanwhile
    assert bench.sender.sent == ["job/0"]
    bench.ledger.free = 2**40
    assert await running == {TaskState.DONE: 2}


async def test_D08_images_that_have_landed_since_the_last_look_have_used_its_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt, "LOOK_S", 0.3)
    two = attempt.MARGIN_BYTES + 2 * attempt.IMAGE_BYTES["1K"]
    bench = Bench(FakeSender(), limits=Limits(concurrency=1), ledger=FakeLedger(free=two))
    running = asyncio.create_task(bench.run(*(f"job/{n}" for n in range(9))))
    await asyncio.wait_for(bench.has_told(Paused, ""), 20)
    assert len(bench.sender.sent) == 2
    bench.ledger.free = 2**40
    assert await running == {TaskState.DONE: 9}

"""R21: a bug in who only watches a run stops it in order: what is in flight is saved, then the bug is raised."""

import asyncio
from collections.abc import Callable

import pytest

from pipeline.engine.events import AttemptEnded, AttemptStarted, Event, Halted, TaskEnded
from pipeline.engine.halt import HaltPolicy
from pipeline.engine.run import Engine
from pipeline.engine.throttle import Gate, Throttle
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit
from pipeline.model import TaskState
from pipeline.settings import Budget, Limits, Retry
from tests.engine.fakes import PRICE, FakeLedger, FakePrices, FakeSender, due

ALL = Limits(concurrency=3, start=3)


class DeafError(RuntimeError):
    """What the listener raises."""


def engine(sender: FakeSender, ledger: FakeLedger, listen: Callable[[Event], None], wallet: Wallet) -> Engine:
    return Engine(
        number=1,
        sender=sender,
        ledger=ledger,
        prices=FakePrices(),
        gate=Gate(Throttle(ALL)),
        wallet=wallet,
        policy=HaltPolicy(ALL.stop_on),
        limits=ALL,
        retry=Retry(),
        listen=listen,
    )


def failing_at(kind: type, heard: list[Event], *, after: int = 0) -> Callable[[Event], None]:
    """Listen; fail for good at the `after`-th event of a kind."""

    def listen(event: Event) -> None:
        heard.append(event)
        if sum(isinstance(each, kind) for each in heard) > after:
            raise DeafError(len(heard))

    return listen


@pytest.mark.parametrize("kind", [AttemptStarted, AttemptEnded, TaskEnded], ids=lambda kind: f"R21-{kind.__name__}")
async def test_a_listener_that_fails_loses_no_image_in_flight(kind: type) -> None:
    sender, ledger, heard = FakeSender(hold=asyncio.Event()), FakeLedger(), list[Event]()
    wallet = Wallet(Budget())
    assert sender.hold is not None
    under_test = engine(sender, ledger, failing_at(kind, heard, after=2), wallet)
    running = asyncio.create_task(under_test.run(due(*(f"job/{n}" for n in range(9)))))
    while not running.done():
        sender.hold.set()
        await asyncio.sleep(0)
    with pytest.raises(DeafError):
        await running
    assert (under_test.halts.exit, len(under_test.halts)) == (Exit.BUG, 1)
    assert len(list(ledger.finished())) == len(sender.sent) == wallet.spent_microusd // PRICE
    assert 0 < len(sender.sent) < 9
    assert under_test.counts.states[TaskState.DONE] == len(sender.sent)


async def test_R21_a_listener_that_fails_at_the_halt_itself_stops_in_order() -> None:
    sender, ledger, heard = FakeSender(hold=asyncio.Event()), FakeLedger(), list[Event]()
    under_test = engine(sender, ledger, failing_at(Halted, heard), Wallet(Budget()))
    running = asyncio.create_task(under_test.run(due("job/a", "job/b")))
    while not sender.sent:
        await asyncio.sleep(0)
    under_test.halt(Exit.INTERRUPTED, "INT")
    assert sender.hold is not None
    sender.hold.set()
    with pytest.raises(DeafError):
        await running
    assert list(ledger.finished()) == sender.sent == ["job/a"]


async def test_P2_a_bug_in_who_judges_the_run_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, ledger, heard = FakeSender(), FakeLedger(), list[Event]()
    monkeypatch.setattr(HaltPolicy, "judged", lambda *_, **__: 1 / 0)
    under_test = engine(sender, ledger, heard.append, Wallet(Budget()))
    with pytest.raises(ZeroDivisionError):
        await under_test.run(due("job/a", "job/b"))
    assert sender.sent
    assert list(ledger.finished()) == sender.sent

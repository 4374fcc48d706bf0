"""One attempt of one task, from the gates to the ledger's last word on it.

In: a task, and what it has met so far. Out: a `Step`. Order of the gates: halt, wallet, disk, throttle; then the intent
is committed, the request sent, the answer judged off the loop and written down. It decides nothing about repeating.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pipeline.engine.events import AttemptEnded, AttemptStarted, Listener, Paused, Warned
from pipeline.engine.ports import Intent, Prices, Provider, Store
from pipeline.engine.retry import Tally, standing
from pipeline.engine.room import PATIENCE_S, Room
from pipeline.engine.throttle import Gate, Stopped, Ticket
from pipeline.engine.wallet import Refusal, Reservation, Wallet
from pipeline.errors import Conflict
from pipeline.model import Answer, Artifact, Billed, Failure, Fault, Reply, Task, TaskState
from pipeline.settings import Retry
from pipeline.threads import whole_pool

READERS: Final = 1  # threads that judge answers: one reads 1 GB/s. A second one, measured on 2 cores with answers of
# 14 MB, took 5 % more CPU and doubled the loop's lateness (p99 19 ms, not 10), as three threads shared two cores.

WITHDRAWN: Final = Failure(
    fault=Fault.OTHER,
    billed=Billed.NO,
    reason="withdrawn before it was sent: a pause or a stop began",
    code="withdrawn",
)
BUG: Final = Failure(fault=Fault.OTHER, billed=Billed.MAYBE, reason="a bug ended the attempt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one attempt led to: an artifact, a failure, or neither when the run stopped before it was sent."""

    state: TaskState  # what holds if the task is never asked again
    failure: Failure | None = None
    artifact: Artifact | None = None
    number: int | None = None  # of the attempt; None: nothing was sent
    reason: str = ""
    cost_microusd: int = 0


class Attempts:
    """Makes attempts against one provider, store and wallet; counts those in flight."""

    def __init__(
        self,
        *,
        run: int,
        provider: Provider,
        store: Store,
        prices: Prices,
        gate: Gate,
        wallet: Wallet,
        retry: Retry,
        listen: Listener,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._run = run
        self._provider = provider
        self._store = store
        self._prices = prices
        self._gate = gate
        self._wallet = wallet
        self._retry = retry
        self._emit = listen
        self._sleep = sleep
        self._room = Room(store.free_bytes)
        self._money_moved = asyncio.Condition()
        self._sending: set[asyncio.Task[Reply | Failure | Exception]] = set()
        self._readers = whole_pool(READERS, "read")
        self._is_abandoned = False
        self._has_warned_of_room = False

    @property
    def in_flight(self) -> int:
        return len(self._sending)

    def abandon(self) -> None:
        """Stop waiting for answers. What has arrived is saved; what is in flight becomes unknown."""
        self._is_abandoned = True
        for sending in self._sending:
            sending.cancel()

    def close(self) -> None:
        self._readers.shutdown(wait=False)

    async def make(
        self,
        task: Task,
        tally: Tally,
        *,
        group: asyncio.TaskGroup,
        refused: Callable[[Refusal], None],
        judged: Callable[[Task, Answer | Failure], None],
    ) -> Step | None:
        """Pass the gates and make one attempt; None when the run stopped before anything was sent.

        `refused` hears that no budget is left, `judged` every answer, counted in `tally`, before it is written down.
        Raises StorageError; cancellation is `abandon`'s business, a worker is never cancelled while it holds an answer.
        """
        price = self._prices.price(task.model, task.size)
        begun = await self._begin(task, price, refused)
        while begun is not None and self._is_held_back(begun[1]):
            await self._withdraw(*begun, tally)
            begun = await self._begin(task, price, refused)
        if begun is None:
            return None
        reservation, ticket, intent = begun
        self._emit(AttemptStarted(task_id=task.id, attempt=intent.attempt, number=intent.number, price_microusd=price))
        started = time.monotonic()
        result: Answer | Failure | None = None
        try:
            result = await self._exchange(task, group)
        finally:
            if result is None:
                self._gate.finished(ticket, BUG)
        seconds = time.monotonic() - started
        try:
            result = self._gate.finished(ticket, result if isinstance(result, Failure) else None) or result
            if isinstance(result, Failure):
                tally.add(result.fault)
            judged(task, result)
        finally:  # a bug in who only watches costs no image
            step = await self._write_down(task, tally, intent, result, reservation=reservation, seconds=seconds)
        return step

    async def _begin(
        self, task: Task, price: int | None, refused: Callable[[Refusal], None]
    ) -> tuple[Reservation, Ticket, Intent] | None:
        """Pass the gates and write the intent down; None when the run stopped."""
        reservation = await self._reserve(price or 0, refused)
        if reservation is None:
            return None
        try:
            ticket = await self._enter(task)
        except Stopped:
            await self._moved(self._wallet.release, reservation)
            return None
        except BaseException:  # the worker sees it; nothing was sent
            await self._moved(self._wallet.release, reservation)
            raise
        try:
            return reservation, ticket, await self._store.intend(task, run=self._run, reserved_microusd=price)
        except BaseException:  # the worker sees it; nothing was sent
            self._gate.abandoned(ticket)
            await self._moved(self._wallet.release, reservation)
            raise

    async def _enter(self, task: Task) -> Ticket:
        """Take a slot when there is room for one more image; the disk may have filled up in the wait for the slot."""
        while True:
            await self._wait_for_room(task)
            ticket = await self._gate.wait()
            try:
                lacking = await self._room.lacking_bytes(task.size, self.in_flight)
            except BaseException:  # the worker sees it; nothing was sent
                self._gate.abandoned(ticket)
                raise
            if not lacking:
                return ticket
            self._gate.abandoned(ticket)

    def _is_held_back(self, ticket: Ticket) -> bool:
        """Whether a halt or a pause began while the intent was being written: then it is not sent."""
        return self._gate.is_stopped or self._gate.throttle.is_held_back(ticket)

    async def _withdraw(self, reservation: Reservation, ticket: Ticket, intent: Intent, tally: Tally) -> None:
        state = TaskState.UNKNOWN if tally.unknowns else TaskState.PENDING
        self._gate.abandoned(ticket)
        await self._moved(self._wallet.release, reservation)
        await self._store.close(
            intent.attempt, WITHDRAWN, state=state, cost_microusd=0, unknown_microusd=0, seconds=0.0
        )

    async def _reserve(self, price_microusd: int, refused: Callable[[Refusal], None]) -> Reservation | None:
        """Reserve the price; wait while what others have reserved may still come free."""
        async with self._money_moved:
            while not self._gate.is_stopped:
                reserved = self._wallet.reserve(price_microusd)
                if isinstance(reserved, Reservation):
                    return reserved
                if reserved.is_final:
                    refused(reserved)
                    return None
                await self._money_moved.wait()
        return None

    async def _wait_for_room(self, task: Task) -> None:
        await self._room.wait(
            task.size,
            lambda: self.in_flight,
            sleep=self._sleep,
            told=self._tell_of_room,
            is_over=lambda: self._gate.is_stopped,
        )

    def _tell_of_room(self, reason: str, seconds: float) -> None:
        """Warn once a run; a pause is told each time."""
        if not self._has_warned_of_room:
            self._has_warned_of_room = True
            self._emit(
                Warned(text=f"{reason}; nothing new is sent until there is room, for {PATIENCE_S:.0f} s at most")
            )
        self._emit(Paused(reason=reason, seconds=seconds))

    async def _moved(self, move: Callable[[Reservation], None], reservation: Reservation) -> None:
        """Let go of a reservation in the way `move` says, and wake who waits for money."""
        move(reservation)
        async with self._money_moved:
            self._money_moved.notify_all()

    async def _exchange(self, task: Task, group: asyncio.TaskGroup) -> Answer | Failure:
        """Send, then judge off the loop. A send that `abandon` cancels is a silence."""
        sending = group.create_task(self._send(task), name=f"send {task.id}")
        self._sending.add(sending)
        if self._is_abandoned:
            sending.cancel()
        try:
            await asyncio.wait({sending})
        finally:
            self._sending.discard(sending)
        if sending.cancelled():
            reason = "the run was stopped before the answer came"
            return Failure(fault=Fault.SILENCE, billed=Billed.MAYBE, reason=reason, code="stopped")
        reply = sending.result()
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Failure):
            return reply
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._provider.read, reply, task)

    async def _send(self, task: Task) -> Reply | Failure | Exception:
        try:
            return await self._provider.send(task)
        except Exception as bug:  # raised by the worker that waits; here it would cancel all others
            return bug

    async def _write_down(
        self,
        task: Task,
        tally: Tally,
        intent: Intent,
        result: Answer | Failure,
        *,
        reservation: Reservation,
        seconds: float,
    ) -> Step:
        cost = self._cost(task, result, reservation)
        unknown = reservation.price_microusd if _is_maybe(result) else 0
        if _is_maybe(result):
            await self._moved(self._wallet.keep_unknown, reservation)
        else:
            await self._moved(lambda r: self._wallet.settle(r, cost), reservation)
        if isinstance(result, Answer):
            step = await self._publish(task, intent, result, cost_microusd=cost, seconds=seconds)
        else:
            state = standing(result.fault, tally, self._retry)
            await self._store.close(
                intent.attempt, result, state=state, cost_microusd=cost, unknown_microusd=unknown, seconds=seconds
            )
            step = Step(state=state, failure=result, number=intent.number, reason=result.reason, cost_microusd=cost)
        self._emit(_ended(task, intent, result, cost_microusd=cost, unknown_microusd=unknown, seconds=seconds))
        return step

    async def _publish(self, task: Task, intent: Intent, answer: Answer, *, cost_microusd: int, seconds: float) -> Step:
        try:
            artifact = await self._store.publish(
                task, intent.attempt, answer, cost_microusd=cost_microusd, seconds=seconds
            )
        except Conflict as conflict:
            state, reason = TaskState.CONFLICT, str(conflict)
            return Step(state=state, number=intent.number, reason=reason, cost_microusd=cost_microusd)
        finally:  # an error's traceback may have the image until the collector comes, and others wait for its memory
            if answer.hold is not None:
                answer.hold.release()
        return Step(state=TaskState.DONE, artifact=artifact, number=intent.number, cost_microusd=cost_microusd)

    def _cost(self, task: Task, result: Answer | Failure, reservation: Reservation) -> int:
        """Return what the attempt cost: from its tokens where the catalogue can, else the list price."""
        if isinstance(result, Failure) and result.billed is not Billed.YES:
            return 0
        cost = self._prices.settle(task.model, task.size, result.usage)
        return reservation.price_microusd if cost is None else cost


def _is_maybe(result: Answer | Failure) -> bool:
    return isinstance(result, Failure) and result.billed is Billed.MAYBE


def _ended(
    task: Task, intent: Intent, result: Answer | Failure, *, cost_microusd: int, unknown_microusd: int, seconds: float
) -> AttemptEnded:
    failure = result if isinstance(result, Failure) else None
    return AttemptEnded(
        task_id=task.id,
        attempt=intent.attempt,
        number=intent.number,
        seconds=seconds,
        fault=failure.fault if failure else None,
        reason=failure.reason if failure else "; ".join(result.notes) if isinstance(result, Answer) else "",
        status=failure.status if failure else 200,
        request_id=result.request_id,
        cost_microusd=cost_microusd,
        unknown_microusd=unknown_microusd,
    )

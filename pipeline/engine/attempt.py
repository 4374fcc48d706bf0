"""One attempt of one task in three steps: `begin`, `send`, `record`.

`begin` passes the gates in this order: halt, wallet, disk space, throttle; then the attempt is committed as sent.
`send` hands it to the sender. `record` settles the money and commits how the attempt ended. Whether to repeat is
decided in `retry`. The engine sees sender, ledger and prices through the protocols here and imports none of them.

The disk space guard runs before each request and looks at most once a second; after a minute without space the run
halts, because an image that was paid for must be stored.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from pipeline.engine.events import AttemptEnded, AttemptStarted, Listener, Paused, Warned
from pipeline.engine.halt import RELEASED, failure_of
from pipeline.engine.retry import AttemptHistory, state_after
from pipeline.engine.starts import Ticket
from pipeline.engine.throttle import Gate, Stopped
from pipeline.engine.wallet import Refusal, Reservation, Wallet
from pipeline.errors import StorageError
from pipeline.model import Artifact, Attempt, Billed, Failure, Fault, Task, TaskState, Usage
from pipeline.settings import Retry


class AttemptSender(Protocol):
    """Performs attempts: builds the request, sends it, judges the answer, writes the image durably (B1 to B4)."""

    async def send(self, attempt: Attempt) -> Artifact | Failure:
        """Send one request and keep what it brings.

        Returns a few hundred bytes, never the image. Everything that can be expected is a `Failure`; only bugs raise.
        Not to be cancelled: `abandon` ends the wait and keeps what has arrived.
        """

    def abandon(self) -> None:
        """Stop waiting for answers: what has arrived is kept, what is in flight ends as maybe billed."""


class AttemptLedger(Protocol):
    """Records attempts durably, before and after they are sent."""

    async def begin(self, task: Task, *, run: int, reserved_microusd: int | None) -> Attempt:
        """Record an attempt as sent, before it is (B0)."""

    async def finish(self, attempt: Attempt, artifact: Artifact, *, cost_microusd: int, seconds: float) -> None:
        """Record an attempt whose image stands under its final name (B5)."""

    async def close(
        self,
        attempt: Attempt,
        failure: Failure,
        *,
        state: TaskState,
        cost_microusd: int,
        unknown_microusd: int,
        seconds: float,
    ) -> None:
        """Record an attempt that left no image under a final name; `state` is that of its task from now on."""

    async def fail(self, ids: Collection[str]) -> int:
        """Record these tasks as failed where they are pending; return how many."""

    async def free_bytes(self) -> int:
        """Return what can still be written."""


class Prices(Protocol):
    """What one attempt costs."""

    def reserve(self, task: Task) -> int | None:
        """Return the most that one attempt can cost, in micro-dollars; None: not known. It may rise during a run."""

    def settle(self, task: Task, usage: Usage | None) -> int | None:
        """Return what an answer cost, from its tokens; None: unknown, what was reserved stands."""


IMAGE_BYTES: Final = {"512": 2 * 2**20, "1K": 4 * 2**20, "2K": 10 * 2**20, "4K": 28 * 2**20}  # twice the usual PNG
MARGIN_BYTES: Final = 8 * 2**20  # the ledger, the report, somebody else
LOOK_S: Final = 1.0
PATIENCE_S: Final = 60.0


@dataclass(kw_only=True, eq=False, repr=False)
class DiskSpaceGuard:
    """Has an attempt wait until the disk has room for its image; the free bytes are asked for once a second."""

    free_bytes: Callable[[], Awaitable[int]]
    sleep: Callable[[float], Awaitable[None]]
    emit: Listener
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._looked_at = self._reported_at = float("-inf")
        self._free = 0
        self._looking = asyncio.Lock()

    async def lacking_bytes(self, size: str | None, in_flight: int) -> int:
        """Return how many bytes are missing for one more image beside those in flight; 0: there is room."""
        async with self._looking:  # one look serves all who ask meanwhile
            if self.clock() - self._looked_at >= LOOK_S:
                self._free = await self.free_bytes()
                self._looked_at = self.clock()
        wanted = (in_flight + 1) * IMAGE_BYTES.get(size or "1K", IMAGE_BYTES["4K"]) + MARGIN_BYTES
        return max(0, wanted - self._free)

    def used(self, size: str | None) -> None:
        """Count an image that has come since the last look."""
        self._free -= IMAGE_BYTES.get(size or "1K", IMAGE_BYTES["4K"])

    async def wait(self, size: str | None, in_flight: Callable[[], int], is_over: Callable[[], bool]) -> None:
        """Return when there is room, or at once when the run is over. Raises StorageError after a minute without."""
        deadline = self.clock() + PATIENCE_S
        while not is_over() and (lacking := await self.lacking_bytes(size, in_flight())):
            reason = f"the disk is nearly full: {lacking / 2**20:,.0f} MB more are needed for what is in flight"
            if self.clock() >= deadline:
                raise StorageError(f"{reason}; free some space and run again")
            self._report(reason)
            await self.sleep(LOOK_S)

    def _report(self, reason: str) -> None:
        """Warn once a run; report a pause each time."""
        if self.clock() - self._reported_at < LOOK_S:
            return
        if self._reported_at == float("-inf"):
            self.emit(Warned(text=f"{reason}; nothing new is sent until there is room, for {PATIENCE_S:.0f} s at most"))
        self._reported_at = self.clock()
        self.emit(Paused(reason=reason, seconds=LOOK_S))


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

    @property
    def is_suspended(self) -> bool:
        """Whether it failed its task with what a halt may yet prove to be no fault of the task.

        Until the run ends it is recorded as pending, so that a process that dies before fails nobody wrongly.
        """
        return self.state is TaskState.FAILED and self.failure is not None and self.failure.fault in RELEASED


@dataclass(slots=True, kw_only=True, eq=False)
class Begun:
    """An attempt that is committed and about to be sent, with what it holds until it is recorded."""

    attempt: Attempt
    reservation: Reservation
    price_microusd: int | None  # what was reserved; None: the price is not known
    ticket: Ticket
    seconds: float = 0.0  # how long it was with the sender
    cost_microusd: int = 0  # what its answer cost


@dataclass(kw_only=True, eq=False, repr=False)
class Attempts:
    """Makes attempts with one sender, ledger and wallet; counts those in flight."""

    run: int
    sender: AttemptSender
    ledger: AttemptLedger
    prices: Prices
    gate: Gate
    wallet: Wallet
    retry: Retry
    emit: Listener
    sleep: Callable[[float], Awaitable[None]]

    def __post_init__(self) -> None:
        self._disk_space = DiskSpaceGuard(free_bytes=self.ledger.free_bytes, sleep=self.sleep, emit=self.emit)
        self._money_moved = asyncio.Condition()
        self._sent: set[Begun] = set()  # with the sender

    @property
    def in_flight(self) -> int:
        """Return how many attempts are with the sender."""
        return len(self._sent)

    # -- the three steps ------------------------------------------------------------------------------------------

    async def begin(self, task: Task, tally: AttemptHistory) -> Begun | Refusal | None:
        """Pass the gates and commit the attempt.

        Returns a Refusal when no budget is left, None when the run stopped; nothing was sent then. Raises StorageError.
        """
        with suppress(Stopped):
            while isinstance(begun := await self._begin(task), Begun) and self._is_held_back(begun):
                await self.withdraw(begun, tally)
            return begun
        return None

    async def withdraw(self, begun: Begun, tally: AttemptHistory) -> None:
        """Take back an attempt that was not sent."""
        state = TaskState.UNKNOWN if tally.unknowns else TaskState.PENDING
        self.gate.abandoned(begun.ticket)
        await self._moved(self.wallet.release, begun.reservation)
        await self.ledger.close(begun.attempt, WITHDRAWN, state=state, cost_microusd=0, unknown_microusd=0, seconds=0.0)

    async def send(self, begun: Begun) -> Artifact | Failure:
        """Have the attempt sent; give its slot back with how it ended."""
        attempt, price = begun.attempt, begun.price_microusd
        self.emit(
            AttemptStarted(task_id=attempt.task.id, attempt=attempt.id, number=attempt.number, price_microusd=price)
        )
        failure: Failure | None = BUG  # of the sender; raised, once the slot is free
        started = time.monotonic()
        self._sent.add(begun)
        self.gate.throttle.sent(begun.ticket)
        try:
            result = await self.sender.send(attempt)
            failure = failure_of(result)
        except BaseException:  # the worker sees it; the next start finds the attempt as sent, so maybe billed
            await self._moved(self.wallet.keep_unknown, begun.reservation)
            raise
        finally:
            self._sent.discard(begun)
            begun.seconds = time.monotonic() - started
            failure = self.gate.finished(begun.ticket, failure)
        if failure is not None:
            result = failure  # as the throttle names it: an outage may have been a refusal
        if failure is None or failure.billed is Billed.YES:
            self._disk_space.used(attempt.task.size)
        begun.cost_microusd = self._cost(attempt.task, result, begun.reservation)
        for other in self._sent:  # more is set aside where the like of a request has cost more than was reserved for it
            if other.reservation.price_microusd < begun.cost_microusd:  # cheap: most answers cost less than any
                self.wallet.top_up(other.reservation, self.prices.reserve(other.attempt.task) or 0)
        return result

    async def record(self, begun: Begun, result: Artifact | Failure, tally: AttemptHistory) -> Step:
        """Settle the money and commit how the attempt ended. `tally` has counted it already.

        Raises StorageError: the ledger, or what the sender could not write, after all else is recorded.
        """
        attempt, cost, unknown = begun.attempt, begun.cost_microusd, 0
        if isinstance(result, Failure) and result.billed is Billed.MAYBE:
            unknown = begun.reservation.price_microusd
            await self._moved(self.wallet.keep_unknown, begun.reservation)
        else:
            await self._moved(lambda r: self.wallet.settle(r, cost), begun.reservation)
        if isinstance(result, Artifact):
            step = Step(state=TaskState.DONE, artifact=result)
            await self.ledger.finish(attempt, result, cost_microusd=cost, seconds=begun.seconds)
        else:
            step = Step(state=state_after(result.fault, tally, self.retry), failure=result)
            await self.ledger.close(
                attempt,
                result,
                state=TaskState.PENDING if step.is_suspended else step.state,
                cost_microusd=cost,
                unknown_microusd=unknown,
                seconds=begun.seconds,
            )
            if result.storage_error is not None:
                raise StorageError(result.storage_error)
        self.emit(_ended(begun, result, unknown_microusd=unknown))
        return step

    # -- the gates ------------------------------------------------------------------------------------------------

    async def _begin(self, task: Task) -> Begun | Refusal | None:
        """Reserve money, take a slot and commit the attempt; what was taken is given back where that fails.

        Money is reserved again when an answer that came in the wait was dearer, or midnight has passed.
        """
        while isinstance(reservation := await self._reserve(task), Reservation):
            async with AsyncExitStack() as undo:
                undo.push_async_callback(self._moved, self.wallet.release, reservation)
                ticket = await self._enter(task)
                undo.callback(self.gate.abandoned, ticket)
                if self._is_covered(task, reservation):
                    price = None if self.prices.reserve(task) is None else reservation.price_microusd
                    attempt = await self.ledger.begin(task, run=self.run, reserved_microusd=price)
                    undo.pop_all()
                    return Begun(attempt=attempt, reservation=reservation, price_microusd=price, ticket=ticket)
        return reservation

    async def _enter(self, task: Task) -> Ticket:
        """Take a slot when there is room for one more image; the disk may have filled up in the wait for the slot."""
        throttle = self.gate.throttle
        while True:
            await self._disk_space.wait(task.size, lambda: throttle.in_flight, lambda: self.gate.is_stopped)
            ticket = await self.gate.wait()
            with ExitStack() as undo:
                undo.callback(self.gate.abandoned, ticket)
                if not await self._disk_space.lacking_bytes(task.size, throttle.in_flight - 1):
                    undo.pop_all()
                    return ticket

    def _is_held_back(self, begun: Begun) -> bool:
        """Whether a halt, a pause, another day or a higher price began while the attempt was being committed.

        Then it is not sent.
        """
        is_short = not self._is_covered(begun.attempt.task, begun.reservation)
        return is_short or self.gate.is_stopped or self.gate.throttle.is_held_back(begun.ticket)

    async def _reserve(self, task: Task) -> Reservation | Refusal | None:
        """Reserve the most that the attempt can cost; wait while what others have reserved may still come free.

        None: the run stopped.
        """
        async with self._money_moved:
            while not self.gate.is_stopped:
                reserved = self.wallet.reserve(self.prices.reserve(task) or 0)
                if isinstance(reserved, Reservation) or reserved.is_final:
                    return reserved
                await self._money_moved.wait()
        return None

    def _is_covered(self, task: Task, reservation: Reservation) -> bool:
        return self.wallet.covers(reservation, self.prices.reserve(task) or 0)

    async def _moved(self, move: Callable[[Reservation], None], reservation: Reservation) -> None:
        """Let go of a reservation in the way `move` says, and wake who waits for money."""
        move(reservation)
        async with self._money_moved:
            self._money_moved.notify_all()

    def _cost(self, task: Task, result: Artifact | Failure, reservation: Reservation) -> int:
        """Return what the attempt cost: from its tokens where the catalogue can, else what was reserved."""
        if isinstance(result, Failure) and result.billed is not Billed.YES:
            return 0
        cost = self.prices.settle(task, result.usage)
        return reservation.price_microusd if cost is None else cost


def _ended(begun: Begun, result: Artifact | Failure, *, unknown_microusd: int) -> AttemptEnded:
    failure = result if isinstance(result, Failure) else None
    return AttemptEnded(
        task_id=begun.attempt.task.id,
        attempt=begun.attempt.id,
        number=begun.attempt.number,
        seconds=begun.seconds,
        fault=failure.fault if failure else None,
        reason=failure.reason if failure else "; ".join(result.notes) if isinstance(result, Artifact) else "",
        status=failure.status if failure else 200,
        request_id=result.request_id,
        cost_microusd=begun.cost_microusd,
        unknown_microusd=unknown_microusd,
        worker=result.worker,
    )

"""Runs a lazy stream of due tasks through a bounded queue and a fixed number of workers.

Nothing fatal is raised while requests are in flight: it orders a halt (nothing new is sent, what is in flight is
awaited and saved), because raising would cancel requests that are paid.
"""

import asyncio
import math
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from tenacity import AsyncRetrying, retry_if_result

from pipeline.engine import events
from pipeline.engine.attempt import AttemptLedger, Attempts, AttemptSender, Begun, Prices, Step
from pipeline.engine.halt import Halt, HaltPolicy, Halts, failure_of
from pipeline.engine.retry import DEFERRABLE, AttemptHistory, exhausted, may_repeat, state_after, wait_s
from pipeline.engine.throttle import Gate
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit, ImgpipeError
from pipeline.model import UNSENT, Artifact, Billed, Due, Failure, Fault, TaskState
from pipeline.settings import Limits, Retry

BEYOND: Final = 4  # one worker more for every so many: it keeps the wire busy while others write to disk
SHORTEST_S: Final = 1.0  # a shorter pause is not reported


@dataclass(slots=True, kw_only=True)
class _Turn:
    """A due task in a worker's hands, and what it has met so far."""

    due: Due
    tally: AttemptHistory
    attempts: int = 0
    cost_microusd: int = 0
    images_seen: int = 0  # of the run, when the turn began
    last: Step = field(default_factory=lambda: Step(state=TaskState.PENDING))


@dataclass(kw_only=True, eq=False, repr=False)
class Engine:
    """Runs due tasks once. Build a new one for each run, and for each stage of one."""

    number: int  # of the run
    sender: AttemptSender
    ledger: AttemptLedger
    prices: Prices
    gate: Gate
    wallet: Wallet
    policy: HaltPolicy
    limits: Limits
    retry: Retry
    listen: events.Listener
    counts: events.Counts = field(default_factory=events.Counts)  # of the stages before this one, to go on with
    halts: Halts = field(default_factory=Halts)

    def __post_init__(self) -> None:
        self._attempts = Attempts(
            run=self.number,
            sender=self.sender,
            ledger=self.ledger,
            prices=self.prices,
            gate=self.gate,
            wallet=self.wallet,
            retry=self.retry,
            emit=self._emit,
            sleep=self._sleep,
        )
        workers = self.limits.concurrency + max(2, self.limits.concurrency // BEYOND)
        self._queue: asyncio.Queue[_Turn | None] = asyncio.Queue(maxsize=workers)
        self._busy = 0  # turns that are queued or in a worker's hands
        self._turn_over = asyncio.Condition()
        self._deferred: deque[_Turn] = deque()
        self._suspended: list[_Turn] = []  # failed by what may prove to be no fault of theirs
        self._released: set[Fault] = set()  # what proved to be so
        self._is_halted = asyncio.Event()
        self._fed_out: Halt | None = None  # max_tasks were fed: they are finished, and the run ends with it
        self._bug: Exception | None = None
        self._paused_until = -math.inf  # as last reported, on the loop's clock
        self._warnings = events.ImageWarnings()

    # -- from outside ---------------------------------------------------------------------------------------------

    def halt(self, exit_code: Exit, reason: str) -> None:
        """Send nothing new from here on; await and save what is in flight."""
        self._halt(Halt(exit_code, reason))

    def abandon(self) -> None:
        """Stop waiting for answers: what has arrived is saved, what is in flight becomes unknown."""
        self.sender.abandon()

    def gauge(self) -> events.Gauge:
        """Return the state of the run at this moment."""
        throttle, wallet = self.gate.throttle, self.wallet
        return events.Gauge(
            in_flight=self._attempts.in_flight,
            limit=throttle.limit,
            concurrency=self.limits.concurrency,
            spent_microusd=wallet.spent_microusd,
            unknown_microusd=wallet.unknown_microusd,
            reserved_microusd=wallet.reserved_microusd,
            budget_left_microusd=wallet.left_microusd,
            pause_reason=throttle.pause_reason,
            pause_left_s=throttle.pause_left_s,
        )

    async def run(self, due: Iterable[Due]) -> events.Counts:
        """Ask for every due task; return when all are settled or a halt has drained.

        Cancelling the caller is the second signal: answers that arrived are saved, then CancelledError goes on.
        Raises the first bug met in a worker, after everything in flight is saved.
        """
        workers = asyncio.get_running_loop().create_task(
            self._work_off(due), name="workers"
        )  # outlives the caller's cancel
        try:
            await asyncio.shield(workers)
        except asyncio.CancelledError:
            self.halt(Exit.INTERRUPTED, "cancelled")
            self.abandon()
            await workers
            raise
        if self._bug is not None:
            raise self._bug
        return self.counts

    # -- queue and workers ----------------------------------------------------------------------------------------

    async def _work_off(self, due: Iterable[Due]) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(self._queue.maxsize):
                group.create_task(self._work(), name=f"worker-{n}")
            await self._feed(iter(due))
            await self._feed_deferred()
            for _ in range(self._queue.maxsize):
                await self._queue.put(None)
        await self._end_suspended()
        if self._fed_out is not None:
            self._halt(self._fed_out)

    async def _feed(self, due: Iterator[Due]) -> None:
        fed = 0
        while not self._is_halted.is_set() and (item := next(due, None)) is not None:
            if fed == self.limits.max_tasks:
                self._fed_out = Halt(Exit.BUDGET, f"limits.max_tasks ({fed}) was reached; the rest is pending")
                return
            fed += 1
            tally = AttemptHistory(unknowns=item.unknowns, faults=Counter(item.faults))
            self._busy += 1
            await self._queue.put(_Turn(due=item, tally=tally))

    async def _feed_deferred(self) -> None:
        """Give deferred tasks another turn, as long as images have come since their last one began."""
        async with self._turn_over:
            while True:
                await self._turn_over.wait_for(lambda: self._busy == 0 or self._came_image())
                if not self._deferred:
                    return
                turn = self._deferred.popleft()
                if self.counts.images == turn.images_seen:
                    self._end(turn)
                else:
                    turn.tally.fresh_turn()
                    self._busy += 1
                    self._queue.put_nowait(turn)

    def _came_image(self) -> bool:
        """Whether the oldest deferred task may be asked now: an image came since, and the queue has room."""
        return bool(self._deferred) and self.counts.images > self._deferred[0].images_seen and not self._queue.full()

    async def _work(self) -> None:
        while (turn := await self._queue.get()) is not None:
            try:
                await self._take_turn(turn)
            except ImgpipeError as error:
                self.halt(error.exit_code, str(error))
                self._end(turn)
            except Exception as bug:  # raised by `run`, once everything in flight is saved
                self._caught(bug)
                self._end(turn)
            finally:
                self._busy -= 1
                async with self._turn_over:
                    self._turn_over.notify_all()

    async def _take_turn(self, turn: _Turn) -> None:
        if self._closed_folder(turn) is None:
            turn.images_seen = self.counts.images
            if (fault := exhausted(turn.tally, self.retry)) is not None:
                await self._give_up(turn, fault)
            else:
                await self._ask(turn)
                await self._redo_flagged(turn)
        failure = turn.last.failure
        if (folder := self._closed_folder(turn)) is not None:
            self.counts.closed[folder] += turn.last.state is TaskState.PENDING
            self._end(turn)
        elif failure is not None and failure.fault in DEFERRABLE:
            self._deferred.append(turn)
        else:
            self._end(turn)

    def _closed_folder(self, turn: _Turn) -> str | None:
        """Return the folder that takes no images, as others have found, and that this one belongs below."""
        name = turn.due.task.name
        return next((folder for folder in self.counts.closed if name.startswith(f"{folder}/")), None)

    async def _give_up(self, turn: _Turn, fault: Fault) -> None:
        """Fail a task that earlier runs have asked as often as it may be; nothing is sent."""
        await self.ledger.fail([turn.due.task.id])
        reason = f"{turn.tally.faults[fault]} paid answers without an image ({fault}) in earlier runs; it has failed"
        turn.last = Step(state=TaskState.FAILED, failure=Failure(fault=fault, billed=Billed.NO, reason=reason))
        self._emit(events.Warned(text=reason, task_id=turn.due.task.id))

    def _end(self, turn: _Turn) -> None:
        """Count and report a task whose last turn is over; later, where a halt may yet clear it of a failure."""
        if turn.last.is_suspended:
            self._suspended.append(turn)
        else:
            self._report_end(turn)

    async def _end_suspended(self) -> None:
        """Fail the tasks whose failure ordered no halt; the others stay pending, for it was not their fault."""
        failed: list[str] = []
        for turn in self._suspended:
            if turn.last.failure is not None and turn.last.failure.fault in self._released:
                turn.last = replace(turn.last, state=TaskState.PENDING)
            else:
                failed.append(turn.due.task.id)
        try:
            if failed:
                await self.ledger.fail(failed)
        except ImgpipeError as error:
            self.halt(error.exit_code, str(error))
        for turn in self._suspended:
            self._report_end(turn)
        self._suspended.clear()

    def _report_end(self, turn: _Turn) -> None:
        step, task = turn.last, turn.due.task
        self.counts.states[step.state] += 1
        if not turn.attempts:
            return
        if step.artifact is not None:
            self.counts.flags.update(step.artifact.flags.keys())
        reason = "" if step.failure is None else step.failure.reason
        if step.state is TaskState.PENDING and self._closed_folder(turn) is None:
            self.counts.trouble = reason
        self._emit(
            events.TaskEnded(
                task_id=task.id,
                job=task.job,
                state=step.state,
                reason=reason,
                artifact=step.artifact,
                attempts=turn.attempts,
                cost_microusd=turn.cost_microusd,
            )
        )
        if step.state is TaskState.DONE:
            self._task_ended(step.state)

    # -- the attempts of one task ---------------------------------------------------------------------------------

    async def _ask(self, turn: _Turn) -> None:
        """Make attempts until the task is settled, must not be repeated, or the run halts."""
        time = asyncio.get_running_loop().time
        began_at = time()

        def has_more(step: Step | None) -> bool:
            failure = step.failure if step else None
            if failure is None or self._is_halted.is_set():
                return False
            return may_repeat(failure.fault, turn.tally, self.retry, tried_s=time() - began_at)

        retrying = AsyncRetrying(
            retry=retry_if_result(has_more),
            wait=lambda _state: self._wait(turn),
            sleep=self._sleep,
        )
        await retrying(self._attempt, turn)
        retrying.iter_state.reset()  # it refers to itself: only the garbage collector would find it, and what it holds

    async def _redo_flagged(self, turn: _Turn) -> None:
        """Ask again for an image in which a check that says `redo` found something; it stays where no other comes."""
        checks = turn.due.task.checks
        for _ in range(checks.most_redos):
            flagged = turn.last
            flags = {} if flagged.artifact is None else flagged.artifact.flags
            found = "; ".join(f"flagged {name}: {reason}" for name, reason in flags.items() if name in checks.redo)
            if not found or self._is_halted.is_set():
                return
            self._emit(events.RetryScheduled(task_id=turn.due.task.id, number=turn.attempts, wait_s=0.0, reason=found))
            await self._ask(turn)
            if turn.last.artifact is None or turn.last is flagged:
                turn.last = flagged
                return

    async def _attempt(self, turn: _Turn) -> Step | None:
        """Begin, send, record; None when nothing was sent because the run stops."""
        begun = await self._attempts.begin(turn.due.task, turn.tally)
        if not isinstance(begun, Begun):
            if begun is not None and turn.last.artifact is None:
                self.halt(Exit.BUDGET, str(begun))
            return None
        if self._closed_folder(turn) is not None:
            await self._attempts.withdraw(begun, turn.tally)
            return None
        result = await self._attempts.send(begun)
        if isinstance(result, Failure):
            turn.tally.add(result.fault)
        try:
            self._judged(begun, result, turn)
        finally:  # a bug here costs no image
            step = await self._attempts.record(begun, result, turn.tally)
        turn.last = step
        turn.attempts += 1
        turn.cost_microusd += begun.cost_microusd
        if step.artifact is not None:
            self.counts.images += 1
            self.counts.bytes += step.artifact.size_bytes
        return step

    def _wait(self, turn: _Turn) -> float:
        failure = turn.last.failure
        assert failure is not None
        seconds = wait_s(failure.fault, turn.tally, self.retry, hint_s=failure.hint_s, random=random.random)
        self._emit(
            events.RetryScheduled(task_id=turn.due.task.id, number=turn.attempts, wait_s=seconds, reason=failure.reason)
        )
        return seconds

    async def _sleep(self, seconds: float) -> None:
        """Wait, or less when a halt is ordered."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_halted.wait()

    # -- halts ----------------------------------------------------------------------------------------------------

    def _judged(self, begun: Begun, result: Artifact | Failure, turn: _Turn) -> None:
        task, tally = begun.attempt.task, turn.tally
        was_sent = not (isinstance(result, Failure) and result.fault in UNSENT)
        self.counts.attempts += was_sent  # here: the disk may not take what came
        if isinstance(result, Artifact):
            for text in self._warnings.of(task.id, result):
                self._emit(events.Warned(text=text, task_id=task.id))
        tries = tally.faults[result.fault] if isinstance(result, Failure) else 0
        if halt := self.policy.judged(
            result,
            model=task.model,
            tries=tries,
            task_id=task.id,
            seconds=begun.seconds,
            cost_microusd=begun.cost_microusd,
        ):
            self._halt(halt)
        is_lost = isinstance(result, Failure) and state_after(result.fault, tally, self.retry) is TaskState.FAILED
        if is_lost and turn.last.artifact is None:
            self._task_ended(TaskState.FAILED)  # now: until it is written down, others would have been sent
        if isinstance(result, Failure) and result.closed_folder is not None:
            self.counts.closed.setdefault(result.closed_folder, 0)
        failure = failure_of(result)
        if failure is not None and not self._is_halted.is_set():
            self._look_at_throttle(failure)

    def _task_ended(self, state: TaskState) -> None:
        if halt := self.policy.task_ended(state):
            self._halt(halt)

    def _look_at_throttle(self, failure: Failure) -> None:
        """Give up when the throttle does, saying what was seen last; else report its pause, again where it doubled."""
        verdict = self.gate.throttle.verdict
        if verdict is not None:
            self._halt(replace(verdict, reason=f"{verdict.reason} ({failure.reason})"))
            return
        now, left_s = asyncio.get_running_loop().time(), self.gate.throttle.pause_left_s
        if left_s < SHORTEST_S or left_s < 2 * (self._paused_until - now):
            return
        self._paused_until = now + left_s
        self._emit(events.Paused(reason=f"{self.gate.throttle.pause_reason} ({failure.reason})", seconds=left_s))

    def _halt(self, halt: Halt) -> None:
        self._is_halted.set()
        if halt.fault is not None:
            self._released.add(halt.fault)
        self.gate.stop()
        if self.halts.add(halt):
            self._emit(events.Halted(exit=halt.exit, reason=halt.reason))

    def _caught(self, bug: Exception) -> None:
        """Order a halt for a bug; `run` raises the first one, once everything in flight is saved."""
        self._bug = self._bug or bug
        self.halt(Exit.BUG, f"{type(self._bug).__name__}: {self._bug}")

    def _emit(self, event: events.Event) -> None:
        """Report an event. A listener that fails stops the run in order, as any bug does."""
        try:
            self.listen(event)
        except Exception as bug:  # raised by `run`
            self._caught(bug)

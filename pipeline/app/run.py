"""One run: lock, ledger, recovery, plan, consent, sending, and the summary with its one exit code.

Raises InputError (2), StorageError (5), AccountError (7) and TryLater (75) before anything is sent; afterwards every
ending is a RunSummary.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Final, Self

from pipeline.app import consent
from pipeline.app.context import Setup
from pipeline.app.locking import open_store
from pipeline.app.notify import Notifier
from pipeline.app.planning import Planned, reading
from pipeline.app.redo import Release, release
from pipeline.app.stages import Pilot, both, pilot_first, plan_stage
from pipeline.app.summary import nothing_done, summary_of
from pipeline.engine import events
from pipeline.engine.halt import Halt, Halts
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit, ImgpipeError, InputError, StorageError, TryLater
from pipeline.model import BucketUrl, Due, TaskState
from pipeline.plan.decide import Verdict
from pipeline.plan.plan import Plan, PlanRow, Spool, merged, tally
from pipeline.pools import is_short_of_memory
from pipeline.store.lock import StateLock
from pipeline.store.maintenance import Maintenance
from pipeline.store.parts import Recovery
from pipeline.store.reader import LedgerReader
from pipeline.store.rebuild import find_traces
from pipeline.store.rows import Hold
from pipeline.store.store import Store

if TYPE_CHECKING:
    from pipeline.app.workers import WorkerOrder
    from pipeline.engine.run import Engine
    from pipeline.senders.remote import Cluster


# Shows a run: called with its start and its gauge, it gives the listener and hides it again at the end.
Watcher = Callable[[events.RunStarted, Callable[[], events.Gauge]], AbstractContextManager[events.Listener]]


@dataclass(slots=True, kw_only=True)
class ActiveRun:
    """What the steps of one run share; what a step finds is written here for those after it."""

    setup: Setup
    key: str
    store: Store
    reader: LedgerReader
    signals: "Signals"
    watch: Watcher
    confirm: Callable[[str], bool] | None  # None: there is nobody to ask
    recovery: Recovery
    wallet: Wallet = field(init=False)  # from consent on, which may set a budget
    whole: Plan = field(default_factory=Plan)  # of all stages, as it was before anything was sent
    pilot: Pilot | None = None
    held: Mapping[str, Hold] = field(default_factory=dict)  # by model
    workers: "tuple[Cluster, WorkerOrder] | None" = None  # that send; None: this process does
    number: int | None = None  # in the ledger; None: nothing is due
    listen: events.Listener = lambda _event: None
    counts: events.Counts = field(default_factory=events.Counts)
    halts: Halts = field(default_factory=Halts)
    worker_counts: Callable[[], events.Workers | None] = lambda: None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def number_in_ledger(self) -> int:
        """The number of a run that sends: such a run has one."""
        assert self.number is not None
        return self.number

    def gauge(self) -> events.Gauge:
        """Return the state of the run at this moment; before anything is sent, only its money."""
        if self.signals.engine is not None:
            return replace(self.signals.engine.gauge(), workers=self.worker_counts())
        return events.Gauge(concurrency=self.setup.limits.concurrency, budget_left_microusd=self.wallet.left_microusd)

    def halt(self, halt: Halt) -> None:
        """Order to start nothing more."""
        if self.halts.add(halt):
            self.listen(events.Halted(exit=halt.exit, reason=halt.reason))


async def run(
    setup: Setup,
    *,
    watch: Watcher,
    confirm: Callable[[str], bool] | None = None,
    retry: Release | None = None,
    lock: StateLock | None = None,
    signals: "Signals | None" = None,
) -> events.RunSummary:
    """Make the images of a manifest that are missing or changed, once, and notify.

    `confirm` None: there is nobody to ask. `retry`: those tasks, and nothing else. `lock`: taken before (`early_lock`).
    `signals` None: those of this process. Cancelling this coroutine leaves what is in flight unknown.
    """
    notify = None if setup.flags.simulate else setup.manifest.notify  # a rehearsal may be of a stranger's manifest
    notifier = Notifier(notify, manifest=setup.manifest.name, file=str(setup.manifest.path))
    async with _notifying_of_errors(notifier, setup):
        key = setup.key()
        with signals or Signals(drain_s=setup.flags.drain_s) as signals:
            try:
                async with _recovered(setup, notifier, lock) as (store, reader, recovery):
                    active = ActiveRun(
                        setup=setup,
                        key=key,
                        store=store,
                        reader=reader,
                        signals=signals,
                        watch=watch,
                        confirm=confirm,
                        recovery=recovery,
                    )
                    summary = await _go_on(active, retry)
            except asyncio.CancelledError:
                if signals.exit is None:
                    raise
                summary = nothing_done(setup, signals.exit)
    return await notifier.ended(summary)


@asynccontextmanager
async def _notifying_of_errors(notifier: Notifier, setup: Setup) -> AsyncIterator[None]:
    """Notify of an error that ends the run; that another run has the lock is none."""
    kept = f"What was paid is kept in {setup.manifest.state_dir}"
    try:
        yield
    except TryLater:
        raise
    except ImgpipeError as error:
        problems = "; ".join(str(error).splitlines())  # a line end would be shown as an escape
        await notifier.broke_off(error, nothing_done(setup, error.exit_code, problems))
        raise
    except Exception as bug:  # seen by the caller, with its traceback
        if not is_short_of_memory(bug):
            bug.add_note(f"{kept}; the same command continues from there.")
            await notifier.broke_off(bug, nothing_done(setup, Exit.BUG, f"{type(bug).__name__}: {bug}"))
            raise
        advice = "lower limits.concurrency (-j), or let it have more"
        lack = StorageError(
            f"this process may not take more memory or start more threads; {advice}. {kept}, the same command continues"
            " from there"
        )
        await notifier.broke_off(lack, nothing_done(setup, lack.exit_code, str(lack)))
        raise lack from bug


@asynccontextmanager
async def _recovered(
    setup: Setup, notifier: Notifier, lock: StateLock | None
) -> AsyncIterator[tuple[Store, LedgerReader, Recovery]]:
    """Open store and ledger, and bring them together after whatever happened."""
    async with open_store(setup, lock=lock, check=_check_state) as store:
        await notifier.started()
        recovery = await store.recover()
        await store.maintain(Maintenance.restore)
        with reading(setup) as reader:
            yield store, reader, recovery
        await store.maintain(Maintenance.restore)


async def _go_on(run: ActiveRun, retry: Release | None) -> events.RunSummary:
    """Go on when the ledger says what earlier runs did: forget void holds, make due what `retry` asks for, plan."""
    voided = tuple(consent.void_holds(run.reader))
    run.recovery.notes += voided
    await run.store.forget_void_holds(later=datetime.now(UTC) + consent.CLOCK_SLACK)
    if retry is not None:
        run.setup = await release(run.setup, run.store, run.reader, retry)
    summary = await _plan_and_go(run)
    return replace(summary, cautions=(*voided, *summary.cautions))


def _check_state(setup: Setup) -> None:
    """Refuse where only the ledger of earlier runs is missing."""
    manifest = setup.manifest
    if isinstance(manifest.output_dir, BucketUrl):
        return  # an image there becomes a conflict
    with reading(setup) as reader:
        traces = list(islice(find_traces(manifest.output_dir, manifest.state_dir), 3)) if reader.is_missing else []
    if traces:
        what = f"files of earlier runs exist, but their ledger does not: {', '.join(traces)}"
        raise InputError(f"{what}; rebuild it: imgpipe rebuild {setup.command}")


# -- the run ------------------------------------------------------------------------------------------------------


async def _plan_and_go(run: ActiveRun) -> events.RunSummary:
    """Plan every stage, ask for consent, and send."""
    first, *later = run.setup.manifest.stages
    with closing(Spool(run.setup.manifest.state_dir)) as spool:
        planned = await plan_stage(run.setup, run.store, run.reader, jobs=first if later else None, spool=spool)
        run.whole = planned.plan
        if later:
            behind = [name for stage in later for name in stage]
            run.whole = merged(run.whole, (await plan_stage(run.setup, run.store, run.reader, jobs=behind)).plan)
        consent.check_beginning(run.setup, run.reader, run.whole)
        if (reason := consent.begun_beside(run.reader, run.whole)) is not None:
            await run.store.write_doubt(reason)
            planned.warnings += consent.doubts(run.setup, run.reader)
        run.held = consent.held_models(run.setup, run.reader, run.whole.models)
        number = run.setup.flags.pilot
        run.pilot = Pilot(spool, number, run.setup) if number is not None and number < planned.plan.due else None
        with run.signals.asking():
            run.setup = consent.with_consent(run.setup, _asked_first(run), run.confirm)
        if run.setup.flags.ray is None or not run.whole.due:
            return await _carry_out(run, planned, spool)
        from pipeline.app.workers import workers_of  # only here: most runs send from this process

        async with workers_of(run.setup, run.store, spool) as run.workers:
            run.signals.listen()  # Ray took them for itself
            return await _carry_out(run, planned, spool)


def _asked_first(run: ActiveRun) -> Plan:
    """Return the plan of what is asked for without another question: the pilot's tasks, or all."""
    if run.pilot is None:
        return run.whole
    rows = (
        PlanRow(task=due.task, known=None, verdict=Verdict(state=TaskState.PENDING, reason=due.reason))
        for due in run.pilot.tasks
    )
    return tally(rows, quote=consent.prices_of(run.setup, run.reader).quote, problem=lambda _task: None)


async def _carry_out(run: ActiveRun, planned: Planned, spool: Spool) -> events.RunSummary:
    """Write the run down, show it, send what is due, and sum it up."""
    run.wallet = consent.wallet_of(run.setup, run.reader)
    if run.whole.due:
        found = {state.value: number for state, number in run.whole.states.items() if number > 0}
        found["due"] = run.whole.due
        run.number = await run.store.begin_run(manifest_sha256=run.setup.manifest.sha256, found=found)
    else:
        planned.plan = run.whole  # else the stages add theirs when they are reached
    started = _started(run)
    with run.watch(started, run.gauge) as shown:
        run.listen = shown if run.pilot is None else both(run.pilot.listen, shown)
        run.listen(started)
        for text in _warnings(run, planned):
            run.listen(events.Warned(text=text))
        if run.number is not None:
            await _send(run, planned, spool)
        summary = summary_of(run, planned.plan)
        if run.number is not None:
            await run.store.end_run(run.number, exit=summary.exit)
        run.listen(events.RunEnded(summary=summary))
    return summary


def _started(run: ActiveRun) -> events.RunStarted:
    plan, done = _asked_first(run), run.whole.states[TaskState.DONE] - run.whole.missing
    return events.RunStarted(
        run=run.number or 0,
        total=plan.total if run.pilot is None else done + plan.due,
        due=plan.due,
        skipped=done,
        recovered=run.recovery.recovered,
        unknown=run.recovery.unknown,
        unknown_microusd=run.recovery.unknown_microusd,
        at_most_microusd=consent.at_most(run.setup, plan, run.wallet.left_microusd),
        budget_microusd=run.wallet.left_microusd,
        is_play_money=run.setup.is_play_money,
    )


def _warnings(run: ActiveRun, planned: Planned) -> Iterator[str]:
    """Yield what a person should know before anything is sent."""
    manifest, is_rehearsal = run.setup.manifest, run.setup.flags.simulate
    if run.whole.due and run.whole.most.known_price is None:
        yield "the price of some images is not known, so they are counted as $0.00; name it under `prices:`"
    if is_rehearsal and manifest.is_for_bucket:
        yield f"a rehearsal writes to no bucket: its images land in {manifest.output_dir}"
    if is_rehearsal and manifest.notify is not None:
        yield "a rehearsal calls no webhook or ping and writes no metrics file: `notify` is ignored"
    yield from (*planned.warnings, *planned.notes, *planned.plan.notes, *run.recovery.notes)


async def _send(run: ActiveRun, planned: Planned, spool: Spool) -> None:
    """Ask for what is due, the pilot first; `planned` grows by the stages that are reached."""
    from pipeline.app.sending import send  # aiohttp takes 0.3 s to import: not for a run that finds nothing to do

    pilot, stages = run.pilot, _stages(run, planned, spool)
    if pilot is not None:
        stages = pilot_first(pilot, stages, agree=lambda: _agreed(run, planned.plan, pilot))
    await send(run, stages)
    if pilot is not None and not pilot.is_over and not len(run.halts):
        pilot.has_ended_run = True
        run.halt(Halt(Exit.BUDGET, pilot.verdict(run.whole)))
    if run.setup.flags.is_now and run.counts.images and run.halts.not_before is None:  # the hold is over
        provider, key = consent.owner_of(run.setup)
        await run.store.forget_holds(provider=provider, key=key)


async def _stages(run: ActiveRun, planned: Planned, spool: Spool) -> AsyncGenerator[Iterable[Due], None]:
    """Yield the due tasks stage after stage: a job that takes another one's images is planned when those are there.

    What is planned on the way is added to `planned`.
    """
    yield spool
    for names in run.setup.manifest.stages[1:]:
        with closing(Spool(run.setup.manifest.state_dir)) as following:
            more = await plan_stage(run.setup, run.store, run.reader, jobs=names, spool=following)
            planned.plan = merged(planned.plan, more.plan)
            run.listen(events.StagePlanned(total=planned.plan.total, due=planned.plan.due))
            yield following


def _agreed(run: ActiveRun, plan: Plan, pilot: Pilot) -> bool:
    """Ask whether the rest is wanted too: only where there is somebody, and the budgets have room for it."""
    left = run.wallet.left_microusd
    has_room = left is None or left >= pilot.cost_of_rest(plan)
    if run.confirm is None or not has_room or run.signals.exit is not None:
        return False
    with run.signals.asking():
        if not run.confirm(f"{pilot.verdict(plan)}. Go on?"):
            return False
    run.listen(events.StagePlanned(total=plan.total, due=plan.due))
    return True


# -- signals ----------------------------------------------------------------------------------------------------------


NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Turns INT, TERM and HUP into the two stop orders of a run. `exit` is the code of the first signal that came.

    The first signal: nothing new is sent, what is in flight is awaited and saved (TERM and HUP: for `drain_s` at most).
    The second: what has arrived is saved, what is in flight becomes unknown. Before sending begins, the first signal
    stops the run in order and the second at once: nothing was sent, and that work may be killed at any moment. While a
    question is open on the terminal, the first one ends the question. A signal that the parent had ignored (`nohup`, a
    shell's background job) stays ignored.
    """

    def __init__(self, *, drain_s: float | None) -> None:
        """`drain_s` None: the process keeps its signals (a notebook, a service); stops are ordered with `stop`."""
        self._drain_s = drain_s
        self.is_guest = drain_s is None
        former = {number: signal.getsignal(number) or signal.SIG_DFL for number in NUMBERS if drain_s is not None}
        self._former = {number: handler for number, handler in former.items() if handler != signal.SIG_IGN}
        self._loop = asyncio.get_running_loop()
        self._planner: asyncio.Task[object] | None = None
        self.engine: Engine | None = None  # what signals stop from here on
        self.exit: Exit | None = None

    def __enter__(self) -> Self:
        self._planner = asyncio.current_task()
        if self.exit is not None and self._planner is not None:
            self._planner.cancel()
        self.listen()
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._former.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let a signal end what waits for a person, as a CancelledError: the loop does not turn meanwhile."""
        for number in self._former:
            self._loop.remove_signal_handler(number)
            signal.signal(number, self._end_question)
        try:
            yield
        finally:
            self.listen()

    def listen(self) -> None:
        """Take the signals, also from a library that took them for itself."""
        for number in self._former:
            self._loop.add_signal_handler(number, self._on, number)

    def _end_question(self, number: int, _frame: FrameType | None) -> None:
        self.exit = self.exit or _exit_of(number)
        raise asyncio.CancelledError

    def stop(self, exit_code: Exit, reason: str) -> None:
        """Order the first stop, then the second. Planning that was stopped releases the lock in its own time."""
        is_first = self.exit is None
        self.exit = self.exit or exit_code
        if self.engine is not None and is_first:
            self.engine.halt(self.exit, reason)
        elif self.engine is not None:
            self.engine.abandon()
        elif is_first and self._planner is not None:
            self._planner.cancel()
        elif not is_first and self._former:
            os._exit(self.exit)

    def _on(self, number: signal.Signals) -> None:
        is_timed = self.exit is None and self.engine is not None and number != signal.SIGINT
        name = "SIGINT (Ctrl-C)" if number == signal.SIGINT else signal.Signals(number).name
        self.stop(_exit_of(number), name)
        if is_timed and self.engine is not None and self._drain_s is not None:
            self._loop.call_later(self._drain_s, self.engine.abandon)


def _exit_of(number: int) -> Exit:
    return Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED

"""One run: lock, ledger, recovery, plan, consent, sending, and the summary with its one exit code.

Raises InputError (2), StorageError (5), AccountError (7) and TryLater (75) before anything is sent; afterwards every
ending is a RunSummary.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.app.consent import (
    CLOCK_SLACK,
    at_most,
    begun_beside,
    describe_hold,
    doubt,
    doubt_of_today,
    lasting_holds,
    owner_of,
    prices_of,
    void_holds,
    wallet_of,
    with_consent,
)
from pipeline.app.context import Setup
from pipeline.app.locking import open_store
from pipeline.app.notify import Notifier
from pipeline.app.planning import Planned, reading
from pipeline.app.redo import Release, release
from pipeline.app.signals import Signals
from pipeline.app.stages import Pilot, both, pilot_first, plan_stage
from pipeline.app.summary import GaugeOf, SendingOutcome, nothing_done, summary_of
from pipeline.engine.events import Gauge, Halted, Listener, RunEnded, RunStarted, RunSummary, StagePlanned, Warned
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit, ImgpipeError, InputError, Problem, StorageError, TryLater
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
    from pipeline.app.sending import SendingRun
    from pipeline.app.workers import ReadyWorkers


class Watcher(Protocol):
    """Shows a run: called with its start and its gauge, it gives the listener and hides it again at the end."""

    def __call__(self, started: RunStarted, gauge: Callable[[], Gauge]) -> AbstractContextManager[Listener]: ...


@dataclass(slots=True, kw_only=True)
class _Job:
    """What the steps of one run share."""

    setup: Setup
    key: str
    store: Store
    reader: LedgerReader
    signals: Signals
    watch: Watcher
    confirm: Callable[[str], bool] | None
    recovery: Recovery
    whole: Plan = field(default_factory=Plan)  # of all stages, as it was before anything was sent
    pilot: Pilot | None = None
    held: Mapping[str, Hold] = field(default_factory=dict)  # by model
    workers: "ReadyWorkers | None" = None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def until(self) -> float | None:
        """The monotonic moment at which `max_duration` is over."""
        seconds = self.setup.limits.max_duration_s
        return None if seconds is None else self.started_at + seconds


async def run(
    setup: Setup,
    *,
    watch: Watcher,
    confirm: Callable[[str], bool] | None = None,
    retry: Release | None = None,
    lock: StateLock | None = None,
    is_main: bool = True,
) -> RunSummary:
    """Make the images of a manifest that are missing or changed, once, and notify.

    `confirm` None: there is nobody to ask. `retry`: those tasks, and nothing else. `lock`: taken before (`early_lock`).
    `is_main` False: signals are the caller's business; cancelling this coroutine is then the second signal (what has
    arrived is saved, what is in flight becomes unknown).
    """
    notify = None if setup.flags.simulate else setup.manifest.notify  # a rehearsal may be of a stranger's manifest
    notifier = Notifier(notify, manifest=setup.manifest.name, file=str(setup.manifest.path))
    try:
        summary = await _run(setup, notifier, watch=watch, confirm=confirm, retry=retry, lock=lock, is_main=is_main)
    except TryLater:  # nothing is wrong, and another run may be the one to notify of
        raise
    except ImgpipeError as error:
        await notifier.broke_off(error, nothing_done(setup, error.exit_code, str(error)))
        raise
    except Exception as bug:  # seen by the caller, with its traceback
        if is_short_of_memory(bug):
            lack = _lack(setup)
            await notifier.broke_off(lack, nothing_done(setup, lack.exit_code, str(lack)))
            raise lack from bug
        bug.add_note(f"What was paid is kept in {setup.manifest.state_dir}; the same command continues from there.")
        await notifier.broke_off(bug, nothing_done(setup, Exit.BUG, f"{type(bug).__name__}: {bug}"))
        raise
    return await notifier.ended(summary)


def _lack(setup: Setup) -> StorageError:
    return StorageError(
        "this process may not take more memory; lower limits.concurrency (-j), or let it have more. What was paid"
        f" is kept in {setup.manifest.state_dir}, the same command continues from there"
    )


async def _run(
    setup: Setup,
    notifier: Notifier,
    *,
    watch: Watcher,
    confirm: Callable[[str], bool] | None,
    retry: Release | None,
    lock: StateLock | None,
    is_main: bool,
) -> RunSummary:
    key = setup.key()
    _check_directories(setup.manifest.output_dir, setup.manifest.state_dir)
    with Signals(drain_s=setup.flags.drain_s, is_listening=is_main) as signals:
        try:
            async with open_store(setup, lock=lock, check=_check_state) as store:
                await notifier.started()
                recovery = await store.recover()
                await store.maintain(Maintenance.restore)
                with reading(setup) as reader:
                    job = _Job(
                        setup=setup,
                        key=key,
                        store=store,
                        reader=reader,
                        signals=signals,
                        watch=watch,
                        confirm=confirm,
                        recovery=recovery,
                    )
                    summary = await _recovered(job, retry)
                await store.maintain(Maintenance.restore)
                return summary
        except asyncio.CancelledError:
            if signals.exit is None:
                raise
            return nothing_done(setup, signals.exit)


async def _recovered(job: _Job, retry: Release | None) -> RunSummary:
    """Go on when the ledger says what earlier runs did: forget void holds, make due what `retry` asks for, plan."""
    voided = tuple(void_holds(job.reader))
    job.recovery.notes += voided
    await job.store.forget_void_holds(later=datetime.now(UTC) + CLOCK_SLACK)
    if retry is not None:
        job.setup = await release(job.setup, job.store, job.reader, retry)
    summary = await _plan_and_go(job)
    return replace(summary, cautions=(*voided, *summary.cautions))


# -- before anything is sent --------------------------------------------------------------------------------------


def _check_directories(output_dir: Path | BucketUrl, state_dir: Path) -> None:
    """Make both where they are not there; what lies in the state directory is nobody else's business."""
    folders = ((folder, mode) for folder, mode in ((output_dir, 0o777), (state_dir, 0o700)) if isinstance(folder, Path))
    for folder, mode in folders:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode, exist_ok=True)
        except OSError as error:
            problem = Problem(what=f"{folder} cannot be made ({error.strerror})", instead="choose another output_dir")
            raise InputError(problem) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(Problem(what=f"{folder} cannot be written to", instead="fix its permissions"))


def _check_state(setup: Setup) -> None:
    """Refuse where only the ledger of earlier runs is missing."""
    manifest = setup.manifest
    if isinstance(manifest.output_dir, BucketUrl):
        return  # an image there becomes a conflict
    with reading(setup) as reader:
        traces = find_traces(manifest.output_dir, manifest.state_dir, most=3) if reader.is_missing else []
    if traces:
        raise InputError(
            Problem(
                what=f"files of earlier runs exist, but their ledger does not: {', '.join(traces)}",
                instead=f"make it anew with: imgpipe rebuild {setup.command}",
            )
        )


def _held(setup: Setup, reader: LedgerReader, models: Collection[str]) -> Mapping[str, Hold]:
    """Return the holds that last, by model. Raises TryLater when they leave nothing to send."""
    held = {} if setup.flags.is_now else lasting_holds(setup, reader)
    if held and models and ("" in held or held.keys() >= set(models)):
        hold = max(held.values(), key=lambda hold: hold.not_before)
        instead = f"`imgpipe run {setup.command_of_selection} --now` sends all the same"
        raise TryLater(f"{describe_hold(hold)}; nothing was sent. {instead}", not_before=hold.not_before)
    return held


async def _after_holds(job: _Job, outcome: SendingOutcome) -> None:
    """Forget a hold that `--now` has shown to be over."""
    if job.setup.flags.is_now and outcome.counts.images and outcome.halts.not_before is None:
        owner = owner_of(job.setup)
        await job.store.forget_holds(provider=owner.provider, key=owner.key or "")


# -- the run ------------------------------------------------------------------------------------------------------


async def _plan_and_go(job: _Job) -> RunSummary:
    """Plan every stage, ask for consent, and send."""
    first, *later = job.setup.manifest.stages
    with closing(Spool(job.setup.manifest.state_dir)) as spool:
        planned = await plan_stage(job.setup, job.store, job.reader, jobs=first if later else None, spool=spool)
        job.whole = planned.plan
        if later:
            behind = [name for stage in later for name in stage]
            job.whole = merged(job.whole, (await plan_stage(job.setup, job.store, job.reader, jobs=behind)).plan)
        if (reason := begun_beside(job.reader, job.whole)) is not None:
            await job.store.write_doubt(reason)
            planned.warnings += [text for text in [doubt(job.setup, job.reader)] if text is not None]
        job.held = _held(job.setup, job.reader, job.whole.models)
        number = job.setup.flags.pilot
        job.pilot = Pilot(spool, number) if number is not None and number < planned.plan.due else None
        with job.signals.asking():
            job.setup = with_consent(job.setup, _asked_first(job), job.confirm)
        if job.setup.flags.ray is None or not job.whole.due:
            return await _go(job, planned, spool)
        from pipeline.app.workers import workers_of  # only here: most runs send from this process

        async with workers_of(job.setup, job.store, spool) as job.workers:
            job.signals.renew()
            return await _go(job, planned, spool)


def _unpriced(plan: Plan) -> Iterator[str]:
    """Say that money is spent which nobody counts."""
    if plan.due and plan.most_microusd is None:
        yield "the price of some images is not known, so they are counted as $0.00; name it under `prices:`"


def _untold(setup: Setup) -> Iterator[str]:
    """Say that a rehearsal leaves `notify` alone."""
    if setup.flags.simulate and setup.manifest.is_for_bucket:
        yield f"a rehearsal writes to no bucket: its images land in {setup.manifest.output_dir}"
    if setup.flags.simulate and setup.manifest.notify is not None:
        yield "a rehearsal calls no webhook or ping and writes no metrics file: `notify` is ignored"


def _asked_first(job: _Job) -> Plan:
    """Return the plan of what is asked for without another question: the pilot's tasks, or all."""
    if job.pilot is None:
        return job.whole
    rows = (
        PlanRow(task=due.task, known=None, verdict=Verdict(state=TaskState.PENDING, reason=due.reason))
        for due in job.pilot.tasks
    )
    return tally(rows, quote=prices_of(job.setup, job.reader).quote, problem=lambda _task: None)


async def _go(job: _Job, planned: Planned, spool: Spool) -> RunSummary:
    setup, whole, pilot = job.setup, job.whole, job.pilot
    wallet = wallet_of(setup, job.reader)
    number = None
    if whole.due:
        number = await job.store.begin_run(manifest_sha256=setup.manifest.sha256, found=_found(whole))
    else:
        planned.plan = whole  # else the stages add theirs when they are reached
    started = _started(job, wallet, number)
    view = GaugeOf(wallet, concurrency=setup.limits.concurrency)
    outcome = SendingOutcome()
    with job.watch(started, view) as shown:
        listen = shown if pilot is None else both(pilot.listen, shown)
        listen(started)
        for text in _warnings(job, planned):
            listen(Warned(text=text))
        if number is not None:
            sending = _sending_run(job, run=number, wallet=wallet, view=view, listen=listen)
            outcome = await _send(job, planned, spool, sending)
        summary = summary_of(
            planned.plan,
            outcome,
            wallet,
            run=number,
            signalled=job.signals.exit,
            seconds=time.monotonic() - job.started_at,
            is_play_money=setup.is_play_money,
        )
        is_pilot = pilot is not None and pilot.has_ended_run and summary.exit is Exit.BUDGET
        summary = replace(summary, is_pilot=is_pilot, cautions=doubt_of_today(setup, job.reader))
        if number is not None:
            await job.store.end_run(number, exit=summary.exit)
        listen(RunEnded(summary=summary))
    return summary


def _warnings(job: _Job, planned: Planned) -> Iterator[str]:
    """Yield what a person should know before anything is sent."""
    yield from _unpriced(job.whole)
    yield from _untold(job.setup)
    yield from planned.warnings
    yield from planned.notes
    yield from planned.plan.notes
    yield from job.recovery.notes


async def _send(job: _Job, planned: Planned, spool: Spool, sending: "SendingRun") -> SendingOutcome:
    """Ask for what is due, the pilot first; `planned` grows by the stages that are reached."""
    pilot, stages = job.pilot, _stages(job, planned, spool, sending.listen)
    if pilot is not None:
        stages = pilot_first(pilot, stages, agree=lambda: _agreed(job, planned.plan, pilot, sending))
    outcome = await sending.work(stages)
    if pilot is not None and not pilot.is_over and not len(outcome.halts):
        pilot.has_ended_run = True
        halt = pilot.halt(job.whole, job.setup.limits, is_play_money=job.setup.is_play_money)
        outcome.halts.add(halt)
        sending.listen(Halted(exit=halt.exit, reason=halt.reason))
    await _after_holds(job, outcome)
    return outcome


def _found(plan: Plan) -> dict[str, int]:
    return {"due": plan.due, **{state.value: number for state, number in plan.states.items() if number > 0}}


def _started(job: _Job, wallet: Wallet, number: int | None) -> RunStarted:
    plan, done = _asked_first(job), job.whole.states[TaskState.DONE] - job.whole.missing
    return RunStarted(
        run=number or 0,
        total=plan.total if job.pilot is None else done + plan.due,
        due=plan.due,
        skipped=done,
        recovered=job.recovery.recovered,
        unknown=job.recovery.unknown,
        unknown_microusd=job.recovery.unknown_microusd,
        at_most_microusd=at_most(job.setup, plan, wallet.left_microusd),
        budget_microusd=wallet.left_microusd,
        is_play_money=job.setup.is_play_money,
    )


def _agreed(job: _Job, plan: Plan, pilot: Pilot, sending: "SendingRun") -> bool:
    """Ask whether the rest is wanted too: only where there is somebody, and the budgets have room for it."""
    left = sending.wallet.left_microusd
    has_room = left is None or left >= pilot.cost_of_rest(plan)
    if job.confirm is None or not has_room or job.signals.exit is not None:
        return False
    with job.signals.asking():
        text = pilot.verdict(plan, job.setup.limits, is_play_money=job.setup.is_play_money)
        if not job.confirm(f"{text}. Go on?"):
            return False
    sending.listen(StagePlanned(total=plan.total, due=plan.due))
    return True


async def _stages(job: _Job, planned: Planned, spool: Spool, listen: Listener) -> AsyncGenerator[Iterable[Due], None]:
    """Yield the due tasks stage after stage: a job that takes another one's images is planned when those are there.

    What is planned on the way is added to `planned`.
    """
    yield spool
    for names in job.setup.manifest.stages[1:]:
        with closing(Spool(job.setup.manifest.state_dir)) as following:
            more = await plan_stage(job.setup, job.store, job.reader, jobs=names, spool=following)
            planned.plan = merged(planned.plan, more.plan)
            listen(StagePlanned(total=planned.plan.total, due=planned.plan.due))
            yield following


def _sending_run(job: _Job, *, run: int, wallet: Wallet, view: GaugeOf, listen: Listener) -> "SendingRun":
    from pipeline.app.sending import SendingRun  # aiohttp takes 0.3 s to import: not for a run that finds nothing to do
    from pipeline.senders.checker import REMEMBERED

    return SendingRun(
        setup=job.setup,
        key=job.key,
        store=job.store,
        wallet=wallet,
        run=run,
        listen=listen,
        attend=job.signals.attend,
        prices=prices_of(job.setup, job.reader),
        view=view,
        until=job.until,
        looks=partial(job.reader.looks, most=REMEMBERED),
        held=job.held.keys(),
        workers=job.workers,
    )

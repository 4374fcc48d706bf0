"""Shows the state of a run at any moment, and sums it up at its end: counts, money, and the one exit code.

Imported by every run; what sends is not, for one that finds nothing to do.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.app.context import Setup
from pipeline.engine.events import Counts, Gauge, RunSummary, Workers
from pipeline.engine.halt import Halts
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit, most_severe
from pipeline.model import TaskState
from pipeline.plan.plan import Plan
from pipeline.text import count, moment


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingOutcome:
    """What the requests of a run brought, and why it stopped early."""

    counts: Counts = field(default_factory=Counts)
    halts: Halts = field(default_factory=Halts)
    workers: Callable[[], Workers | None] = lambda: None


class Gauged(Protocol):
    """Something with a gauge: the engine."""

    def gauge(self) -> Gauge: ...


class GaugeOf:
    """The state of a run at this moment; before the engine stands, only its money."""

    def __init__(self, wallet: Wallet, *, concurrency: int) -> None:
        self._wallet = wallet
        self._concurrency = concurrency
        self.engine: Gauged | None = None
        self.workers: Callable[[], Workers | None] = lambda: None

    def __call__(self) -> Gauge:
        if self.engine is not None:
            return replace(self.engine.gauge(), workers=self.workers())
        return Gauge(
            in_flight=0,
            limit=0,
            concurrency=self._concurrency,
            spent_microusd=0,
            unknown_microusd=0,
            reserved_microusd=0,
            budget_left_microusd=self._wallet.left_microusd,
            pause_reason=None,
            pause_left_s=0.0,
        )


def summary_of(
    plan: Plan,
    outcome: SendingOutcome,
    wallet: Wallet,
    *,
    run: int | None,
    signalled: Exit | None,
    seconds: float,
    is_play_money: bool,
) -> RunSummary:
    """Sum up one run: what it did, what was so before it, and the most severe of all exit codes."""
    counts, halts, states = outcome.counts, outcome.halts, outcome.counts.states
    both = plan.states + Counter(states)
    summary = RunSummary(
        run=run,
        exit=Exit.OK,
        total=plan.total,
        done=states[TaskState.DONE],
        skipped=plan.states[TaskState.DONE],
        failed=both[TaskState.FAILED],
        refused=both[TaskState.REFUSED] - plan.given_up,
        unknown=both[TaskState.UNKNOWN],
        pending=both[TaskState.PENDING] + max(0, plan.due - sum(states.values())),
        conflict=both[TaskState.CONFLICT],
        missing=plan.missing,
        attempts=counts.attempts,
        images=counts.images,
        bytes=counts.bytes,
        seconds=seconds,
        spent_microusd=wallet.spent_microusd,
        unknown_microusd=wallet.unknown_microusd,
        overrun_microusd=wallet.overrun_microusd,
        exceeded=wallet.exceeded,
        budget_left_microusd=wallet.left_microusd,
        not_before=None if halts.not_before is None else moment(halts.not_before),
        is_play_money=is_play_money,
        reasons=(*_barred(plan, counts), *(halts.reasons or _trouble(counts))),
        workers=outcome.workers(),
    )
    return replace(summary, exit=most_severe([halts.exit, *_exits(summary, plan, outcome, signalled)]))


def _exits(summary: RunSummary, plan: Plan, outcome: SendingOutcome, signalled: Exit | None) -> Iterator[Exit]:
    if signalled is not None:
        yield signalled
    if summary.failed or summary.refused or summary.unknown or summary.conflict or summary.missing:
        yield Exit.SOME_FAILED
    if plan.barriers or outcome.counts.closed:
        yield Exit.STORAGE
    if summary.pending and not len(outcome.halts):
        yield Exit.TRY_LATER


def _trouble(counts: Counts) -> Iterator[str]:
    if counts.trouble:
        yield f"no more repeats in this run; seen last: {counts.trouble}"


def _barred(plan: Plan, counts: Counts) -> Iterator[str]:
    for barrier, number in plan.barriers.items():
        yield f"{barrier}: {count(number, 'task')} waited, and nothing was sent for them; fix its owner or permissions"
    for folder, number in counts.closed.items():
        yield (
            f"the folder {folder} cannot be written to since this run began: {count(number, 'task')} waited, images"
            " that were in flight are kept and published by the next run without a request; fix its owner or"
            " permissions"
        )


def nothing_done(setup: Setup, exit_code: Exit, reason: str = "stopped before anything was sent") -> RunSummary:
    """Return the summary of a run that a signal or an error ended before it could say more."""
    return RunSummary(
        run=None,
        exit=exit_code,
        budget_left_microusd=setup.limits.budget.run,
        is_play_money=setup.is_play_money,
        reasons=(reason,),
    )

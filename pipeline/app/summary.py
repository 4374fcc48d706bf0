"""Sums up a run at its end: counts, money, and the one exit code.

Imported by every run; what sends is not, for one that finds nothing to do.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.app.consent import doubts
from pipeline.app.context import Setup
from pipeline.engine.events import Counts, RunSummary
from pipeline.errors import Exit, most_severe
from pipeline.model import TaskState
from pipeline.plan.plan import Plan
from pipeline.text import count, moment

if TYPE_CHECKING:
    from pipeline.app.run import ActiveRun


def summary_of(run: "ActiveRun", plan: Plan) -> RunSummary:
    """Sum up one run: what it did, what was so before it, and the most severe of all exit codes."""
    counts, halts, wallet, states = run.counts, run.halts, run.wallet, run.counts.states
    both = plan.states + Counter(states)
    trouble = [f"no more repeats in this run; seen last: {counts.trouble}"] if counts.trouble else []
    summary = RunSummary(
        run=run.number,
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
        flags=counts.flags,
        seconds=time.monotonic() - run.started_at,
        spent_microusd=wallet.spent_microusd,
        unknown_microusd=wallet.unknown_microusd,
        overrun_microusd=wallet.overrun_microusd,
        exceeded=wallet.exceeded,
        budget_left_microusd=wallet.left_microusd,
        not_before=None if halts.not_before is None else moment(halts.not_before),
        is_play_money=run.setup.is_play_money,
        reasons=(*_barred(plan, counts), *(halts.reasons or trouble)),
        workers=run.worker_counts(),
        cautions=tuple(doubts(run.setup, run.reader, is_today=True)),
    )
    code = most_severe([halts.exit, *_exits(summary, plan, run)])
    is_pilot = run.pilot is not None and run.pilot.has_ended_run and code is Exit.BUDGET
    return replace(summary, exit=code, is_pilot=is_pilot)


def _exits(summary: RunSummary, plan: Plan, run: "ActiveRun") -> Iterator[Exit]:
    if run.signals.exit is not None:
        yield run.signals.exit
    if summary.failed or summary.refused or summary.unknown or summary.conflict or summary.missing:
        yield Exit.SOME_FAILED
    if plan.barriers or run.counts.closed:
        yield Exit.STORAGE
    if summary.pending and not len(run.halts):
        yield Exit.TRY_LATER


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

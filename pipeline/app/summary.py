"""Sums up a run from its plan, its outcome and its wallet: counts, money, and the one exit code."""

from collections.abc import Iterator

from pipeline.app.context import Setup
from pipeline.app.sending import SendingOutcome
from pipeline.engine.events import RunSummary
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit, most_severe
from pipeline.model import TaskState
from pipeline.plan.plan import Plan
from pipeline.text import count, moment


def summary_of(
    plan: Plan,
    outcome: SendingOutcome,
    wallet: Wallet,
    *,
    run: int | None,
    signalled: Exit | None,
    seconds: float,
    is_play_money: bool,
    cautions: tuple[str, ...] = (),
) -> RunSummary:
    """Sum up one run: what it did, what was so before it, and the most severe of all exit codes."""
    states = outcome.counts.states
    asked = sum(states.values())
    pending = states[TaskState.PENDING] + max(0, plan.due - asked) + plan.states[TaskState.PENDING]
    failed = states[TaskState.FAILED] + plan.states[TaskState.FAILED]
    refused = states[TaskState.REFUSED] + plan.states[TaskState.REFUSED] - plan.given_up
    unknown = states[TaskState.UNKNOWN] + plan.states[TaskState.UNKNOWN]
    conflict = states[TaskState.CONFLICT] + plan.states[TaskState.CONFLICT]
    exits = [outcome.halts.exit]
    if signalled is not None:
        exits.append(signalled)
    if failed or refused or unknown or conflict or plan.missing:
        exits.append(Exit.SOME_FAILED)
    if plan.barriers or outcome.counts.closed:
        exits.append(Exit.STORAGE)
    if pending and not len(outcome.halts):
        exits.append(Exit.TRY_LATER)
    not_before = outcome.halts.not_before
    trouble = [f"no more repeats in this run; seen last: {outcome.counts.trouble}"] if outcome.counts.trouble else []
    return RunSummary(
        run=run,
        exit=most_severe(exits),
        total=plan.total,
        done=states[TaskState.DONE],
        skipped=plan.states[TaskState.DONE],
        failed=failed,
        refused=refused,
        unknown=unknown,
        pending=pending,
        conflict=conflict,
        missing=plan.missing,
        attempts=outcome.counts.attempts,
        images=outcome.counts.images,
        bytes=outcome.counts.bytes,
        seconds=seconds,
        spent_microusd=wallet.spent_microusd,
        unknown_microusd=wallet.unknown_microusd,
        overrun_microusd=wallet.overrun_microusd,
        exceeded=wallet.exceeded,
        budget_left_microusd=wallet.left_microusd,
        not_before=moment(not_before) if not_before else None,
        is_play_money=is_play_money,
        reasons=(*_barred(plan, outcome), *(outcome.halts.reasons or trouble)),
        workers=outcome.workers(),
        cautions=cautions,
    )


def _barred(plan: Plan, outcome: SendingOutcome) -> Iterator[str]:
    for barrier, number in plan.barriers.items():
        yield f"{barrier}: {count(number, 'task')} waited, and nothing was sent for them; fix its owner or permissions"
    for folder, number in outcome.counts.closed.items():
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

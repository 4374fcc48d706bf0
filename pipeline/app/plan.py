"""Builds the plan of `imgpipe plan`: what a run would buy, why, for how much, how long it takes, and warnings.

Reads manifest, ledger and files; never locks, never sends, changes nothing.
"""

from collections.abc import Iterator
from typing import Final

from pipeline.app.consent import (
    at_most,
    begun_beside,
    check_beginning,
    describe_hold,
    lasting_holds,
    prices_of,
    void_holds,
    wallet_of,
)
from pipeline.app.context import Setup, of_host
from pipeline.app.orphans import behind
from pipeline.app.planning import Planned, make_plan, reading, rehearsed
from pipeline.model import Aspect, BucketUrl, TaskState
from pipeline.plan.decide import MISSING, NEW, RETRY, FileView
from pipeline.plan.plan import Group, Plan
from pipeline.store.reader import LedgerReader
from pipeline.text import count, duration, money
from pipeline.view.plan import Forecast, PlanBill, PlanLine


def plan(setup: Setup) -> Planned:
    """Plan everything that is selected, for `validate`: a bucket that images go to is not asked for any.

    Raises InputError for a bad manifest, input or name.
    """
    with reading(setup) as reader:
        is_bucket = isinstance(setup.manifest.output_dir, BucketUrl)
        return make_plan(setup, reader, files=FileView() if is_bucket else None)


FEWEST: Final = 5  # images of a run, below which its pace says nothing


def bill(setup: Setup) -> PlanBill:
    """Return what a run of the selected tasks would do. Raises InputError for a bad manifest, input or name."""
    with reading(setup) as reader:
        planned = make_plan(setup, reader)
        plan = planned.plan
        check_beginning(setup, reader, plan)
        left = wallet_of(setup, reader).left_microusd
        forecast = _forecast(setup, reader, plan.due)
        return PlanBill(
            lines=list(_lines(setup, planned)),
            min_microusd=plan.least.known_price,
            max_microusd=min((each for each in (plan.most.known_price, left) if each is not None), default=None),
            repeats_microusd=at_most(setup, plan, left),
            alike=plan.alike.tasks,
            alike_microusd=plan.alike.known_price,
            is_play_money=setup.is_play_money,
            forecast=forecast,
            samples=plan.samples,
            notes=(
                *planned.warnings,
                *_doubtful(setup, reader, plan),
                *_ends(setup, reader, plan, left=left, forecast=forecast),
                *planned.notes,
                *_following(setup, reader, planned),
                *_left_alone(setup, plan),
                *_changed(setup, plan),
                *plan.notes,
            ),
        )


def _lines(setup: Setup, planned: Planned) -> Iterator[PlanLine]:
    for key, group in planned.plan.groups.items():
        price = group.known_price if key.is_due else 0
        yield PlanLine(job=key.job, reason=key.why, tasks=group.tasks, is_due=key.is_due, price_microusd=price)
    if setup.flags.selection.is_everything:
        for job, number in planned.orphans.items():
            yield PlanLine(job=job, reason="orphaned", tasks=number, is_due=False)


def _forecast(setup: Setup, reader: LedgerReader, due: int) -> Forecast | None:
    """Say how long the due tasks take, from the last run or from the manifest's own limit."""
    rate = setup.limits.requests_per_minute
    fastest = due * 60 / rate if rate else 0.0
    pace = reader.pace(fewest=FEWEST)
    if not due or (pace is None and not rate):
        return None
    if pace is None:
        return Forecast(seconds=fastest, is_least=True, basis=f"at {rate:g} requests a minute")
    return Forecast(seconds=max(due / pace, fastest), basis="at the pace of the last run")


def _following(setup: Setup, reader: LedgerReader, planned: Planned) -> Iterator[str]:
    """Say which tasks follow from images that are made first, and at which price where that is known.

    It is where all tasks are selected and no image is replaced: what was made from one may be due again, or not.
    """
    quote, upstream = prices_of(setup, reader).quote, setup.manifest.upstream
    replaced = {key.job for key in planned.plan.groups if key.is_due and key.why not in (NEW, RETRY)}
    unsure = replaced.union(behind(upstream, replaced))
    for job in planned.behind:
        group, what = Group(), "more tasks follow"
        is_known = setup.flags.selection.is_everything and job not in unsure
        for task in rehearsed(setup.manifest, jobs=[job]) if is_known else ():
            known, price = reader.known(task.id), quote(task)
            if known is None or known.state is not TaskState.DONE:
                group.add(None if price is None else price.least)
        counted = planned.plan.due_of(job)
        group = Group(group.tasks - counted.tasks, group.price_microusd - counted.price_microusd, group.unpriced)
        if group.tasks > 0 and group.price_microusd >= 0:
            follow = "follows" if group.tasks == 1 else "follow"
            what = f"{count(group.tasks, 'more task')}, {_price(setup, group)}, {follow}"
        yield f"{job}: {what} from images that are made first; not in this plan yet"


# -- what a person should know ------------------------------------------------------------------------------------


def _doubtful(setup: Setup, reader: LedgerReader, plan: Plan) -> Iterator[str]:
    """Say what a gateway bills of list prices (those in a manifest are none), and that a purchase may be unrecorded."""
    is_known = not setup.is_play_money and of_host(setup.provider) is None
    ratio = setup.catalogue.ratio(setup.provider.kind) if is_known else 1.0
    if ratio < 1 and plan.least.known_price and not setup.manifest.prices:
        least = money(round(plan.least.known_price * ratio), setup.is_play_money)
        yield f"list prices; {setup.provider.kind} is known to bill {ratio:g} of them, {least} for the pixels"
    if (reason := begun_beside(reader, plan)) is not None:
        yield f"more may have been spent than is known here: {reason}"


def _ends(
    setup: Setup, reader: LedgerReader, plan: Plan, *, left: int | None, forecast: Forecast | None
) -> Iterator[str]:
    """Say what keeps the run from beginning, or ends it before everything that is due is done."""
    for hold in lasting_holds(setup, reader).values():
        yield f"{describe_hold(hold)}; a run before that ends with exit code 75 (`run --now` sends anyway)"
    yield from void_holds(reader)
    limits, price = setup.limits, plan.most.known_price
    if left is not None and price is not None and price > left:
        yield f"the budgets leave {money(max(0, left), setup.is_play_money)}; what they do not pay for stays pending"
    if limits.max_tasks is not None and plan.due > limits.max_tasks:
        yield f"limits.max_tasks is {limits.max_tasks:,}; the rest stays pending"
    if limits.max_duration_s is not None and forecast is not None and forecast.seconds > limits.max_duration_s:
        yield f"the run ends after {duration(limits.max_duration_s)} (max_duration); the rest stays pending"


def _left_alone(setup: Setup, plan: Plan) -> Iterator[str]:
    """Say what is wrong and not due, and which command would pay for it."""
    file = setup.command_of_selection
    missing = plan.sum_of(MISSING)
    if missing.tasks:
        what = f"{count(missing.tasks, 'image')} missing or changed since; put them back"
        again = (
            f"buy them again, {_price(setup, missing)}: imgpipe run {file} --repair (changed ones: --repair --force)"
        )
        yield f"{what}, accept that (imgpipe run {file} --accept edited,absent), or {again}"
    states = [state for state in ("failed", "refused", "unknown") if plan.sum_of(state).tasks]
    if states:
        group = plan.sum_of(*states)
        what = f"{count(group.tasks, 'task')} {' or '.join(states)} before, not due"
        flags = " ".join(f"--{state}" for state in states)
        yield f"{what}; to retry, {_price(setup, group)}: imgpipe retry {file} {flags}"


def _changed(setup: Setup, plan: Plan) -> Iterator[str]:
    """Say what is bought again, what checks may cost and found fault with, and what a run does without a request."""
    due = {key.why for key in plan.groups if key.is_due}
    changed = [each for each in Aspect if f"{each} changed" in due]
    if changed:
        behind_first = list(Aspect)[list(Aspect).index(changed[0]) :]  # a task shows the first of its changes only
        accept = f"imgpipe run {setup.command_of_selection} --accept {','.join(behind_first)}"
        yield f"{' and '.join(changed)} changed: images made before are replaced; to keep them instead: {accept}"
    if plan.redos.tasks:
        price = _price(setup, plan.redos).replace("for ", "for at most ")
        yield f"checks may also redo {count(plan.redos.tasks, 'image')}, {price}"
    if plan.flagged.tasks:
        redo = f"imgpipe redo {setup.command} --flagged"
        yield f"{count(plan.flagged.tasks, 'image')} flagged; to replace, {_price(setup, plan.flagged)}: {redo}"
    if plan.moves:
        yield f"{count(plan.moves, 'image')}: a new name or id, no request"
    if plan.accepted:
        yield f"{count(plan.accepted, 'image')}: taken as good for what is asked now, no request"


def _price(setup: Setup, group: Group) -> str:
    price = group.known_price
    return "at an unknown price" if price is None else f"for {money(price, setup.is_play_money)}"

"""Says what may be sent now: the price of a plan against the budgets, a person's consent above $5, and holds.

A hold is a delay that the provider named. It binds the provider, the key and the model of the request that was refused:
another key or another model may send. Everything here reads the ledger, and may ask one question on a terminal.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipeline.app.context import Setup
from pipeline.app.orphans import behind
from pipeline.engine.wallet import Wallet
from pipeline.errors import ImgpipeError, InputError, TryLater
from pipeline.model import TaskState
from pipeline.plan.plan import Plan
from pipeline.provider.catalogue import PriceList
from pipeline.settings import day_of, month_of, zone_of
from pipeline.store.reader import LedgerReader
from pipeline.store.rows import Hold
from pipeline.text import count, moment, money, usd

CONSENT_MICROUSD: Final = 5_000_000  # spending above it in one run wants a yes, or a budget
CLOCK_SLACK: Final = timedelta(minutes=5)  # by which a clock may be set back between runs without a word
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
NAMED: Final = 5  # files that are in the way
DEAREST_MICROUSD: Final = 300_000  # of one image whose price is not known: the dearest reservation of the catalogue
REMEMBERED: Final = timedelta(days=30)  # how long what an answer cost raises what is reserved


def prices_of(setup: Setup, reader: LedgerReader) -> PriceList:
    """Return what attempts cost, by the catalogue, the manifest's `prices:` and what answers did cost of late."""
    return PriceList(setup.catalogue, reader.dearest(since=datetime.now(UTC) - REMEMBERED))


def wallet_of(setup: Setup, reader: LedgerReader) -> Wallet:
    """Return what may be spent now: the budgets, less what this day and this month have seen."""
    return Wallet(setup.limits.budget, tz=setup.limits.tz, spent=reader.spend)


def doubts(setup: Setup, reader: LedgerReader, *, is_today: bool = False) -> Iterator[str]:
    """Say why more of this month's money may be gone than counts now; `is_today`: of today's, for a quiet run."""
    span, name = (day_of, "today") if is_today else (month_of, "this month")
    found = reader.doubt(span(datetime.now(UTC), zone_of(setup.limits.tz)).start)
    if found is not None:
        at, why = found
        yield (
            f"more may have been spent {name} than is known here: on {at:%Y-%m-%d}, {why}; compare with the provider's"
            " account before you trust a budget for the day or the month"
        )
    later = reader.spend(datetime.now(UTC) + CLOCK_SLACK)  # dated later than now: no budget of today counts it
    if microusd := later.spent_microusd + later.unknown_microusd:
        yield (
            f"{money(microusd, setup.is_play_money)} in the ledger is dated later than now and counts for no budget"
            " now: the clock was ahead when it was written, or is behind now; check it before you trust a budget for"
            " the day"
        )


def begun_beside(reader: LedgerReader, plan: Plan) -> str | None:
    """Say that files of tasks existed before the ledger: they may be paid images, and when and how much is unknown."""
    number = plan.states[TaskState.CONFLICT]
    if not number or reader.has_attempts or reader.doubt(BEGINNING) is not None:
        return None
    return f"{count(number, 'file')} under the names of tasks existed before the ledger, without a recorded purchase"


def check_beginning(setup: Setup, reader: LedgerReader, plan: Plan) -> None:
    """Refuse a folder with files of tasks and no request on record: what was paid and bought there is not known.

    In a bucket they are conflicts, and a doubt is written down. Raises InputError.
    """
    if isinstance(setup.manifest.output_dir, Path) and begun_beside(reader, plan) is not None:
        number = plan.states[TaskState.CONFLICT]
        raise InputError(
            f"files exist under the names of {count(number, 'task')}, and no purchase is on record; if a ledger was"
            f" lost: imgpipe rebuild {setup.command}; else move the files, change `output`, or --exclude the tasks",
            *plan.notes[:NAMED],
        )


def at_most(setup: Setup, plan: Plan, left_microusd: int | None) -> int | None:
    """Return the most a run may cost: every task asked as often as `retry.attempts` and its checks allow.

    Where other jobs follow, only what is left of the budgets is known. None: nothing bounds it.
    """
    if plan.most.known_price is None or jobs_behind(setup, plan):
        return left_microusd
    most = (plan.most.known_price + plan.redos.price_microusd) * setup.manifest.retry.attempts
    return most if left_microusd is None else min(most, left_microusd)


def jobs_behind(setup: Setup, plan: Plan) -> tuple[str, ...]:
    """Return the jobs whose rows follow from images that `plan` would make first, and which it does not count."""
    return tuple(behind(setup.manifest.upstream, {key.job for key in plan.groups if key.is_due}))


def with_consent(setup: Setup, plan: Plan, confirm: Callable[[str], bool] | None) -> Setup:
    """Return `setup` if its cost is agreed to; raise InputError with the remedy if not.

    Nobody agreed to anything below the threshold either: without a yes or a budget the threshold itself is the
    run's ceiling, so that repeats cannot carry a small run over it. A yes to a plan that other jobs follow from is one
    to every repeat of that plan: what follows was not in the question, and asks again when that is spent.
    """
    limits, budget = setup.limits, setup.limits.budget
    is_bounded = any(ceiling is not None for ceiling in (budget.run, budget.day, budget.month))
    if setup.is_play_money or setup.flags.is_yes or is_bounded or not plan.due:
        return setup
    price = plan.most.known_price
    expected = plan.due * DEAREST_MICROUSD if price is None else price
    if expected > CONSENT_MICROUSD:
        question = _question(plan)
        if confirm is None:
            raise InputError(f"{question}; confirm with --yes, or set a budget with --budget USD or limits.budget")
        if not confirm(f"{question}. Go on?"):
            raise InputError("not confirmed; nothing was sent")
        if not jobs_behind(setup, plan):
            return setup
    if price is None:
        return setup
    ceiling = CONSENT_MICROUSD if price <= CONSENT_MICROUSD else price * setup.manifest.retry.attempts
    return replace(setup, limits=replace(limits, budget=replace(budget, run=ceiling)))


def _question(plan: Plan) -> str:
    if plan.least.known_price is None or plan.most.known_price is None:
        return f"{plan.due:,} images of a model whose price is not known"
    least, most = usd(plan.least.known_price), usd(plan.most.known_price)
    price = f"${least:,.2f}" if f"{least:,.2f}" == f"{most:,.2f}" else f"${least:,.2f} to ${most:,.2f}"
    return f"{plan.due:,} images for {price} or more"


# -- holds ------------------------------------------------------------------------------------------------------------


def owner_of(setup: Setup) -> tuple[str, str]:
    """Return whose requests the holds of this run bind: the provider, and a digest that does not give the key away.

    The digest is empty where no key is set: the holds of all keys are meant.
    """
    address = setup.provider.base_url
    provider = setup.provider.kind.value if address is None else f"{setup.provider.kind}:{urlsplit(address).netloc}"
    try:
        return provider, hashlib.sha256(f"{provider}\0{setup.key()}".encode()).hexdigest()[:8]
    except ImgpipeError:
        return provider, ""


def lasting_holds(setup: Setup, reader: LedgerReader, *, now: datetime | None = None) -> Mapping[str, Hold]:
    """Return the holds that bind this provider and key now, by model; "" is every model."""
    now, (provider, key) = now or datetime.now(UTC), owner_of(setup)
    return {
        hold.model: hold
        for hold in reader.holds()
        if hold.provider in ("", provider)
        and (not hold.key or key in ("", hold.key))
        and hold.set_at <= now + CLOCK_SLACK
        and now < hold.not_before
    }


def held_models(setup: Setup, reader: LedgerReader, models: Collection[str]) -> Mapping[str, Hold]:
    """Return the holds that last, by model. Raises TryLater when they leave nothing to send."""
    held = {} if setup.flags.is_now else lasting_holds(setup, reader)
    if held and models and ("" in held or held.keys() >= set(models)):
        hold = max(held.values(), key=lambda hold: hold.not_before)
        instead = f"`imgpipe run {setup.command_of_selection} --now` sends anyway"
        raise TryLater(f"{describe_hold(hold)}; nothing was sent. {instead}", not_before=hold.not_before)
    return held


def void_holds(reader: LedgerReader, *, now: datetime | None = None) -> Iterator[str]:
    """Say which holds were dated by a clock that was ahead, so that their end is not known."""
    now = now or datetime.now(UTC)
    for hold in reader.holds():
        if hold.set_at > now + CLOCK_SLACK:
            yield (
                f"a hold until {moment(hold.not_before)} does not count: the clock was ahead when it was written"
                f" ({moment(hold.set_at)}); if the provider still wants it, it says so again ({hold.reason})"
            )


def describe_hold(hold: Hold) -> str:
    """Say what was asked for, by whom and why."""
    model = f", for {hold.model}" if hold.model else ""
    return f"the provider asked to wait until {moment(hold.not_before)}{model} ({hold.reason})"

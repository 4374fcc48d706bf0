"""What may be spent now: budgets for day and month less what this day and this month have seen."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.app import context, plan
from pipeline.app.consent import at_most, wallet_of, with_consent
from pipeline.app.planning import reading
from pipeline.errors import InputError
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.settings import Budget
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from tests.cli.conftest import Imgpipe

AGO = timedelta(minutes=90)


def zone_where_it_is(hour: int) -> str:
    """Return a zone in which the present hour of the day is `hour`; `Etc/GMT+3` is three hours behind UTC."""
    ahead = (hour - datetime.now(UTC).hour + 12) % 24 - 12
    return f"Etc/GMT{-ahead:+d}"


@pytest.mark.parametrize(("hour", "left"), [(0, 1_000_000), (12, 961_000)], ids=["yesterday", "today"])
async def test_P9_a_day_begins_where_limits_say(imgpipe: Imgpipe, hour: int, left: int) -> None:
    zone = zone_where_it_is(hour)
    path = imgpipe.manifest("{mugs: {items: {red: A red mug}}}", extra=f"limits: {{tz: {zone}, budget: {{day: 1.00}}}}")
    setup = context.prepare(path, context.Flags())
    store = await Store.open(StoreSettings(
        output_dir=setup.manifest.output_dir, state_dir=setup.manifest.state_dir, manifest="shop", is_play_money=True,
        clock=lambda: datetime.now(UTC) - AGO,
    ))  # fmt: skip
    run = await store.begin_run(manifest_sha256="0" * 64)
    (task,) = Expansion(setup.manifest, digests=read_digest)
    await store.begin(task, run=run, reserved_microusd=39_000)
    await store.aclose()
    with reading(setup) as reader:
        assert wallet_of(setup, reader).left_microusd == left


@pytest.mark.parametrize(
    ("variants", "model", "ceiling"),
    [
        (102, "", 5_000_000),
        (103, "", None),
        (16, "model: mine, ", 0),
        (17, "model: mine, ", None),
    ],
    ids=["4.99", "5.04", "16 of an unknown price", "17 of an unknown price"],
)
def test_P9_more_than_five_dollars_want_a_yes_and_less_are_the_ceiling(
    imgpipe: Imgpipe, variants: int, model: str, ceiling: int | None
) -> None:
    path = imgpipe.folder / "shop.yaml"
    path.write_text(f"jobs: {{a: {{{model}prompt: A, variants: {variants}, items: {{x: {{}}}}}}}}\n")
    setup = context.prepare(path, context.Flags())
    found = plan.plan(setup).plan
    if ceiling is None:
        with pytest.raises(InputError, match="confirm with --yes"):
            with_consent(setup, found, None)
    else:
        assert (with_consent(setup, found, None).limits.budget.run or 0) == ceiling


@pytest.mark.parametrize("budget", ["run", "day", "month"])
def test_P9_a_budget_wants_a_known_price(imgpipe: Imgpipe, budget: str) -> None:
    path = imgpipe.folder / "shop.yaml"
    path.write_text(
        f"limits: {{budget: {{{budget}: 1}}}}\njobs: {{a: {{model: mine, prompt: A, items: {{x: {{}}}}}}}}\n"
    )
    with pytest.raises(InputError, match="write it under `prices:`"):
        plan.plan(context.prepare(path, context.Flags()))


CHAIN = "a: {prompt: A, variants: 150, items: {x: {}}}, b: {each: {job: a}, images: ['{{ file.path }}'], prompt: B}"


@pytest.mark.parametrize(
    ("jobs", "ceiling"), [(CHAIN, 36_721_500), (CHAIN.partition(", b")[0], None)], ids=["chain", "one-job"]
)
def test_P9_a_yes_to_the_first_job_of_a_chain_is_no_yes_to_the_others(
    imgpipe: Imgpipe, jobs: str, ceiling: int | None
) -> None:
    path = imgpipe.folder / "shop.yaml"
    path.write_text(f"jobs: {{{jobs}}}\n")
    setup = context.prepare(path, context.Flags())
    found = plan.plan(setup).plan
    assert found.most.known_price == 7_344_300
    assert with_consent(setup, found, lambda _question: True).limits.budget.run == ceiling
    assert at_most(setup, found, None) == (36_721_500 if ceiling is None else None)
    for answer, text in ((lambda _question: False, "not confirmed"), (None, "confirm with --yes")):
        with pytest.raises(InputError, match=text):
            with_consent(setup, found, answer)
    bounded = replace(setup, limits=replace(setup.limits, budget=Budget(day=9_000_000)))
    assert with_consent(bounded, found, None) is bounded

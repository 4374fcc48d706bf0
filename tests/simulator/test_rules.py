"""Which fault strikes, how long an answer takes, and what the limits of a key admit."""

import asyncio
from statistics import quantiles

import pytest

from pipeline.simulator.profile import CapacityStep, Latency, Profile
from pipeline.simulator.rules import Dice, FaultRules, Limiter, wait_s, without_words
from pipeline.simulator.validation import SERVED, Ask

NOW = CapacityStep(after=0)


def ask(prompt="A mug", model="gemini-3-pro-image", **fields):
    return Ask(model=SERVED[model], prompt=prompt, **fields)


def struck(rules, prompts, step=NOW):
    found = []
    for prompt in prompts:
        one = ask(prompt)
        rule = rules.strike(one, rules.asking(one), step)
        found.append(rule.name if rule is not None else "")
    return found


def rules_of(*faults, seed=0):
    return FaultRules(Profile.model_validate({"seed": seed, "faults": list(faults)}))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"first": 2}, [1, 1, 0, 0, 0, 0]),
        ({"every": 3}, [0, 0, 1, 0, 0, 1]),
        ({"at": [2, 5]}, [0, 1, 0, 0, 1, 0]),
        ({"probability": 0}, [0] * 6),
        ({"probability": 1}, [1] * 6),
        ({}, [1] * 6),
    ],
    ids=["first", "every", "at", "never", "surely", "always"],
)
def test_a_rule_counts_the_requests_that_match(when, expected):
    rules = rules_of({"name": "overloaded"} | when)
    assert [bool(name) for name in struck(rules, [f"mug {n}" for n in range(6)])] == [bool(e) for e in expected]


def test_per_request_counts_repeats_of_the_same_one():
    rules = rules_of({"name": "overloaded", "first": 1, "per": "request"})
    assert struck(rules, ["a", "b", "a", "b", "c"]) == ["overloaded", "overloaded", "", "", "overloaded"]


def test_chances_do_not_depend_on_the_order_of_arrival():
    prompts = [f"mug {n}" for n in range(60)]
    fault = {"name": "overloaded", "probability": 0.3}
    forward = dict(zip(prompts, struck(rules_of(fault), prompts), strict=True))
    backward = dict(zip(prompts[::-1], struck(rules_of(fault), prompts[::-1]), strict=True))
    assert forward == backward
    assert 8 < sum(map(bool, forward.values())) < 30


def test_another_seed_has_other_chances():
    prompts = [f"mug {n}" for n in range(60)]
    fault = {"name": "overloaded", "probability": 0.3}
    assert struck(rules_of(fault, seed=1), prompts) != struck(rules_of(fault, seed=2), prompts)


def test_a_repeat_rolls_anew():
    names = struck(rules_of({"name": "overloaded", "probability": 0.5}), ["a mug"] * 40)
    assert {"", "overloaded"} == set(names)


@pytest.mark.parametrize(
    ("match", "is_struck"),
    [
        ({"prompt": "MUG"}, True),
        ({"prompt": "bottle"}, False),
        ({"model": "gemini-3*"}, True),
        ({"model": "gemini-2*"}, False),
        ({"images": True}, False),
        ({"prompt": "mug", "model": "gemini-2*"}, False),
    ],
)
def test_a_match_wants_all_that_is_written(match, is_struck):
    assert struck(rules_of({"name": "internal", "match": match}), ["A mug"]) == ["internal" if is_struck else ""]


def test_the_first_rule_that_strikes_is_the_only_one():
    rules = rules_of({"name": "internal", "at": [2]}, {"name": "overloaded"})
    assert struck(rules, ["a", "b", "c"]) == ["overloaded", "internal", "overloaded"]


def test_words_in_brackets_come_first_and_may_be_counted():
    rules = rules_of({"name": "overloaded"})
    assert struck(rules, ["a [[refuse]]"] + ["a [[internal:2]]"] * 3) == [
        "image_safety",
        "internal",
        "internal",
        "overloaded",
    ]


def test_unknown_words_in_brackets_are_only_words():
    assert struck(rules_of(), ["a [[nothing]] here"]) == [""]


def test_an_outage_strikes_everything():
    outage = CapacityStep(after=0, outage="bad_gateway")
    assert struck(rules_of(), ["a", "b"], outage) == ["bad_gateway"] * 2


def test_words_are_not_drawn():
    assert without_words("A mug [[refuse]] on a table [[overloaded:2]]") == "A mug  on a table"


def drawn(latency, count=2000):
    return [wait_s(latency, Dice(0), ask(f"mug {n}"), 1) for n in range(count)]


def test_fixed_is_fixed():
    assert drawn(Latency(fixed=2.0), 3) == [2.0] * 3


def test_uniform_stays_within_its_bounds():
    found = drawn(Latency(uniform=(1.0, 3.0)))
    assert 1.0 <= min(found) < 1.1
    assert 2.9 < max(found) <= 3.0


def test_p50_and_p95_are_what_they_say():
    cuts = quantiles(drawn(Latency(p50=2.0, p95=6.0)), n=20)
    assert cuts[9] == pytest.approx(2.0, rel=0.08)
    assert cuts[18] == pytest.approx(6.0, rel=0.12)


def test_larger_sizes_take_longer_by_their_factor():
    latency = Latency(fixed=1.0, by_size={"4K": 3.0})
    assert wait_s(latency, Dice(0), ask(size="4K"), 1) == 3.0
    assert wait_s(latency, Dice(0), ask(size="2K"), 1) == 1.0


def test_the_same_request_waits_the_same():
    latency = Latency(uniform=(0.0, 9.0))
    assert wait_s(latency, Dice(1), ask(), 1) == wait_s(latency, Dice(1), ask(), 1)
    assert wait_s(latency, Dice(1), ask(), 1) != wait_s(latency, Dice(1), ask(), 2)
    assert wait_s(latency, Dice(1), ask(), 1) != wait_s(latency, Dice(2), ask(), 1)


# -- limits ------------------------------------------------------------------------------------------------------------


def limiter(time, **fields):
    return Limiter(Profile.model_validate(fields), time)


def test_requests_per_minute_hold_in_any_60_seconds(time):
    limit = limiter(time, limits={"requests_per_minute": 2})
    assert [limit.acquire("k"), limit.acquire("k")] == [None, None]
    time.now += 20
    assert limit.acquire("k") == pytest.approx(40.0)
    time.now += 40
    assert limit.acquire("k") is None


def test_requests_are_counted_in_a_window_of_another_length(time):
    limit = limiter(time, limits={"requests_per_minute": 120, "window": "1s"})
    assert [limit.acquire("k"), limit.acquire("k")] == [None, None]
    assert limit.acquire("k") == pytest.approx(1.0)
    time.now += 1
    assert limit.acquire("k") is None


def test_token_bucket_admits_its_burst_at_once_and_then_one_for_each_token(time):
    limit = limiter(time, limits={"requests_per_minute": 120, "burst": 3})
    assert [limit.acquire("k") for _ in range(3)] == [None] * 3
    assert limit.acquire("k") == pytest.approx(0.5)
    time.now += 0.5
    assert limit.acquire("k") is None
    assert limit.acquire("k") == pytest.approx(0.5)
    time.now += 60
    assert [limit.acquire("k") is None for _ in range(4)] == [True] * 3 + [False]


def test_keys_are_counted_apart(time):
    limit = limiter(time, limits={"requests_per_minute": 1})
    assert [limit.acquire("a"), limit.acquire("b")] == [None, None]
    assert limit.acquire("a") is not None


def test_requests_at_once_are_admitted_again_when_one_leaves(time):
    limit = limiter(time, limits={"concurrency": 1})
    assert limit.acquire("k") is None
    assert limit.acquire("k") == 1.0
    limit.release("k")
    assert limit.acquire("k") is None


def test_a_request_that_was_turned_away_does_not_count(time):
    limit = limiter(time, limits={"requests_per_minute": 1})
    limit.acquire("k")
    for _ in range(5):
        limit.acquire("k")
    time.now += 60
    assert limit.acquire("k") is None


def test_capacity_changes_with_time_and_begins_anew(time):
    steps = [{"after": 0}, {"after": 10, "concurrency": 3}, {"after": 20, "outage": "overloaded"}]
    limit = limiter(time, capacity=steps, capacity_repeats="30s")
    seen = []
    for _ in range(5):
        seen.append((limit.step().concurrency, limit.step().outage))
        time.now += 10
    assert seen == [(None, None), (3, None), (None, "overloaded"), (None, None), (3, None)]


def test_the_least_of_limit_and_capacity_holds(time):
    limit = limiter(time, limits={"requests_per_minute": 1}, capacity=[{"after": 0, "requests_per_minute": 5}])
    limit.acquire("k")
    assert limit.acquire("k") is not None


@pytest.mark.parametrize(
    ("hint", "in_header", "in_body"),
    [
        ("retry_after", True, "上游负载已饱和"),
        ("retry_info", False, "RetryInfo"),
        ("text", False, "Please retry in"),
        ("none", False, "上游负载已饱和"),
    ],
    ids=["H08-retry_after", "H11-retry_info", "H11-text", "H07-none"],
)
async def test_over_the_limit_is_a_429_with_the_chosen_hint(start, hint, in_header, in_body):
    asker = await start(limits={"requests_per_minute": 1, "hint": hint})
    await asker.ask()
    heard = await asker.ask()
    assert heard.status == 429
    assert ("Retry-After" in heard.headers) == in_header
    assert in_body in heard.body.decode()


async def test_requests_at_once_are_bounded_on_the_wire(start, time, monkeypatch):
    """The first request waits inside; the second is turned away; after the first another is let in."""
    inside, go = asyncio.Event(), asyncio.Event()

    async def wait(_):
        inside.set()
        await go.wait()

    monkeypatch.setattr(time, "sleep", wait)
    asker = await start(limits={"concurrency": 1})
    async with asyncio.TaskGroup() as group:
        first = group.create_task(asker.ask("one"), name="first")
        await inside.wait()
        assert (await asker.ask("two")).status == 429
        go.set()
    assert first.result().status == 200
    assert (await asker.ask("three")).status == 200

"""How long an answer takes."""

from statistics import quantiles

import pytest

from pipeline.simulator import waits
from pipeline.simulator.asks import Ask
from pipeline.simulator.dice import Dice
from pipeline.simulator.models import SERVED
from pipeline.simulator.profile import Latency

MODEL = SERVED["gemini-3-pro-image"]


def ask(prompt="A mug", size=None):
    return Ask(model=MODEL, prompt=prompt, size=size)


def drawn(latency, count=2000):
    return [waits.seconds(latency, Dice(0), ask(f"mug {n}"), 1) for n in range(count)]


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
    assert waits.seconds(latency, Dice(0), ask(size="4K"), 1) == 3.0
    assert waits.seconds(latency, Dice(0), ask(size="2K"), 1) == 1.0


def test_the_same_request_waits_the_same():
    latency = Latency(uniform=(0.0, 9.0))
    assert waits.seconds(latency, Dice(1), ask(), 1) == waits.seconds(latency, Dice(1), ask(), 1)
    assert waits.seconds(latency, Dice(1), ask(), 1) != waits.seconds(latency, Dice(1), ask(), 2)
    assert waits.seconds(latency, Dice(1), ask(), 1) != waits.seconds(latency, Dice(2), ask(), 1)

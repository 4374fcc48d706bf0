"""The told rate is exact over any 60 s, whatever starts, and is spread evenly."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.starts import RateWindow
from pipeline.engine.throttle import Throttle
from pipeline.model import Fault
from pipeline.settings import Limits
from tests.engine.fakes import failure

IDLE = st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 200))
STEP = st.tuples(IDLE, st.integers(1, 12), st.booleans())


def most_in_a_minute(starts: list[float], minute_s: float = 60.0) -> int:
    """Count the starts of the fullest window, both ends included."""
    return max((sum(a <= b <= a + minute_s for b in starts) for a in starts), default=0)


@given(rpm=st.integers(1, 40), steps=st.lists(STEP, max_size=30))
def test_no_minute_holds_more_than_was_told(rpm: int, steps: list[tuple[float, int, bool]]) -> None:
    window, now, sent = RateWindow(rpm), 0.0, []
    for idle, wanted, is_sent in steps:
        now += idle
        for _ in range(wanted):
            now += window.delay(now)
            if window.delay(now) > 0:
                continue  # a rounding error away
            window.started(now)
            if is_sent:
                sent.append(now)
            else:
                window.forget(now)
    assert most_in_a_minute(sent) <= rpm


@given(
    rpm=st.integers(1, 40),
    steps=st.lists(
        st.tuples(IDLE, st.sampled_from([None, Fault.THROTTLED, Fault.OUTAGE, Fault.NO_IMAGE])), max_size=80
    ),
)
def test_throttle_keeps_the_told_rate_whatever_comes_back(rpm: int, steps: list[tuple[float, Fault | None]]) -> None:
    now, starts = 0.0, []
    throttle = Throttle(Limits(concurrency=50, requests_per_minute=rpm), clock=lambda: now, random=lambda: 0.3)
    tickets = []
    for idle, outcome in steps:
        now += idle
        while throttle.delay() == 0:
            starts.append(now)
            tickets.append(throttle.started())
        if tickets:
            throttle.finished(tickets.pop(0), None if outcome is None else failure(outcome))
        assert throttle.in_flight <= 50
    assert most_in_a_minute(starts) <= rpm


def test_first_minute_is_spread_evenly() -> None:
    window, now, starts = RateWindow(60), 0.0, []
    for _ in range(60):
        now += window.delay(now)
        window.started(now)
        starts.append(now)
    gaps = [b - a for a, b in pairwise(starts)]
    assert gaps == pytest.approx([61 / 60] * 59)


def test_lateness_is_made_up_for_but_only_a_little() -> None:
    window = RateWindow(600)  # one every 0.1017 s
    window.started(0.0)
    window.started(10.0)  # long idle: no credit for what was not sent
    burst = 0
    while window.delay(10.0) == 0:
        window.started(10.0)
        burst += 1
    assert burst <= 3


@pytest.mark.parametrize(("rpm", "gap_s"), [(0.5, 121.0), (1, 61.0), (1.9, 61.0), (2.5, 30.5)])
def test_fraction_is_rounded_to_the_safe_side(rpm: float, gap_s: float) -> None:
    window = RateWindow(rpm)
    window.started(0.0)
    assert window.delay(0.0) == pytest.approx(gap_s)


@pytest.mark.parametrize("rpm", [0, -1, float("inf"), float("nan")])
def test_rate_that_is_none_is_refused(rpm: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RateWindow(rpm)

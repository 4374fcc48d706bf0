"""The repeats of the outcomes table."""

from collections import Counter

import pytest

from pipeline.engine.retry import DEFERRABLE, RULES, AttemptHistory, may_repeat, state_after, wait_s
from pipeline.engine.throttle import GIVE_UP_S
from pipeline.model import Fault, TaskState
from pipeline.settings import Retry

RETRY = Retry(attempts=5, unknown=1)


def repeats(fault: Fault, retry: Retry = RETRY) -> int:
    """Count how often a task that meets only `fault` is asked again."""
    tally, count = AttemptHistory(), 0
    tally.add(fault)
    while may_repeat(fault, tally, retry):
        count += 1
        tally.add(fault)
    return count


@pytest.mark.parametrize(
    ("fault", "expected", "ends_as"),
    [
        pytest.param(Fault.ADDRESS, 0, TaskState.PENDING, id="H26-address"),
        pytest.param(Fault.SILENCE, 1, TaskState.UNKNOWN, id="H28-silence"),
        pytest.param(Fault.BAD_REQUEST, 0, TaskState.FAILED, id="H19-bad-request"),
        pytest.param(Fault.NOT_FOUND, 0, TaskState.FAILED, id="H18-not-found"),
        pytest.param(Fault.ACCOUNT, 0, TaskState.PENDING, id="H14-account"),
        pytest.param(Fault.FORBIDDEN, 0, TaskState.FAILED, id="H17-forbidden"),
        pytest.param(Fault.THROTTLED, 20, TaskState.PENDING, id="H07-throttled"),
        pytest.param(Fault.QUOTA, 0, TaskState.PENDING, id="H12-quota"),
        pytest.param(Fault.MODEL_MISSING, 2, TaskState.PENDING, id="H05-model-missing"),
        pytest.param(Fault.OUTAGE, 4, TaskState.PENDING, id="H01-outage"),
        pytest.param(Fault.REFUSED, 0, TaskState.REFUSED, id="H63-refused"),
        pytest.param(Fault.NO_IMAGE, 2, TaskState.FAILED, id="H62-no-image"),
        pytest.param(Fault.BROKEN, 1, TaskState.FAILED, id="H58-broken"),
        pytest.param(Fault.LINK, 0, TaskState.FAILED, id="H66-link"),
        pytest.param(Fault.UPSTREAM_ACCOUNT, 20, TaskState.PENDING, id="one-of-several-accounts"),
        pytest.param(Fault.CONFLICT, 0, TaskState.CONFLICT, id="D09-conflict"),
        pytest.param(Fault.STORAGE, 0, TaskState.PENDING, id="D01-storage"),
        pytest.param(Fault.INPUT, 0, TaskState.FAILED, id="I09-input"),
        pytest.param(Fault.LOCAL, 0, TaskState.PENDING, id="I09-input-away"),
        pytest.param(Fault.OTHER, 1, TaskState.FAILED, id="other"),
        pytest.param(Fault.UNREACHABLE, 20, TaskState.PENDING, id="H24-unreachable"),
    ],
)
def test_repeats_and_end_follow_the_table(fault: Fault, expected: int, ends_as: TaskState) -> None:
    assert repeats(fault) == expected
    assert RULES[fault].ends_as is ends_as
    assert (fault in DEFERRABLE) is (
        ends_as is TaskState.PENDING and expected > 2
    )  # transient: another turn at the end


@pytest.mark.parametrize(
    ("fault", "tried_s", "refusals", "expected"),
    [
        pytest.param(Fault.THROTTLED, 29.0, 99, True, id="H07-soon"),
        pytest.param(Fault.THROTTLED, 31.0, 99, False, id="H07-long-and-often"),
        pytest.param(Fault.THROTTLED, 31.0, 20, True, id="H07-not-often"),
        pytest.param(Fault.UNREACHABLE, 89.0, 99, True, id="H24-soon"),
        pytest.param(Fault.UNREACHABLE, 91.0, 99, False, id="H24-long"),
    ],
)
def test_what_is_not_counted_may_be_repeated_often_and_for_long(
    fault: Fault, tried_s: float, refusals: int, expected: bool
) -> None:
    tally = AttemptHistory(faults=Counter({fault: refusals}))
    assert may_repeat(fault, tally, Retry(attempts=1, wait_max_s=5.0), tried_s=tried_s) is expected


def test_H24_one_task_that_reaches_nobody_is_repeated_until_the_throttle_gives_up() -> None:
    tally = AttemptHistory(faults=Counter({Fault.UNREACHABLE: 99}))
    assert may_repeat(Fault.UNREACHABLE, tally, Retry(), tried_s=GIVE_UP_S + 30.0)


def test_every_fault_has_a_rule() -> None:
    assert set(RULES) == set(Fault)


@pytest.mark.parametrize("fault", [Fault.SILENCE, Fault.OTHER])
def test_P3_unknown_zero_never_repeats_what_may_have_been_billed(fault: Fault) -> None:
    assert repeats(fault, Retry(attempts=5, unknown=0)) == 0


@pytest.mark.parametrize(("fault", "expected"), [(Fault.SILENCE, 3), (Fault.OTHER, 1)])
def test_P3_unknown_three_is_for_silence_only(fault: Fault, expected: int) -> None:
    assert repeats(fault, Retry(attempts=5, unknown=3)) == expected


def test_unknowns_of_earlier_runs_count() -> None:
    tally = AttemptHistory(unknowns=1)
    tally.add(Fault.SILENCE)
    assert not may_repeat(Fault.SILENCE, tally, RETRY)


def test_attempts_of_one_means_one_request() -> None:
    assert repeats(Fault.OUTAGE, Retry(attempts=1)) == 0
    assert repeats(Fault.NO_IMAGE, Retry(attempts=1)) == 0


def test_mixed_counted_faults_share_the_attempts() -> None:
    tally = AttemptHistory()
    for fault in (Fault.OUTAGE, Fault.OUTAGE, Fault.NO_IMAGE, Fault.OUTAGE):
        tally.add(fault)
    assert may_repeat(Fault.OUTAGE, tally, RETRY)
    tally.add(Fault.OUTAGE)
    assert not may_repeat(Fault.OUTAGE, tally, RETRY)


def test_silence_stands_as_unknown_even_before_its_repeat() -> None:
    tally = AttemptHistory()
    tally.add(Fault.SILENCE)
    assert may_repeat(Fault.SILENCE, tally, RETRY)
    assert state_after(Fault.SILENCE, tally, RETRY) is TaskState.UNKNOWN


def test_a_repeatable_content_failure_stands_as_pending() -> None:
    tally = AttemptHistory()
    tally.add(Fault.NO_IMAGE)
    assert state_after(Fault.NO_IMAGE, tally, RETRY) is TaskState.PENDING


def test_a_fresh_turn_forgets_transient_trouble_only() -> None:
    tally = AttemptHistory()
    for fault in (Fault.OUTAGE, Fault.OUTAGE, Fault.BROKEN, Fault.THROTTLED):
        tally.add(fault)
    tally.fresh_turn()
    assert tally.counted == 1
    assert not set(tally.faults) & DEFERRABLE


@pytest.mark.parametrize(
    ("fault", "nth", "ceiling"),
    [
        (Fault.OUTAGE, 1, 1.0),
        (Fault.OUTAGE, 4, 8.0),
        (Fault.OUTAGE, 20, 60.0),
        (Fault.SILENCE, 1, 10.0),
        (Fault.SILENCE, 9, 120.0),
    ],
)
def test_the_wait_is_full_jitter_under_a_doubling_ceiling(fault: Fault, nth: int, ceiling: float) -> None:
    tally = AttemptHistory()
    for _ in range(nth):
        tally.add(fault)
    assert wait_s(fault, tally, RETRY, hint_s=None, random=lambda: 1.0) == ceiling
    assert wait_s(fault, tally, RETRY, hint_s=None, random=lambda: 0.0) == 0.0


def test_H24_waits_stay_short_so_that_a_run_that_reaches_nobody_ends_after_a_minute() -> None:
    tally = AttemptHistory()
    for _ in range(20):
        tally.add(Fault.UNREACHABLE)
    assert wait_s(Fault.UNREACHABLE, tally, Retry(), hint_s=None, random=lambda: 1.0) == 5.0


def test_the_servers_hint_is_the_least_wait() -> None:
    tally = AttemptHistory()
    tally.add(Fault.OUTAGE)
    assert wait_s(Fault.OUTAGE, tally, RETRY, hint_s=40.0, random=lambda: 0.5) == pytest.approx(42.0)

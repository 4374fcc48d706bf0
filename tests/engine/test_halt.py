"""When a run stops, with which exit code, and until when."""

import dataclasses
import heapq
import itertools
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfoNotFoundError

import pytest

from pipeline.engine.halt import Halt, HaltPolicy, Halts
from pipeline.errors import Exit
from pipeline.model import Artifact, Billed, Failure, Fault, TaskState
from pipeline.settings import StopOn, next_midnight, quota_zone
from tests.engine.fakes import artifact, unpublished

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
IMAGE = artifact()


def failure(fault: Fault, hint_s: float | None = None) -> Failure:
    return Failure(fault=fault, billed=Billed.NO, reason=f"saw {fault}", hint_s=hint_s)


def last(policy: HaltPolicy, *results: Fault | None) -> Halt | None:
    """Show the results; all but the last must not stop anything."""
    halts = [policy.judged(IMAGE if fault is None else failure(fault)) for fault in results]
    assert halts[:-1] == [None] * (len(halts) - 1)
    return halts[-1]


@pytest.mark.parametrize("fault", [Fault.ACCOUNT, Fault.ADDRESS], ids=["H14-H16-account", "H22-H26-H45-address"])
def test_account_and_address_stop_at_once_also_after_successes(fault: Fault) -> None:
    assert last(HaltPolicy(), fault) == Halt(Exit.ACCOUNT, f"saw {fault}")
    assert last(HaltPolicy(), None, None, fault) == Halt(Exit.ACCOUNT, f"saw {fault}")


HARMLESS = set(Fault) - {Fault.ACCOUNT, Fault.ADDRESS, Fault.QUOTA}


@pytest.mark.parametrize("fault", sorted(HARMLESS))
def test_one_failure_of_another_kind_stops_nothing(fault: Fault) -> None:
    assert last(HaltPolicy(), fault) is None


IN_A_ROW = {Fault.MODEL_MISSING, Fault.FORBIDDEN, Fault.UPSTREAM_ACCOUNT}


@pytest.mark.parametrize("fault", sorted(HARMLESS - IN_A_ROW))
def test_nothing_of_the_kind_stops_a_run_that_had_a_success(fault: Fault) -> None:
    assert last(HaltPolicy(), None, *[fault] * 50) is None


@pytest.mark.parametrize(
    ("fault", "exit_code", "released"),
    [(Fault.NOT_FOUND, Exit.ACCOUNT, Fault.NOT_FOUND), (Fault.BAD_REQUEST, Exit.SOME_FAILED, None)],
    ids=["H18-404", "H19-400"],
)
def test_first_five_all_mistaken_stop(fault: Fault, exit_code: Exit, released: Fault | None) -> None:
    halt = last(HaltPolicy(), *[fault] * 5)
    assert halt == Halt(exit_code, f"the first 5 requests all failed: saw {fault}")
    assert halt.fault is released  # the tasks that met it are pending


def test_mixed_mistakes_are_the_tasks_own() -> None:
    halt = last(HaltPolicy(), Fault.NOT_FOUND, Fault.BAD_REQUEST, *[Fault.NOT_FOUND] * 3)
    assert halt is not None
    assert halt.exit is Exit.SOME_FAILED


@pytest.mark.parametrize("noise", [Fault.THROTTLED, Fault.OUTAGE, Fault.SILENCE, Fault.UNREACHABLE, Fault.INPUT])
def test_what_says_nothing_is_not_among_the_first_five(noise: Fault) -> None:
    results = [fault for _ in range(4) for fault in (Fault.NOT_FOUND, noise)]
    assert last(HaltPolicy(), *results, Fault.NOT_FOUND) is not None


def test_five_mistakes_that_are_not_the_first_results_stop_nothing() -> None:
    assert last(HaltPolicy(), Fault.NO_IMAGE, *[Fault.BAD_REQUEST] * 20) is None


def test_five_forbidden_in_a_row_stop_and_are_not_the_tasks_fault() -> None:
    four = [Fault.FORBIDDEN] * 4
    halt = last(HaltPolicy(), *four, None, *four, Fault.THROTTLED, Fault.FORBIDDEN)  # H17
    assert halt == Halt(Exit.ACCOUNT, "5 requests in a row were forbidden: saw forbidden")
    assert halt.fault is Fault.FORBIDDEN


def test_a_model_that_is_withdrawn_in_mid_run_stops_it_after_five_answers_that_say_so() -> None:
    policy = HaltPolicy()
    named = Failure(fault=Fault.NOT_FOUND, billed=Billed.NO, reason="no such model", code="NOT_FOUND")
    assert [policy.judged(each) for each in (IMAGE, *[named] * 4, failure(Fault.BAD_REQUEST), *[named] * 4)] == [
        None
    ] * 10
    halt = policy.judged(named)
    assert halt == Halt(Exit.ACCOUNT, "5 requests in a row were not found: no such model")
    assert halt.fault is Fault.NOT_FOUND


CLOSED = Fault.UPSTREAM_ACCOUNT


@pytest.mark.parametrize(
    "before",
    [[CLOSED], [Fault.THROTTLED, CLOSED, Fault.OUTAGE], [None, *[CLOSED] * 5], [None, CLOSED, None, *[CLOSED] * 5]],
    ids=["first-answers", "push-backs-between", "mid-run", "an-image-sent-before-it-between"],
)
def test_a_closed_account_stops_when_nothing_else_comes(before: list[Fault | None]) -> None:
    times = itertools.count()
    policy = HaltPolicy(clock=lambda: float(next(times)))
    halts = [policy.judged(IMAGE if fault is None else failure(fault), seconds=60.0) for fault in (*before, CLOSED)]
    assert halts == [None] * len(before) + [Halt(Exit.ACCOUNT, "saw upstream_account")]


@dataclasses.dataclass
class Relay:
    """Accounts behind one address, of which a share is closed in mid-run: a refusal takes 0.3 s, an image 10 s."""

    closed_share: float
    in_flight: int
    refused: int = 0

    def run(self, seed: int, seconds: float = 120.0) -> Halt | None:
        die, now, events = random.Random(seed), 0.0, list[tuple[float, float, bool]]()
        policy = HaltPolicy(clock=lambda: now)

        def start() -> None:
            is_closed = now > seconds / 2 and die.random() < self.closed_share
            takes_s = 0.3 * die.uniform(0.5, 1.5) if is_closed else 10 * die.uniform(0.8, 1.2)
            heapq.heappush(events, (now + takes_s, now, is_closed))

        for number in range(self.in_flight):
            now = 10 * number / self.in_flight
            start()
        while now < seconds:
            now, at, is_closed = heapq.heappop(events)
            self.refused += is_closed
            closed = dataclasses.replace(failure(CLOSED), status=429)
            halt = policy.judged(closed if is_closed else IMAGE, seconds=now - at)
            if halt is not None:
                return halt
            start()
        return None


@pytest.mark.parametrize("in_flight", [1, 4, 24])
def test_a_relay_goes_on_when_a_quarter_of_its_accounts_reaches_a_cap_in_mid_run(in_flight: int) -> None:
    assert [Relay(0.25, in_flight).run(seed) for seed in range(10)] == [None] * 10


@pytest.mark.parametrize("in_flight", [1, 4, 24, 100])
def test_a_cap_of_all_there_is_stops_a_run_after_a_few_refusals(in_flight: int) -> None:
    for seed in range(10):
        relay = Relay(1.0, in_flight)
        assert relay.run(seed) == Halt(Exit.ACCOUNT, "saw upstream_account")
        assert relay.refused <= 12 + in_flight / 3


def test_one_closed_key_of_several_stops_nothing() -> None:
    times = itertools.count()
    policy = HaltPolicy(clock=lambda: float(next(times)))
    results = [None, CLOSED, None, *[CLOSED] * 11, Fault.REFUSED, *[CLOSED] * 11]  # what is refused was served
    for fault in results:
        billed = Billed.YES if fault is Fault.REFUSED else Billed.NO
        result = IMAGE if fault is None else Failure(fault=fault, billed=billed, reason="")
        assert policy.judged(result, seconds=0.1) is None
    assert policy.judged(failure(CLOSED)) is not None


def paid(fault: Fault) -> Failure:
    return Failure(fault=fault, billed=Billed.YES, reason=f"saw {fault}")


def without_image(policy: HaltPolicy, *tasks: str, fault: Fault = Fault.NO_IMAGE) -> list[Halt | None]:
    return [policy.judged(paid(fault), task_id=task, cost_microusd=40_000) for task in tasks]


@pytest.mark.parametrize("fault", [Fault.NO_IMAGE, Fault.BROKEN, Fault.LINK])
def test_five_tasks_that_were_paid_for_in_vain_stop_a_run_and_it_says_what_they_cost(fault: Fault) -> None:
    *before, halt, after = without_image(HaltPolicy(), "a", "a", "b", "c", "d", "e", "f", fault=fault)
    assert before == [None] * 5
    assert halt is not None
    assert halt.exit is Exit.SOME_FAILED
    assert f"5 tasks in a row were paid for ($0.24) and brought no image: saw {fault}" in halt.reason
    assert after is None  # it was in flight, and says the same again


def test_repeats_of_one_task_and_refusals_are_no_five_tasks() -> None:
    policy = HaltPolicy()
    assert without_image(policy, *["a"] * 20) == [None] * 20
    assert without_image(policy, *"bcdefg", fault=Fault.REFUSED) == [None] * 6


@pytest.mark.parametrize("image", [IMAGE, unpublished(Fault.CONFLICT)], ids=["image", "image-without-a-name"])
def test_an_image_begins_a_new_row_and_a_refusal_does_not(image: Artifact | Failure) -> None:
    policy = HaltPolicy()
    assert without_image(policy, *"abcd") == [None] * 4
    policy.judged(image)
    assert without_image(policy, *"efg") == [None] * 3
    policy.judged(paid(Fault.REFUSED), task_id="x")
    assert without_image(policy, "h") == [None]
    assert without_image(policy, "i") != [None]


@pytest.mark.parametrize(("most", "tasks"), [(2, "ab"), (8, "abcdefgh")], ids=["tightened", "lifted"])
def test_stop_on_says_how_many_may_be_paid_for_in_vain(most: int, tasks: str) -> None:
    halts = without_image(HaltPolicy(StopOn(consecutive_failures=most)), *tasks)
    assert halts[:-1] == [None] * (most - 1)
    assert halts[-1] is not None


class Missing:
    """A watch shown a model that the provider does not find, at times set by hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.policy = HaltPolicy(models="gemini-2.5-flash-image", now=lambda: self.now)

    def after(self, seconds: float, *, model: str = "", tries: int = 0) -> Halt | None:
        self.now += timedelta(seconds=seconds)
        return self.policy.judged(failure(Fault.MODEL_MISSING), model=model, tries=tries)


def test_missing_model_stops_after_three_spaced_tries_and_names_others() -> None:
    bench = Missing()  # H05
    assert [bench.after(0), bench.after(1)] == [None, None]
    assert bench.after(1) == Halt(Exit.ACCOUNT, "saw model_missing; models that exist now: gemini-2.5-flash-image")


def test_eight_workers_at_once_are_one_try() -> None:
    bench = Missing()
    assert [bench.after(0.01) for _ in range(8)] == [None] * 8


def test_third_try_of_one_task_stops_however_near() -> None:
    bench = Missing()
    assert [bench.after(0.1, tries=1), bench.after(0.1, tries=2)] == [None, None]
    assert bench.after(0.1, tries=3) is not None


def test_success_and_other_models_do_not_count_for_a_missing_one() -> None:
    bench = Missing()
    assert [bench.after(1, model=model) for model in "aabb"] == [None] * 4
    bench.policy.judged(IMAGE, model="b")
    assert bench.after(1, model="b") is None
    assert bench.after(1, model="a") is not None


@pytest.mark.parametrize(
    ("hint_s", "not_before"),
    [
        (3600.0, NOW + timedelta(hours=1)),
        (None, datetime(2026, 11, 23, 8, tzinfo=UTC)),  # midnight Pacific
        (36.7, datetime(2026, 11, 23, 8, tzinfo=UTC)),  # the minute's delay beside the day's quota
        (1e18, NOW + timedelta(days=31)),
    ],
    ids=["H12-delay", "H12-per-day", "H12-per-day-with-a-minute", "H10-huge"],
)
def test_quota_stops_until_it_is_free_again(hint_s: float | None, not_before: datetime) -> None:
    halt = HaltPolicy(now=lambda: NOW).judged(failure(Fault.QUOTA, hint_s))
    assert halt == Halt(Exit.TRY_LATER, "saw quota", not_before)


@pytest.mark.parametrize("fault", [Fault.OUTAGE, Fault.SILENCE, Fault.BAD_REQUEST])
def test_P11_a_delay_over_five_minutes_stops_whatever_it_was_about(fault: Fault) -> None:
    policy = HaltPolicy(now=lambda: NOW)
    assert policy.judged(failure(fault, 300.0)) is None
    halt = policy.judged(failure(fault, 300.5))
    assert halt == Halt(Exit.TRY_LATER, f"saw {fault}", NOW + timedelta(seconds=300.5))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 2, 7, tzinfo=UTC)),
        (datetime(2026, 3, 8, 12, tzinfo=UTC), datetime(2026, 3, 9, 7, tzinfo=UTC)),
        (datetime(2026, 11, 1, 12, tzinfo=UTC), datetime(2026, 11, 2, 8, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, 8, tzinfo=UTC)),
        (datetime(2026, 11, 22, 7, 59, 59, tzinfo=UTC), datetime(2026, 11, 22, 8, tzinfo=UTC)),
    ],
    ids=["summer", "spring-change", "autumn-change", "new-year", "a-second-before"],
)
def test_next_midnight_pacific(now: datetime, expected: datetime) -> None:
    assert next_midnight(now, quota_zone()) == expected


def test_without_zone_data_pacific_is_winter_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_data(key: str) -> None:
        raise ZoneInfoNotFoundError(key)

    monkeypatch.setattr("zoneinfo.ZoneInfo", no_data)
    assert quota_zone().utcoffset(NOW) == timedelta(hours=-8)


def ends(policy: HaltPolicy, *states: TaskState) -> Halt | None:
    halts = [policy.task_ended(state) for state in states]
    assert halts[:-1] == [None] * (len(halts) - 1)
    return halts[-1]


DONE, FAILED, REFUSED = TaskState.DONE, TaskState.FAILED, TaskState.REFUSED


def test_consecutive_failures_stop_and_a_refusal_between_changes_nothing() -> None:
    policy = HaltPolicy(StopOn(consecutive_failures=3))
    halt = ends(policy, FAILED, FAILED, DONE, FAILED, REFUSED, FAILED, REFUSED, FAILED)
    assert halt == Halt(Exit.SOME_FAILED, "3 tasks failed in a row (stop_on)")


def test_failure_rate_is_judged_from_after_on() -> None:
    policy = HaltPolicy(StopOn(failure_rate=0.3, after=10))
    halt = ends(policy, *[FAILED] * 2, *[DONE] * 7, FAILED)
    assert halt == Halt(Exit.SOME_FAILED, "3 of 10 tasks failed (stop_on)")


def test_failure_rate_below_the_ceiling_goes_on() -> None:
    policy = HaltPolicy(StopOn(failure_rate=0.3, after=10))
    assert ends(policy, *[DONE, DONE, DONE, DONE, FAILED] * 20) is None


@pytest.mark.parametrize("state", [s for s in TaskState if s is not FAILED])
def test_only_failures_for_good_trip_stop_on(state: TaskState) -> None:
    policy = HaltPolicy(StopOn(consecutive_failures=1, failure_rate=0.0, after=0))
    assert ends(policy, *[state] * 50) is None
    assert ends(policy, FAILED) is not None


def test_without_stop_on_any_number_may_fail() -> None:
    assert ends(HaltPolicy(), *[FAILED] * 100) is None


def test_most_severe_halt_is_told_first() -> None:
    halts = Halts()
    assert halts.exit is Exit.OK
    for halt in (
        Halt(Exit.BUDGET, "b"),
        Halt(Exit.ACCOUNT, "a"),
        Halt(Exit.TRY_LATER, "q", NOW),
        Halt(Exit.BUDGET, "c"),
        Halt(Exit.TRY_LATER, "p", NOW - timedelta(hours=1)),
    ):
        assert halts.add(halt)
    assert halts.exit is Exit.ACCOUNT
    assert halts.reasons == ("a", "q", "p", "b", "c")
    assert halts.not_before == NOW


def test_same_halt_twice_says_nothing_new() -> None:
    halts = Halts()
    assert halts.add(Halt(Exit.TRY_LATER, "q", NOW))
    assert not halts.add(Halt(Exit.TRY_LATER, "q", NOW + timedelta(seconds=1)))
    assert len(halts) == 1
    assert halts.not_before == NOW


def test_H07_a_server_that_only_pushes_back_for_long_ends_the_run() -> None:
    minutes = itertools.count()
    policy = HaltPolicy(patience_s=540, clock=lambda: 60.0 * next(minutes))
    assert last(policy, *[Fault.THROTTLED] * 9) is None
    halt = policy.judged(failure(Fault.THROTTLED))
    assert halt is not None
    assert halt.exit is Exit.TRY_LATER
    assert "saw throttled" in halt.reason


def test_H07_push_backs_in_quick_succession_or_around_an_image_end_nothing() -> None:
    minutes = itertools.count()
    assert last(HaltPolicy(clock=lambda: 0.0), *[Fault.THROTTLED] * 50) is None
    policy = HaltPolicy(patience_s=300, clock=lambda: 60.0 * next(minutes))
    assert last(policy, *[Fault.THROTTLED] * 9, None, *[Fault.THROTTLED] * 9) is None

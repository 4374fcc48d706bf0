"""Money: nothing is sent that a budget does not cover, whatever the order of things, the day or the zone."""

from collections import Counter
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from pipeline.engine.wallet import Period, Refusal, Reservation, Wallet
from pipeline.model import Spend
from pipeline.settings import Budget, day_of, month_of, zone_of
from tests.test_settings import HOUR, YEAR

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Calendar:
    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def reserved(wallet: Wallet, price: int) -> Reservation:
    reservation = wallet.reserve(price)
    assert isinstance(reservation, Reservation)
    return reservation


class Past:
    """What other runs spent: (when, what); sums it as the ledger does."""

    def __init__(self, *spent: tuple[datetime, int]) -> None:
        self._spent = spent

    def __call__(self, since: datetime, until: datetime) -> Spend:
        return Spend(spent_microusd=sum(amount for at, amount in self._spent if since <= at <= until))


def refused(wallet: Wallet, price: int) -> Refusal:
    refusal = wallet.reserve(price)
    assert isinstance(refusal, Refusal)
    return refusal


def test_without_a_budget_everything_is_reserved_and_counted() -> None:
    wallet = Wallet(Budget())
    wallet.settle(reserved(wallet, 39_000), 31_200)
    wallet.keep_unknown(reserved(wallet, 39_000))
    reserved(wallet, 39_000)
    assert (wallet.spent_microusd, wallet.unknown_microusd, wallet.reserved_microusd) == (31_200, 39_000, 39_000)
    assert wallet.left_microusd is None


def test_budget_is_spent_to_the_last_micro_dollar_and_no_further() -> None:
    wallet = Wallet(Budget(run=3 * 39_000))
    for _ in range(3):
        reserved(wallet, 39_000)
    assert wallet.left_microusd == 0
    assert refused(wallet, 1).left_microusd == 0


def test_budget_of_zero_is_a_budget() -> None:
    wallet = Wallet(Budget(run=0))
    assert refused(wallet, 39_000).is_final
    assert isinstance(wallet.reserve(0), Reservation)


@pytest.mark.parametrize(
    ("budget", "period", "left"),
    [
        (Budget(run=100, day=1000, month=3000), "run", 100),
        (Budget(run=1000, day=350, month=3000), "day", 50),
        (Budget(run=1000, day=1000, month=1050), "month", 50),
    ],
)
def test_refusal_names_the_tightest_budget(budget: Budget, period: str, left: int) -> None:
    past = Past((NOON, 300), (NOON - timedelta(days=9), 700), (NOON - timedelta(days=40), 900))
    wallet = Wallet(budget, spent=past, now=Calendar())
    refusal = refused(wallet, 2000)  # more than any of them has
    assert (refusal.period, refusal.left_microusd, refusal.price_microusd) == (period, left, 2000)
    assert wallet.left_microusd == left
    assert wallet.reserved_microusd == 0


def test_refusal_says_what_a_person_wants_to_know() -> None:
    wallet = Wallet(Budget(run=1_500_000))
    wallet.settle(reserved(wallet, 500_000), 500_000)
    assert str(refused(wallet, 1_039_000)) == (
        "the budget of this run ($1.50) is used up: $1.00 left, the next image may cost $1.039;"
        " the next run has a new budget, or raise limits.budget.run (--budget)"
    )
    wallet = Wallet(Budget(day=5_000_000))
    wallet.keep_unknown(reserved(wallet, 4_000_000))
    assert "($5.00) is used up, $4.00 of it maybe billed: $1.00 left" in str(refused(wallet, 2_000_000))
    assert str(refused(wallet, 2_000_000)).endswith("the next day has a new budget, or raise limits.budget.day")


def test_budget_below_the_price_of_one_image_promises_nothing_of_the_next_one() -> None:
    assert str(refused(Wallet(Budget(run=1_500_000)), 1_539_000)) == (
        "the budget of this run ($1.50) is too small for one image: the next image may cost $1.539;"
        " raise limits.budget.run (--budget)"
    )
    assert str(refused(Wallet(Budget(day=1)), 2)).endswith("; raise limits.budget.day")


def test_refusal_is_not_final_while_something_in_flight_may_free_enough() -> None:
    wallet = Wallet(Budget(run=100))
    flying = reserved(wallet, 60)
    assert not refused(wallet, 60).is_final
    assert refused(wallet, 101).is_final
    wallet.settle(flying, 30)
    assert isinstance(wallet.reserve(60), Reservation)


def test_refusal_is_final_when_one_budget_cannot_be_freed() -> None:
    wallet = Wallet(Budget(run=100, day=50), spent=lambda *_: Spend(spent_microusd=45))
    reserved(wallet, 5)
    wallet2 = Wallet(Budget(run=100, day=50), spent=lambda *_: Spend(unknown_microusd=50))
    assert not refused(wallet, 5).is_final
    refusal = refused(wallet2, 5)
    assert (refusal.is_final, refusal.period) == (True, "day")


def test_unknown_outcome_keeps_its_price_reserved_for_good() -> None:
    wallet = Wallet(Budget(run=100))
    wallet.keep_unknown(reserved(wallet, 60))
    assert wallet.left_microusd == 40
    assert refused(wallet, 60).is_final


def test_released_money_is_free_again() -> None:
    wallet = Wallet(Budget(run=100))
    wallet.release(reserved(wallet, 100))
    assert wallet.left_microusd == 100


def test_cost_above_the_reservation_counts_in_full() -> None:
    wallet = Wallet(Budget(run=100))
    wallet.settle(reserved(wallet, 60), 130)
    assert wallet.spent_microusd == 130
    assert wallet.left_microusd == 0
    assert refused(wallet, 1).is_final


def test_reservation_closed_twice_is_a_bug() -> None:
    wallet = Wallet(Budget(run=100))
    reservation = reserved(wallet, 60)
    wallet.release(reservation)
    for close in (wallet.release, wallet.keep_unknown, lambda r: wallet.settle(r, 1)):
        with pytest.raises(KeyError):
            close(reservation)
    assert (wallet.reserved_microusd, wallet.spent_microusd, wallet.unknown_microusd) == (0, 0, 0)


@pytest.mark.parametrize("amount", [-1, -39_000])
def test_negative_money_is_a_bug(amount: int) -> None:
    wallet = Wallet(Budget(run=100))
    reservation = reserved(wallet, 60)
    with pytest.raises(ValueError, match="negative"):
        wallet.reserve(amount)
    with pytest.raises(ValueError, match="negative"):
        wallet.settle(reservation, amount)
    assert wallet.reserved_microusd == 60


def test_midnight_gives_a_new_day_and_the_month_goes_on() -> None:
    calendar = Calendar()
    wallet = Wallet(Budget(day=100, month=150), spent=Past((NOON, 90)), now=calendar)
    assert wallet.left_microusd == 10
    calendar.now += timedelta(hours=12)
    assert wallet.left_microusd == 60  # of the month
    calendar.now = datetime(2026, 12, 1, tzinfo=UTC)
    assert wallet.left_microusd == 100


def test_new_year_is_a_new_month() -> None:
    calendar = Calendar(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
    wallet = Wallet(Budget(month=100), spent=Past((calendar.now, 100)), now=calendar)
    assert wallet.left_microusd == 0
    calendar.now += timedelta(minutes=1)
    assert wallet.left_microusd == 100


def test_reservation_counts_in_the_day_it_was_made() -> None:
    calendar = Calendar()
    wallet = Wallet(Budget(day=100), now=calendar)
    late = reserved(wallet, 100)
    calendar.now += timedelta(days=1)
    assert wallet.left_microusd == 100
    wallet.settle(late, 100)
    assert wallet.left_microusd == 100
    assert wallet.spent_microusd == 100


@pytest.mark.parametrize(
    ("tz", "before", "after"),
    [
        ("Europe/Lisbon", datetime(2026, 10, 24, 22, 59, tzinfo=UTC), datetime(2026, 10, 24, 23, 0, tzinfo=UTC)),
        ("Europe/Lisbon", datetime(2026, 10, 25, 23, 59, tzinfo=UTC), datetime(2026, 10, 26, 0, 0, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 8, 4, 59, tzinfo=UTC), datetime(2026, 3, 8, 5, 0, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 9, 3, 59, tzinfo=UTC), datetime(2026, 3, 9, 4, 0, tzinfo=UTC)),
        ("Asia/Kolkata", datetime(2026, 11, 22, 18, 29, tzinfo=UTC), datetime(2026, 11, 22, 18, 30, tzinfo=UTC)),
    ],
    ids=["last-summer-day", "25-hour-day", "before-spring", "23-hour-day", "half-hour"],
)
def test_day_begins_at_midnight_of_the_zone(tz: str, before: datetime, after: datetime) -> None:
    calendar = Calendar(before)
    wallet = Wallet(Budget(day=100), tz=tz, spent=Past((before, 100)), now=calendar)
    assert wallet.left_microusd == 0
    calendar.now = after
    assert wallet.left_microusd == 100


@pytest.mark.parametrize(("budget", "days"), [(Budget(day=100), 2), (Budget(month=100), 40)], ids=["day", "month"])
def test_clock_set_back_gives_no_second_budget(budget: Budget, days: int) -> None:
    calendar = Calendar()
    wallet = Wallet(budget, spent=Past((NOON, 100)), now=calendar)
    calendar.now -= timedelta(days=days)
    assert wallet.left_microusd == 0


def test_clock_set_back_over_midnight_finds_what_the_earlier_day_spent() -> None:
    """What is sent now is dated that day: the next run would count it there, beside what was spent before."""
    calendar = Calendar(datetime(2026, 11, 22, 0, 5, tzinfo=UTC))
    wallet = Wallet(Budget(day=100), spent=Past((NOON - timedelta(days=1), 70)), now=calendar)
    wallet.settle(reserved(wallet, 20), 20)
    calendar.now -= timedelta(minutes=10)
    assert wallet.left_microusd == 30
    wallet.settle(reserved(wallet, 30), 30)
    assert refused(wallet, 1).is_final
    calendar.now += timedelta(minutes=10)
    assert wallet.left_microusd == 50


def test_money_dated_later_than_now_does_not_count_now() -> None:
    """A clock was ahead one night; the nights after it are not paid by it."""
    for ahead in (timedelta(hours=1), timedelta(days=1), timedelta(days=365)):
        wallet = Wallet(Budget(day=100, month=100), spent=Past((NOON + ahead, 100)), now=Calendar())
        assert wallet.left_microusd == 100


@pytest.mark.parametrize(
    ("tz", "first"),
    [
        ("America/Havana", datetime(2026, 11, 1, 4, 30, tzinfo=UTC)),
        ("Atlantic/Azores", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_midnight_that_comes_twice_gives_the_budget_once(tz: str, first: datetime) -> None:
    calendar = Calendar(first)
    wallet = Wallet(Budget(day=100), tz=tz, now=calendar)
    wallet.settle(reserved(wallet, 100), 100)
    calendar.now = first + timedelta(hours=1)
    assert wallet.left_microusd == 0
    assert Wallet(Budget(day=100), tz=tz, spent=Past((first, 100)), now=calendar).left_microusd == 0


def test_reservation_that_waited_over_midnight_is_made_again() -> None:
    calendar = Calendar()
    wallet = Wallet(Budget(day=100), now=calendar)
    waiting = reserved(wallet, 100)
    assert wallet.covers(waiting, 0)
    calendar.now += timedelta(hours=12)
    assert not wallet.covers(waiting, 0)
    wallet.release(waiting)
    assert wallet.covers(reserved(wallet, 100), 100)
    assert wallet.left_microusd == 0


def spend_a_year(name: str) -> None:
    """Reserve every hour; send up to two hours later. Dates are read off the zone's own clock, not from `days`."""
    calendar, zone = Calendar(YEAR[0]), ZoneInfo(name)
    wallet = Wallet(Budget(day=5, month=145), tz=name, now=calendar)
    sent: Counter[str] = Counter()
    waiting: list[Reservation] = []
    day = ""
    for hour in range(365 * 24):
        calendar.now = YEAR[0] + hour * HOUR
        day = max(day, calendar.now.astimezone(zone).date().isoformat())  # one that the clock goes back to is over
        for one in waiting[: hour % 3]:
            if wallet.covers(one, 0):
                wallet.settle(one, 1)
                sent.update([day, day[:7]])
            else:
                wallet.release(one)
        del waiting[: hour % 3]
        new = wallet.reserve(1)
        waiting += [new] if isinstance(new, Reservation) else []
    assert max(number for period, number in sent.items() if len(period) == len("2026-01-01")) == 5, name
    months = {f"2026-{month:02}": 140 if month == 2 else 145 for month in range(2, 12)}
    assert {month: sent[month] for month in months} == months, name


@pytest.mark.parametrize("name", ["America/Havana", "Atlantic/Azores", "Africa/Cairo"])
def test_a_year_of_hours_spends_each_day_once(name: str) -> None:
    spend_a_year(name)


def test_utc_needs_no_time_zone_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.ZoneInfo", lambda _: pytest.fail("asked for zone data"))
    assert Wallet(Budget(run=5)).left_microusd == 5


def test_repr_shows_the_state() -> None:
    wallet = Wallet(Budget(run=10_000_000))
    wallet.settle(reserved(wallet, 39_000), 39_000)
    reserved(wallet, 500_000)
    assert repr(wallet) == "<Wallet $0.039 spent, $0.50 reserved, $9.461 left>"


PRICE = st.integers(0, 400)
CEILING = st.one_of(st.none(), st.integers(0, 1500))
ZONES = ["UTC", "Europe/Lisbon", "America/Havana", "Atlantic/Azores", "Africa/Cairo", "Pacific/Auckland"]


@cache
def starts(at: datetime, zone: tzinfo) -> tuple[tuple[str, datetime], ...]:
    return ("day", day_of(at, zone).start), ("month", month_of(at, zone).start)


class WalletMachine(RuleBasedStateMachine):
    """Reserves, sends, settles, loses, releases, lets days pass and clocks go back, in any order.

    The ledger is kept by hand: what was sent, dated by the clock of that moment. At every moment, a run that began now
    would find no day and no month of that ledger above its budget.
    """

    waiting: Bundle[Reservation] = Bundle("waiting")
    flying: Bundle[Reservation] = Bundle("flying")

    @initialize(
        budget=st.builds(Budget, run=CEILING, day=CEILING, month=CEILING),
        tz=st.sampled_from(ZONES),
        before=st.integers(0, 1500),
        start=st.sampled_from([datetime(2026, 10, 23, 21, tzinfo=UTC), datetime(2026, 10, 31, 1, tzinfo=UTC)]),
    )
    def open(self, budget: Budget, tz: str, before: int, start: datetime) -> None:
        self.calendar, self.earliest = Calendar(start), start - timedelta(hours=2)
        self.budget, self.zone = budget, zone_of(tz)
        ceilings = [each for each in (budget.day, budget.month) if each is not None]
        before = min([before, *ceilings])
        self.ledger = [(start - timedelta(hours=3), before), (start + timedelta(days=400), 9999)]
        self.sent: dict[Reservation, int] = {}  # its place in the ledger
        self.wallet = Wallet(budget, tz=tz, spent=Past(*self.ledger), now=self.calendar)

    @rule(target=waiting, price=PRICE)
    def reserve(self, price: int) -> Reservation | MultipleResults[Reservation]:
        left = self.wallet.left_microusd
        answer = self.wallet.reserve(price)
        assert isinstance(answer, Reservation) == (left is None or price <= left)
        return answer if isinstance(answer, Reservation) else multiple()

    @rule(target=flying, one=consumes(waiting))
    def send(self, one: Reservation) -> Reservation | MultipleResults[Reservation]:
        if not self.wallet.covers(one, 0):
            self.wallet.release(one)
            return multiple()
        self.sent[one] = len(self.ledger)
        self.ledger.append((self.calendar.now, one.price_microusd))
        return one

    @rule(one=consumes(flying), share=st.floats(0, 1))
    def settle(self, one: Reservation, share: float) -> None:
        cost, place = int(one.price_microusd * share), self.sent.pop(one)
        self.wallet.settle(one, cost)
        self.ledger[place] = (self.ledger[place][0], cost)

    @rule(one=consumes(flying))
    def lose(self, one: Reservation) -> None:
        self.wallet.keep_unknown(one)
        del self.sent[one]

    @rule(one=consumes(flying))
    def release(self, one: Reservation) -> None:
        self.wallet.release(one)
        place = self.sent.pop(one)
        self.ledger[place] = (self.ledger[place][0], 0)

    @rule(minutes=st.integers(-2000, 2000))
    def pass_time(self, minutes: int) -> None:
        self.calendar.now = max(self.earliest, self.calendar.now + timedelta(minutes=minutes))

    @invariant()
    def no_budget_is_overspent(self) -> None:
        """Also as the next run sees it, by the dates in the ledger."""
        spans: dict[tuple[str, datetime], int] = {}
        for at, amount in (entry for place, entry in enumerate(self.ledger) if place != 1):
            for kind, start in starts(at, self.zone):
                spans[kind, start] = spans.get((kind, start), 0) + amount
        for (kind, start), amount in spans.items():
            ceiling = self.budget.day if kind == "day" else self.budget.month
            assert ceiling is None or amount <= ceiling, (kind, start)
        sent = sum(amount for _, amount in self.ledger[2:])
        assert self.budget.run is None or sent <= self.budget.run

    @invariant()
    def books_agree(self) -> None:
        wallet = self.wallet
        used = wallet.spent_microusd + wallet.unknown_microusd + wallet.reserved_microusd
        assert used >= sum(amount for _, amount in self.ledger[2:])  # the rest waits
        assert min(wallet.spent_microusd, wallet.unknown_microusd, wallet.reserved_microusd) >= 0


TestWalletMachine = WalletMachine.TestCase
TestWalletMachine.settings = settings(max_examples=60, stateful_step_count=30)


def test_P9_an_answer_dearer_than_reserved_is_summed_up_and_stops_what_follows() -> None:
    wallet = Wallet(Budget(run=100))
    first = wallet.reserve(40)
    assert isinstance(first, Reservation)
    wallet.settle(first, 130)
    assert (wallet.overrun_microusd, wallet.spent_microusd, wallet.left_microusd) == (90, 130, 0)
    refused = wallet.reserve(1)
    assert isinstance(refused, Refusal)
    assert refused.is_final


def test_P9_a_reservation_does_not_cover_a_price_that_rose() -> None:
    wallet = Wallet(Budget(run=100))
    reservation = wallet.reserve(40)
    assert isinstance(reservation, Reservation)
    assert wallet.covers(reservation, 40)
    assert not wallet.covers(reservation, 41)


def test_P9_a_reservation_does_not_cover_another_day() -> None:
    now = datetime(2026, 11, 28, 23, 59, tzinfo=UTC)
    wallet = Wallet(Budget(day=100), now=lambda: now)
    reservation = wallet.reserve(40)
    assert isinstance(reservation, Reservation)
    now += timedelta(minutes=2)
    assert not wallet.covers(reservation, 40)


def test_P9_a_reservation_that_is_topped_up_may_exceed_the_budget_and_stops_what_follows() -> None:
    wallet = Wallet(Budget(run=100))
    first, second = wallet.reserve(40), wallet.reserve(40)
    assert isinstance(first, Reservation)
    assert isinstance(second, Reservation)
    wallet.settle(first, 70)
    wallet.top_up(second, 70)
    assert (wallet.reserved_microusd, wallet.left_microusd) == (70, 0)
    assert isinstance(wallet.reserve(1), Refusal)
    wallet.settle(second, 60)  # against what was reserved at first: both were dearer
    assert (wallet.overrun_microusd, wallet.exceeded) == (50, ((Period.RUN, 30),))


def test_P9_an_unknown_outcome_keeps_what_was_topped_up() -> None:
    wallet = Wallet(Budget(run=100))
    reservation = reserved(wallet, 40)
    wallet.top_up(reservation, 60)
    wallet.top_up(reservation, 50)  # never lowered
    wallet.keep_unknown(reservation)
    assert (wallet.unknown_microusd, wallet.reserved_microusd, wallet.exceeded) == (60, 0, ())

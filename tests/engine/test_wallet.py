"""Money: nothing is sent that a budget does not cover, whatever the order of things, the day or the zone."""

from datetime import UTC, datetime, timedelta
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

from pipeline.engine.wallet import Refusal, Reservation, Wallet
from pipeline.model import Spend
from pipeline.settings import Budget

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
    wallet = Wallet(budget, day=Spend(spent_microusd=300), month=Spend(spent_microusd=700, unknown_microusd=300))
    refusal = refused(wallet, 200)
    assert (refusal.period, refusal.left_microusd, refusal.price_microusd) == (period, left, 200)
    assert wallet.left_microusd == left
    assert wallet.reserved_microusd == 0


def test_refusal_says_what_a_person_wants_to_know() -> None:
    text = str(refused(Wallet(Budget(run=1_500_000), day=Spend()), 1_539_000))
    assert text == "the budget of this run ($1.50) is used up: $1.50 left, the next image costs $1.539"


def test_refusal_is_not_final_while_something_in_flight_may_free_enough() -> None:
    wallet = Wallet(Budget(run=100))
    flying = reserved(wallet, 60)
    assert not refused(wallet, 60).is_final
    assert refused(wallet, 101).is_final
    wallet.settle(flying, 30)
    assert isinstance(wallet.reserve(60), Reservation)


def test_refusal_is_final_when_one_budget_cannot_be_freed() -> None:
    wallet = Wallet(Budget(run=100, day=50), day=Spend(spent_microusd=45))
    reserved(wallet, 5)
    wallet2 = Wallet(Budget(run=100, day=50), day=Spend(spent_microusd=50))
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
    spend = Spend(spent_microusd=90)
    wallet = Wallet(Budget(day=100, month=150), day=spend, month=spend, now=calendar)
    assert wallet.left_microusd == 10
    calendar.now += timedelta(hours=12)
    assert wallet.left_microusd == 60  # of the month
    calendar.now = datetime(2026, 12, 1, tzinfo=UTC)
    assert wallet.left_microusd == 100


def test_new_year_is_a_new_month() -> None:
    calendar = Calendar(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
    wallet = Wallet(Budget(month=100), month=Spend(spent_microusd=100), now=calendar)
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
    wallet = Wallet(Budget(day=100), tz=tz, day=Spend(spent_microusd=100), now=calendar)
    assert wallet.left_microusd == 0
    calendar.now = after
    assert wallet.left_microusd == 100


def test_clock_set_back_gives_no_second_day() -> None:
    calendar = Calendar()
    wallet = Wallet(Budget(day=100), day=Spend(spent_microusd=100), now=calendar)
    calendar.now -= timedelta(days=2)
    assert wallet.left_microusd == 0


def test_utc_needs_no_time_zone_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.wallet.ZoneInfo", lambda _: pytest.fail("asked for zone data"))
    assert Wallet(Budget(run=5)).left_microusd == 5


def test_repr_shows_the_state() -> None:
    wallet = Wallet(Budget(run=10_000_000))
    wallet.settle(reserved(wallet, 39_000), 39_000)
    reserved(wallet, 500_000)
    assert repr(wallet) == "<Wallet $0.039 spent, $0.50 reserved, $9.461 left>"


PRICE = st.integers(0, 400)
CEILING = st.one_of(st.none(), st.integers(0, 1500))
ZONES = ["UTC", "Europe/Lisbon", "America/New_York", "Pacific/Auckland"]


class WalletMachine(RuleBasedStateMachine):
    """Reserves, settles, loses, releases and lets days pass in any order; keeps the books by hand."""

    flying: Bundle[Reservation] = Bundle("flying")

    @initialize(budget=st.builds(Budget, run=CEILING, day=CEILING, month=CEILING), tz=st.sampled_from(ZONES), day=PRICE)
    def open(self, budget: Budget, tz: str, day: int) -> None:
        self.calendar = Calendar(datetime(2026, 10, 24, 21, tzinfo=UTC))
        self.budget, self.zone = budget, ZoneInfo(tz)
        spend = Spend(spent_microusd=day)
        self.wallet = Wallet(budget, tz=tz, day=spend, month=spend, now=self.calendar)
        self.before = {"day": (self.today(), day), "month": (self.today(), day)}
        self.held: dict[int, tuple[tuple[int, int, int], int]] = {}
        self.gone: list[tuple[tuple[int, int, int], int]] = []
        self.unknown = 0

    def today(self) -> tuple[int, int, int]:
        local = self.calendar.now.astimezone(self.zone)
        return local.year, local.month, local.day

    def committed(self, parts: int) -> int:
        """Sum what was taken in the present year (1), month (2) or day (3); 0: ever, by this run."""
        entries = [*self.held.values(), *self.gone]
        return sum(amount for date, amount in entries if date[:parts] == self.today()[:parts])

    def earlier(self, period: str, parts: int) -> int:
        date, amount = self.before[period]
        return amount if date[:parts] == self.today()[:parts] else 0

    def rooms(self) -> list[int]:
        budget = self.budget
        rooms = [(budget.run, self.committed(0)), (budget.day, self.committed(3) + self.earlier("day", 3))]
        rooms.append((budget.month, self.committed(2) + self.earlier("month", 2)))
        return [ceiling - used for ceiling, used in rooms if ceiling is not None]

    @rule(target=flying, price=PRICE)
    def reserve(self, price: int) -> Reservation | MultipleResults[Reservation]:
        fits = all(price <= room for room in self.rooms())
        answer = self.wallet.reserve(price)
        assert isinstance(answer, Reservation) == fits
        if isinstance(answer, Refusal):
            return multiple()
        self.held[answer.serial] = (self.today(), price)
        return answer

    @rule(one=consumes(flying), share=st.floats(0, 1))
    def settle(self, one: Reservation, share: float) -> None:
        date, price = self.held.pop(one.serial)
        self.wallet.settle(one, int(price * share))
        self.gone.append((date, int(price * share)))

    @rule(one=consumes(flying))
    def lose(self, one: Reservation) -> None:
        self.wallet.keep_unknown(one)
        self.gone.append(self.held.pop(one.serial))
        self.unknown += one.price_microusd

    @rule(one=consumes(flying))
    def release(self, one: Reservation) -> None:
        self.wallet.release(one)
        del self.held[one.serial]

    @rule(hours=st.integers(1, 30))
    def pass_time(self, hours: int) -> None:
        self.calendar.now += timedelta(hours=hours)

    @invariant()
    def books_agree(self) -> None:
        wallet = self.wallet
        used = wallet.spent_microusd + wallet.unknown_microusd + wallet.reserved_microusd
        assert used == self.committed(0)
        assert wallet.unknown_microusd == self.unknown
        assert min(wallet.spent_microusd, wallet.unknown_microusd, wallet.reserved_microusd) >= 0
        assert wallet.left_microusd == (max(0, min(self.rooms())) if self.rooms() else None)

    @invariant()
    def no_budget_is_overspent(self) -> None:
        """What earlier runs spent above a budget is not this run's doing."""
        assert self.budget.run is None or self.committed(0) <= self.budget.run
        assert self.budget.day is None or self.committed(3) <= max(0, self.budget.day - self.earlier("day", 3))
        assert self.budget.month is None or self.committed(2) <= max(0, self.budget.month - self.earlier("month", 2))


TestWalletMachine = WalletMachine.TestCase
TestWalletMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


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

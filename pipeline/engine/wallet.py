"""Budgets of run, day and month: reserved before an attempt, settled after it.

A reservation is refused with the name of the budget that would be exceeded. Everything is an integer of micro-dollars;
a plain object used on one event loop, so no two workers can reserve the same money.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from pipeline.model import Spend
from pipeline.settings import Budget, Span, day_of, month_of, zone_of
from pipeline.text import money


class Period(StrEnum):
    """What a budget covers."""

    RUN = "run"
    DAY = "day"
    MONTH = "month"


@dataclass(slots=True, eq=False)
class Reservation:
    """Money set aside for one attempt, in the periods in which it was made."""

    price_microusd: int  # as it stands; `Wallet.top_up` raises it
    first_microusd: int  # as it was made
    accounts: "tuple[_PeriodBudget, ...]" = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """No reservation: a budget would be exceeded. Final when nothing reserved could free enough."""

    period: Period
    budget_microusd: int
    left_microusd: int  # of that budget, what is reserved counted as spent
    unknown_microusd: int  # maybe billed, in that budget
    price_microusd: int
    is_final: bool

    def __str__(self) -> str:
        budget = f"the budget of this {self.period} ({money(self.budget_microusd)})"
        remedy = f"raise limits.budget.{self.period}" + (" (--budget)" if self.period is Period.RUN else "")
        price = f"the next image may cost {money(self.price_microusd)}"
        if self.price_microusd > self.budget_microusd:  # a new budget of the same size does not help
            return f"{budget} is too small for one image: {price}; {remedy}"
        unknown = f", {money(self.unknown_microusd)} of it maybe billed" if self.unknown_microusd else ""
        left = f"{money(self.left_microusd)} left, {price}"
        return f"{budget} is used up{unknown}: {left}; the next {self.period} has a new budget, or {remedy}"


class Excess(NamedTuple):
    """A budget that was exceeded."""

    period: Period
    microusd: int  # beyond it


@dataclass(slots=True, eq=False)
class _PeriodBudget:
    """The money of one period."""

    period: Period
    budget: int | None
    spent: int = 0
    unknown: int = 0
    reserved: int = 0

    @property
    def left(self) -> int | None:
        """What may still be reserved; negative where an earlier run left more than the budget now allows."""
        return None if self.budget is None else self.budget - self.spent - self.unknown - self.reserved

    @property
    def over(self) -> int:
        """By how much the budget is exceeded; 0: it is not, or there is none."""
        return 0 if self.budget is None else max(0, self.spent + self.unknown - self.budget)

    def refusal(self, price: int) -> Refusal | None:
        left = self.left
        if self.budget is None or left is None or price <= left:
            return None
        return Refusal(
            self.period, self.budget, max(0, left), self.unknown, price, is_final=price > left + self.reserved
        )


Spent = Callable[[datetime, datetime], Spend]
NOTHING: Final[Spent] = lambda _since, _until: Spend()  # noqa: E731 - a value


@dataclass(eq=False, repr=False)
class Wallet:
    """The budgets of one run.

    A reservation counts in the day and month in which it was made, also when it is settled later; it may be sent only
    in those. A clock that goes back returns to the earlier day's account, and the later one still binds: it is not
    known which of the two the clock was wrong about.
    """

    budget: Budget
    _: KW_ONLY
    tz: str = "UTC"
    spent: Spent = NOTHING  # by other runs, from a moment up to another, both included
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        self._zone = zone_of(self.tz)
        self._run = _PeriodBudget(Period.RUN, self.budget.run)
        self._periods: dict[tuple[Period, datetime], _PeriodBudget] = {}  # by kind and start
        self._today: Span | None = None
        self._accounts: tuple[_PeriodBudget, ...] = (self._run,)
        self._turn_page()
        self._open: set[Reservation] = set()
        self.overrun_microusd = 0  # what answers of this run cost more than was reserved for them

    def __repr__(self) -> str:
        left = "no budget" if self.left_microusd is None else f"{money(self.left_microusd)} left"
        return f"<Wallet {money(self.spent_microusd)} spent, {money(self.reserved_microusd)} reserved, {left}>"

    @property
    def spent_microusd(self) -> int:
        """Billed, by this run."""
        return self._run.spent

    @property
    def unknown_microusd(self) -> int:
        """Maybe billed, by this run."""
        return self._run.unknown

    @property
    def reserved_microusd(self) -> int:
        """Set aside for what is in flight."""
        return self._run.reserved

    @property
    def left_microusd(self) -> int | None:
        """What may still be reserved under the tightest budget; None: there is no budget."""
        self._turn_page()
        lefts = [left for account in self._accounts if (left := account.left) is not None]
        return max(0, min(lefts)) if lefts else None

    @property
    def exceeded(self) -> tuple[Excess, ...]:
        """Return the budgets of this moment of which more than all is spent or maybe spent, and by how much."""
        self._turn_page()
        over = ((account.period, account.over) for account in self._accounts)
        return tuple(Excess(period, microusd) for period, microusd in over if microusd > 0)

    def reserve(self, price_microusd: int) -> Reservation | Refusal:
        """Set `price_microusd` aside in every budget, or say which one forbids it."""
        if price_microusd < 0:
            raise ValueError(f"a price cannot be negative: {price_microusd}")
        self._turn_page()
        accounts = self._accounts
        refusals = [refusal for account in accounts if (refusal := account.refusal(price_microusd))]
        if refusals:
            return min(refusals, key=lambda r: r.left_microusd)
        for account in accounts:
            account.reserved += price_microusd
        reservation = Reservation(price_microusd, price_microusd, accounts)
        self._open.add(reservation)
        return reservation

    def top_up(self, reservation: Reservation, price_microusd: int) -> None:
        """Raise an open reservation to a price that rose while its request was in flight; never lowers it.

        The request cannot be called back, so no budget refuses this: one that no longer has room for it reserves
        nothing further until it has.
        """
        more = max(0, price_microusd - reservation.price_microusd)
        reservation.price_microusd += more
        for account in reservation.accounts:
            account.reserved += more

    def covers(self, reservation: Reservation, price_microusd: int) -> bool:
        """Tell whether a reservation is still enough for `price_microusd`, and of the present day and month.

        If not, release it and make another one.
        """
        self._turn_page()
        return reservation.price_microusd >= price_microusd and reservation.accounts == self._accounts

    def settle(self, reservation: Reservation, cost_microusd: int) -> None:
        """Replace the reservation by what it did cost; more than was reserved is possible and counts."""
        if cost_microusd < 0:
            raise ValueError(f"a cost cannot be negative: {cost_microusd}")
        self.overrun_microusd += max(0, cost_microusd - reservation.first_microusd)
        for account in self._take(reservation):
            account.spent += cost_microusd

    def keep_unknown(self, reservation: Reservation) -> None:
        """Keep its price reserved for good, as unknown: it may have been billed."""
        for account in self._take(reservation):
            account.unknown += reservation.price_microusd

    def release(self, reservation: Reservation) -> None:
        """Free its price: it was provably not billed."""
        self._take(reservation)

    def _take(self, reservation: Reservation) -> "tuple[_PeriodBudget, ...]":
        """Close the reservation. Raises KeyError when it was closed before."""
        self._open.remove(reservation)
        for account in reservation.accounts:
            account.reserved -= reservation.price_microusd
        return reservation.accounts

    def _turn_page(self) -> None:
        """See to it that the accounts are those of this moment."""
        now = self.now()
        if self._today is not None and now in self._today:
            return
        self._today, month = day_of(now, self._zone), month_of(now, self._zone)
        self._open_account(Period.DAY, self.budget.day, self._today, now)
        self._open_account(Period.MONTH, self.budget.month, month, now)
        self._accounts = (self._run, *self._binding(Period.DAY, self._today), *self._binding(Period.MONTH, month))

    def _binding(self, kind: Period, span: Span) -> list[_PeriodBudget]:
        """Return the accounts of this period and of those after it, which only a clock that went back leaves open."""
        return [account for (period, start), account in self._periods.items() if period is kind and start >= span.start]

    def _open_account(self, period: Period, budget: int | None, span: Span, now: datetime) -> None:
        """Open the account of a day or month that this run has not been in; what is dated later than now is not."""
        if (period, span.start) not in self._periods:
            spent = self.spent(span.start, now)
            account = _PeriodBudget(period, budget, spent.spent_microusd, spent.unknown_microusd)
            self._periods[period, span.start] = account

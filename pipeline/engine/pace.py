"""When the next request may start.

In: three verbs, `delay`, `started`, `finished`, a clock and a die. Out: seconds; and through `Gate`, the one async
front, tickets. It refuses to know tasks and money.

What it composes, each with the same three verbs: the canary (one request until something is known), the limit of
requests in flight and a learned rate (`congestion`, from what `history` saw), the rate a person told us (`window`), the
shared pause and the breaker (`breaker`).
"""

import asyncio
import math
import random as dice
import time
from collections.abc import Awaitable, Callable

from pipeline.engine.breaker import DOWN, Breaker, Pause
from pipeline.engine.congestion import Limit, Ramp, Rate
from pipeline.engine.halt import Halt
from pipeline.engine.history import History, Ticket
from pipeline.engine.window import MINUTE_S, Window
from pipeline.model import UNSENT, Fault
from pipeline.settings import Limits, Retry

__all__ = ["Gate", "Pace", "Stopped", "Ticket"]

Sleep = Callable[[asyncio.Event, float], Awaitable[None]]

MORE = 1.1  # what the server takes may have fallen a little
GOES_ON = 10  # starts taken within a minute; fewer may be the first ones after a closure
SOON_S = 0.001  # the least wait worth telling: a rounding error must not become a busy loop
NO_VERDICT = frozenset(  # the next one is a canary too
    {Fault.UNREACHABLE, Fault.SILENCE, Fault.MODEL_MISSING, Fault.UPSTREAM_ACCOUNT}
)
PUSHED_BACK = frozenset({Fault.THROTTLED, Fault.QUOTA})
SERVED = frozenset(
    {None, Fault.REFUSED, Fault.NO_IMAGE, Fault.BROKEN, Fault.LINK}
)  # a whole 200: the server did the work


class Pace:
    """Every limit on starting a request that is not about money, in one."""

    def __init__(
        self,
        limits: Limits,
        *,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = dice.random,
    ) -> None:
        self._clock = clock
        self._is_adaptive = limits.adaptive
        self._window = None if limits.requests_per_minute is None else Window(limits.requests_per_minute)
        self._limit = Limit(start=limits.start, most=limits.concurrency, is_adaptive=limits.adaptive)
        self._rate = Rate()
        self._history = History()
        self._pause = Pause(retry, random=random)
        self._breaker = Breaker()
        self._open: set[Ticket] = set()
        self._serial = 0
        self._is_canary = True
        self._ramp = Ramp()
        self._push_back: Ticket | None = None  # the first refusal since the server last took something
        self._row = 0  # of push-backs, counted
        self._cut_serial = 0  # starts up to here belong to a round that was pushed back
        self._relax_serial = 0  # the cut before that; what was started since and served makes the backoff begin anew

    def __repr__(self) -> str:
        return f"<Pace {self.in_flight} in flight, limit {self.limit}, {self.pause_reason or 'no pause'}>"

    @property
    def in_flight(self) -> int:
        return len(self._open)

    @property
    def limit(self) -> int:
        """Requests that may be in flight at this moment."""
        return 1 if self._is_canary else int(self._limit.value)

    @property
    def pause_reason(self) -> str | None:
        """Why nobody sends now, in words for a person; None: no pause."""
        now = self._clock()
        pause, breaker = self._pause.left_s(now), self._breaker.left_s(now)
        if max(pause, breaker) <= 0:
            return None
        return self._pause.reason if pause >= breaker else "the provider is down"

    @property
    def pause_left_s(self) -> float:
        now = self._clock()
        return max(self._pause.left_s(now), self._breaker.left_s(now))

    @property
    def verdict(self) -> Halt | None:
        """The order to give up, once the breaker has opened too often without a success."""
        return self._breaker.verdict

    def delay(self) -> float:
        """Return 0.0 when a request may start now, else the seconds until it is worth asking again.

        `math.inf`: only when something finishes.
        """
        if self.in_flight >= self.limit:
            return math.inf
        now = self._clock()
        wait = max(self._pause.left_s(now), self._breaker.delay(now), self._rate.delay(now), self._limit.delay(now))
        if not self._rate.is_known(now):  # it spreads the starts well enough
            wait = max(wait, self._ramp.delay(now, self.in_flight))
        if self._window is not None:
            wait = max(wait, self._window.delay(now))
        return max(wait, SOON_S) if wait > 0 else 0.0

    def started(self) -> Ticket:
        """Take a slot. Only after `delay` said 0.0, with no await in between."""
        now = self._clock()
        self._serial += 1
        ticket = Ticket(self._serial, now, self.in_flight + 1)
        self._open.add(ticket)
        for part in (self._limit, self._ramp, self._history, self._breaker):
            part.started(ticket)
        self._rate.started(now)
        if self._window is not None:
            self._window.started(now)
        return ticket

    def abandoned(self, ticket: Ticket) -> None:
        """Give back the slot of a request that was never sent."""
        self._open.remove(ticket)
        self._history.refused(ticket)  # the server never saw it
        self._breaker.abandoned(ticket)
        if self._window is not None:
            self._window.abandoned(ticket.at)

    def finished(self, ticket: Ticket, outcome: Fault | None, hint_s: float | None) -> None:
        """Give back the slot and learn from how it ended; None is success. `hint_s`: the delay the server named."""
        if outcome in UNSENT:
            self.abandoned(ticket)
            return
        self._open.remove(ticket)
        now = ticket.ended_at = self._clock()
        if outcome not in NO_VERDICT:
            self._is_canary = False
        if self._breaker.finished(ticket, outcome, started_at=ticket.at, now=now):
            self._restart()
        if outcome in PUSHED_BACK:
            self._pushed_back(ticket, hint_s, now)
        elif hint_s is not None and hint_s > 0:
            self._pause.hint(now, hint_s)
            self._restart()
        if outcome is Fault.MODEL_MISSING and self._pause.left_s(now) <= 0:
            self._pause.space(now)
            self._restart()
        if outcome in DOWN:
            self._limit.stay(self._serial)
        if outcome in SERVED:
            self._served(ticket, now)

    def _served(self, ticket: Ticket, now: float) -> None:
        self._limit.grow(ticket, now)
        self._ramp.grow(self._limit.value)
        if ticket.serial > self._relax_serial:
            self._pause.relax()
        if ticket.serial > self._cut_serial:
            self._push_back = None

    def _pushed_back(self, ticket: Ticket, hint_s: float | None, now: float) -> None:
        """Wait, all of us; once per round send less; find out what the server counts."""
        self._history.refused(ticket)
        if self._push_back is not None and self._is_over(self._push_back, ticket):
            self._push_back = None
        is_new_round, is_new_row = ticket.serial > self._cut_serial, self._push_back is None
        if self._push_back is None or ticket.serial < self._push_back.serial:
            self._push_back = ticket
        hint_s = max(0.0, hint_s or 0.0)
        if hint_s > 0:
            self._pause.hint(now, hint_s)
        elif is_new_round:
            frees_s = self._history.frees_s(self._push_back, ticket, now) if self._is_adaptive else 0.0
            self._pause.back_off(now, frees_s)
        self._restart()
        if is_new_round:
            self._relax_serial, self._cut_serial = self._cut_serial, self._serial
            self._limit.cut(is_new_row=is_new_row)
        self._row += is_new_row
        if self._is_adaptive and ticket.at <= self._push_back.at + MINUTE_S:  # later, the row says nothing new
            self._learn(ticket, self._push_back, hint_s, now, is_new_row=is_new_row)

    def _is_over(self, first: Ticket, ticket: Ticket) -> bool:
        """Whether the row that `first` began says nothing about this push-back: it is old, and the server goes on."""
        return ticket.at > first.at + MINUTE_S and self._history.taken(ticket) >= GOES_ON

    def _learn(self, ticket: Ticket, first: Ticket, hint_s: float, now: float, *, is_new_row: bool) -> None:
        """Tell a limit of requests in flight from a limit per minute.

        Refused with more in flight than it surely took before: the first kind, as far as we know. Refused with less:
        what it counts is starts, and the ones it took in the minute before the `first` refusal of this row are its
        answer. In the first minute of a run, where one stray refusal would make an answer of almost nothing, that takes
        a second one. Refused with nothing in flight, when hardly anything was taken before: no answer at all.
        """
        taken, age_s = self._history.taken(first), self._history.age_s(now)
        at_least, at_most = self._history.most_taken(first, ticket), self._history.most_beside(ticket)
        is_about_starts = at_least > MORE * at_most or (at_most == 0 and taken > 1)
        if not is_about_starts:
            level = max(at_least, ticket.level - 1) if ticket.level > 1 else 0
            self._limit.hold(level, hint_s, taken, now, age_s=age_s)
        elif not is_new_row or age_s >= MINUTE_S:
            self._rate.learn(taken, hint_s, now, row=self._row, age_s=age_s)

    def _restart(self) -> None:
        """Come back without a burst when the pause is over."""
        self._ramp.arm(self._history.taken())


class Stopped(Exception):  # noqa: N818 - reads as what happened
    """The gate lets nobody through any more; no slot was taken."""


async def sleep_until(event: asyncio.Event, seconds: float) -> None:
    """Return when `event` is set or `seconds` are over, whichever comes first. Infinite: only the event."""
    try:
        async with asyncio.timeout(None if seconds == math.inf else seconds):
            await event.wait()
    except TimeoutError:
        return


class Gate:
    """Lets workers through in the order they came, as the pace allows.

    Cancelling a waiter takes no slot: between the last await and the ticket nothing can be cancelled.
    """

    def __init__(self, pace: Pace, *, sleep: Sleep = sleep_until) -> None:
        self.pace = pace
        self._sleep = sleep
        self._turn = asyncio.Lock()  # first in, first out
        self._changed = asyncio.Event()
        self.is_stopped = False

    async def enter(self) -> Ticket:
        """Wait for a slot and take it. Raises Stopped; then, and when cancelled, no slot is held."""
        async with self._turn:
            while not self.is_stopped:
                delay = self.pace.delay()
                if delay <= 0:
                    return self.pace.started()
                self._changed.clear()
                await self._sleep(self._changed, delay)
            raise Stopped

    def finished(self, ticket: Ticket, outcome: Fault | None, hint_s: float | None) -> None:
        """Give the slot back with how it ended, and look again."""
        self.pace.finished(ticket, outcome, hint_s)
        self._changed.set()

    def abandoned(self, ticket: Ticket) -> None:
        """Give back the slot of a request that was never sent, and look again."""
        self.pace.abandoned(ticket)
        self._changed.set()

    def stop(self) -> None:
        """Let nobody through any more; who waits now gets Stopped."""
        self.is_stopped = True
        self._changed.set()

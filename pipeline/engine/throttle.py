"""When the next request may start: one flow controller that finds what the server allows, however it counts.

1. One request, the canary, until its answer is judged.
2. Then as many as `limit_search` allows: so many in flight, so many starts a second.
3. A refusal closes the gate (`backoff`). Nobody starts before a named delay is over; where none is named, a probe asks
   after gaps that grow, and once when an answer comes. A probe that is not refused within twice the time of a refusal
   opens the gate, and how it opened teaches what is counted.
4. Refusals may also come by chance, however little is sent: `backoff.Strays` tells them from a limit. Single ones
   close nothing; their task alone waits.
5. Other 5xx, silence and connections that fail: five of the last twenty close the gate, and teach nothing.

`Throttle` neither sleeps nor sends: the clock and the die are parameters. `Gate` is its one async front.
"""

import asyncio
import math
import random as dice
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

from pipeline.engine.backoff import SPREAD, Backoff, Strays
from pipeline.engine.halt import Halt
from pipeline.engine.limit_search import LimitSearch
from pipeline.engine.starts import RateWindow, StartHistory, Ticket
from pipeline.errors import Exit
from pipeline.model import UNSENT, Failure, Fault
from pipeline.settings import Limits, Retry

SOON_S = 0.001  # the least wait: a rounding error must not become a busy loop
STRAY_GAP_S, STRAY_WAIT_S = 0.05, 1.0  # before a probe, and before the same task, after refusals by chance
FAST_S, FAST_SHARE = 0.5, 0.25  # a 503 before that, or before this share of an answer's time, is a refusal
RECENT, DOWN_AT = 20, 5
GIVE_UP_S, UNREACHED_S = 600.0, 60.0
FIRST_CAP_S, FIRST_S = 5.0, 60.0  # between probes while no request was ever taken, and for how long: a usual window

# A whole 200: the server did the work.
SERVED = frozenset({None, Fault.REFUSED, Fault.NO_IMAGE, Fault.BROKEN, Fault.LINK})
REFUSED = frozenset({Fault.THROTTLED, Fault.QUOTA})
DOWN = frozenset({Fault.UNREACHABLE, Fault.SILENCE, Fault.OUTAGE})
NO_VERDICT = frozenset(  # the next one is a canary too: nobody answered, or what came is paid for and no image
    {
        Fault.UNREACHABLE,
        Fault.SILENCE,
        Fault.MODEL_MISSING,
        Fault.UPSTREAM_ACCOUNT,
        Fault.NO_IMAGE,
        Fault.BROKEN,
        Fault.LINK,
    }
)


Sleep = Callable[[asyncio.Event, float], Awaitable[None]]


class Throttle:
    """Every limit on starting a request that is not about money."""

    def __init__(
        self,
        limits: Limits,
        *,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = dice.random,
    ) -> None:
        self._clock, self._random, self._retry = clock, random, retry
        self._given_rate = None if limits.requests_per_minute is None else RateWindow(limits.requests_per_minute)
        self._history = StartHistory()
        self._search = LimitSearch(limits, self._history)
        self._strays = {429: Strays(is_limit=True), 503: Strays(is_limit=False)}  # until shown otherwise
        self._backoff: Backoff | None = None
        self._is_canary = True
        self._is_reached = False
        self._first_at = math.inf
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._misses = 0
        self._down_since: float | None = None
        self.verdict: Halt | None = None  # the order to give up

    def __repr__(self) -> str:
        parts = [f"{self.in_flight} in flight", f"limit {self.limit}"]
        parts += [f"{self._search!r}"] if self._search.rate is not None else []
        parts += [f"closed: {self._backoff.reason}"] if self._backoff is not None else []
        return f"<Throttle {', '.join(parts)}>"

    @property
    def in_flight(self) -> int:
        return len(self._history.open)

    @property
    def limit(self) -> int:
        """Requests that may be in flight at this moment."""
        return 1 if self._is_canary else int(self._search.limit)

    @property
    def pause_left_s(self) -> float:
        """Return for how long nobody starts; 0.0 also while a probe is under way."""
        return 0.0 if self._backoff is None else max(0.0, self._backoff.until - self._clock())

    @property
    def pause_reason(self) -> str | None:
        """Why nobody starts now, in words for a person; None: no pause."""
        return self._backoff.reason if self._backoff is not None and self.pause_left_s > 0 else None

    def is_held_back(self, ticket: Ticket) -> bool:
        """Whether the gate closed since the ticket was taken: then it is not sent."""
        return self._backoff is not None and self._backoff.probe is not ticket

    # -- the three verbs ------------------------------------------------------------------------------------------

    def delay(self) -> float:
        """Return 0.0 when a request may start now, else the seconds until it is worth asking again.

        `math.inf`: only when something finishes.
        """
        now = self._clock()
        self._settle(now)
        if self.in_flight >= self.limit:
            wait = self._search.full_delay(now)
            return math.inf if self._is_canary else wait
        wait = 0.0 if self._backoff is None else self._backoff.delay(now)
        if self._given_rate is not None:
            wait = max(wait, self._given_rate.delay(now))
        wait = max(wait, self._search.delay(now, wait))
        return max(wait, SOON_S) if wait > 0 else 0.0

    def started(self) -> Ticket:
        """Take a slot. Only after `delay` returned 0.0, with no await in between."""
        now = self._clock()
        ticket = self._history.started(now)
        if self._is_canary or ticket.serial == 2:
            self._first_at = min(self._first_at, now)
            self._history.period_at = now
            self._search.first(now, now - self._first_at)
        if self._backoff is not None:
            self._backoff.probe = ticket
        self._recent.append(False)
        if self._given_rate is not None:
            self._given_rate.started(now)
        self._search.started(now, is_canary=self._is_canary, can_grow=self._backoff is None)
        return ticket

    def sent(self, ticket: Ticket) -> None:
        """Count a request from when it goes out, which is now: its commit may have taken a while."""
        ticket.at = self._clock()
        if not self._is_canary:
            self._search.sent(self._clock())

    def abandoned(self, ticket: Ticket) -> None:
        """Give back the slot of a request that was never sent."""
        del self._history.open[ticket.serial]
        self._history.not_taken(ticket)
        if self._given_rate is not None:
            self._given_rate.forget(ticket.at)
        if self._backoff is not None and self._backoff.probe is ticket:
            self._backoff.probe = None

    def finished(self, ticket: Ticket, failure: Failure | None) -> Failure | None:
        """Give back the slot and learn from how it ended; None is an image.

        Returns the failure as it is to be treated: a fast 503 that closed the gate is throttling, and no attempt of the
        task; `hint_s` of a 429 by chance is the second that its task waits.
        """
        fault = None if failure is None else failure.fault
        if fault in UNSENT:
            self.abandoned(ticket)
            return failure
        now = self._clock()
        self._settle(now)
        del self._history.open[ticket.serial]
        if fault not in NO_VERDICT:
            self._is_canary = False
        self._is_reached |= fault is not Fault.UNREACHABLE
        if failure is not None and self._is_refusal(ticket, failure, now):
            return self._refused(ticket, failure, now)
        if failure is not None and fault in DOWN:
            self._down(ticket, failure, now)
        else:
            self._answered(ticket, failure, now)
        return failure

    # -- how a request ended --------------------------------------------------------------------------------------

    def _answered(self, ticket: Ticket, failure: Failure | None, now: float) -> None:
        """The server took it: an image, a refusal of the prompt, or a mistake of ours."""
        fault = None if failure is None else failure.fault
        if fault in SERVED:
            self._down_since, self._misses = None, 0
            self._history.answered(ticket, now - ticket.at)
            for strays in self._strays.values():
                strays.served()
        backoff = self._backoff
        if failure is not None and (failure.hint_s or 0) > 0:
            self._close(ticket, failure, now, teaches=False)
        elif fault is Fault.MODEL_MISSING:
            self._space(ticket, now)
        elif backoff is not None and backoff.probe is ticket:
            self._reopen(backoff, ticket)
        elif backoff is not None and backoff.teaches and not backoff.is_named and not backoff.has_seen_end:
            backoff.has_seen_end = True
            backoff.until = now

    def _is_refusal(self, ticket: Ticket, failure: Failure, now: float) -> bool:
        """Whether the server did not take it: 429, or a 503 that is too fast to be the end of some work."""
        is_fast = now - ticket.at <= max(FAST_S, FAST_SHARE * self._history.latency_s)
        return failure.fault in REFUSED or (failure.fault is Fault.OUTAGE and failure.status == 503 and is_fast)

    def _refused(self, ticket: Ticket, failure: Failure, now: float) -> Failure:
        """Close the gate for a refusal; for one that may have come by chance, its task alone waits."""
        self._history.not_taken(ticket)
        strays = self._strays.get(failure.status or 0)
        is_named = failure.fault is Fault.QUOTA or (failure.hint_s or 0) > 0
        can_be_stray = self._backoff is None and not is_named and not self._is_canary
        if strays is not None and can_be_stray and not strays.is_closing(ticket):
            return failure if failure.fault is Fault.OUTAGE else replace(failure, hint_s=STRAY_WAIT_S)
        teaches = strays is None or self._teaches(ticket, strays)
        if teaches:
            self._search.refused()
        failure = replace(failure, fault=Fault.THROTTLED) if failure.fault is Fault.OUTAGE else failure
        self._close(ticket, failure, now, teaches=teaches)
        return failure

    def _teaches(self, ticket: Ticket, strays: Strays) -> bool:
        """Whether a refusal that closes the gate, or keeps it closed, comes from a limit."""
        backoff = self._backoff
        is_probe = backoff is not None and backoff.probe is ticket and backoff.probes > 0  # at least the second one
        if strays.is_limit:
            return True
        if backoff is not None and not is_probe:
            return backoff.teaches
        if not strays.shows_limit(self._history.serial, is_probe=is_probe):
            return False
        if strays.is_trial(self._history.serial):
            self._search.end_trial()
        if backoff is not None:
            backoff.teaches = True
        return True

    def _down(self, ticket: Ticket, failure: Failure, now: float) -> None:
        """Nobody answered, or only to say that it is broken."""
        if failure.fault is not Fault.SILENCE:
            self._history.not_taken(ticket)
        self._recent.append(True)
        self._search.hold()
        if not self._is_reached and now - self._first_at >= UNREACHED_S:
            self.verdict = Halt(Exit.TRY_LATER, f"no connection could be made for {now - self._first_at:.0f} s")
        if self._backoff is not None or sum(self._recent) >= DOWN_AT or (failure.hint_s or 0) > 0:
            self._close(ticket, failure, now, teaches=False)

    # -- closed ---------------------------------------------------------------------------------------------------

    def _close(self, ticket: Ticket, failure: Failure, now: float, *, teaches: bool) -> None:
        """Let nobody start until a delay is over; a refused probe, or a first refusal, makes it longer."""
        hint_s = failure.hint_s if failure.hint_s is not None and failure.hint_s > 0 else 0.0
        backoff = self._backoff
        if backoff is None:
            if ticket.at < self._history.period_at and not hint_s:
                return  # sent before the gate opened the last time: old news
            backoff = self._backoff = self._search.backoff(ticket, is_canary=self._is_canary, teaches=teaches)
            backoff.status = failure.status
            if failure.fault in REFUSED and not teaches:
                backoff.gap_s = STRAY_GAP_S
        if failure.fault is not Fault.MODEL_MISSING and failure.status != 429:
            self._give_up_after_long(now)
        backoff.teaches &= teaches
        if hint_s:
            backoff.is_named = True
            backoff.extend(now + hint_s * (1 + SPREAD * self._random()), f"the server asked for {hint_s:.0f} s")
        if backoff.refused(ticket, now) and not hint_s:
            is_first = not self._history.taken and now - self._first_at < FIRST_S
            cap_s = min(FIRST_CAP_S if is_first else math.inf, self._retry.wait_max_s)
            gap_s = backoff.probe_gap_s(taken=self._history.period, cap_s=cap_s)
            at = now + gap_s * (1 + SPREAD * self._random())
            backoff.extend(at, "the server is throttling" if failure.fault in REFUSED else "the provider is down")

    def _space(self, ticket: Ticket, now: float) -> None:
        """Wait before the next try of a model that was not found: `retry.wait.initial`, twice that, ...

        At least half of it: the tries are to be spaced, so that channels that are only away for a moment come back.
        """
        wait_s = min(2 * self._retry.wait_max_s, self._retry.wait_initial_s * 2.0 ** min(self._misses, 10))
        self._misses += 1
        backoff = self._backoff = self._backoff or self._search.backoff(
            ticket, is_canary=self._is_canary, teaches=False
        )
        backoff.probe, backoff.teaches = None, False
        backoff.extend(now + wait_s * (1 + self._random()) / 2, "the model was not found")

    def _give_up_after_long(self, now: float) -> None:
        if self._down_since is None:
            self._down_since = now
        if now - self._down_since >= GIVE_UP_S:
            minutes = (now - self._down_since) / 60
            self.verdict = Halt(
                Exit.TRY_LATER,
                f"the provider is down: no image in {minutes:.0f} minutes; run the same command later",
            )

    def _settle(self, now: float) -> None:
        """See what time alone has shown: starts that were not refused."""
        backoff = self._backoff
        if backoff is not None and backoff.probe is not None and now >= backoff.taken_at:
            self._reopen(backoff, backoff.probe)
        self._search.settle(now)

    def _reopen(self, backoff: Backoff, probe: Ticket) -> None:
        if backoff.teaches and self._search.is_adaptive:
            self._search.learn(backoff, probe)
            strays = self._strays.get(backoff.status or 0)
            if strays is not None and strays.is_trial_due(backoff, self._history):
                self._search.begin_trial()
        self._history.begin_period(probe.at, 1)
        self._backoff = None
        self._recent.clear()


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
    """Lets workers through in the order they came, as the throttle allows.

    Cancelling a waiter takes no slot: between the last await and the ticket nothing can be cancelled.
    """

    def __init__(self, throttle: Throttle, *, sleep: Sleep = sleep_until) -> None:
        self.throttle = throttle
        self._sleep = sleep
        self._turn = asyncio.Lock()  # first in, first out
        self._changed = asyncio.Event()
        self.is_stopped = False

    async def wait(self) -> Ticket:
        """Wait for a slot and take it. Raises Stopped; then, and when cancelled, no slot is held."""
        async with self._turn:
            while not self.is_stopped:
                delay = self.throttle.delay()
                if delay <= 0:
                    return self.throttle.started()
                self._changed.clear()
                await self._sleep(self._changed, delay)
            raise Stopped

    def finished(self, ticket: Ticket, failure: Failure | None) -> Failure | None:
        """Give the slot back with how it ended, and look again. Returns the failure as `Throttle.finished` does."""
        judged = self.throttle.finished(ticket, failure)
        self._changed.set()
        return judged

    def abandoned(self, ticket: Ticket) -> None:
        """Give back the slot of a request that was never sent, and look again."""
        self.throttle.abandoned(ticket)
        self._changed.set()

    def stop(self) -> None:
        """Let nobody through any more; who waits now gets Stopped."""
        self.is_stopped = True
        self._changed.set()

"""How much the server takes, learned from its push-backs: a limit of requests in flight and, where that is not what it
counts, a rate.

In: starts, and how each was taken. Out: a limit, and the seconds until the next start. It refuses to know why a request
failed, pauses, and what a person allowed per minute.

Sources: additive increase, multiplicative decrease: Chiu and Jain, 1989. Slow start, its threshold, once per round:
RFC 5681, RFC 6582. The factor 0.7, and staying a while just below where the last push-back came from: CUBIC, RFC 9438.
"""

import math

from pipeline.engine.history import Ticket
from pipeline.engine.window import MINUTE_S, Spread

CUT = 0.7
# Measured on the simulated servers of tests/engine/test_pace_rehearsal.py and 190 variations of them.
BELOW = 0.97  # of a rate that was just too high
SAME = 0.96  # of a learned rate: closer is the same
FAR_DROP, DROP = 0.8, 0.95  # of a learned rate that did not hold: at most, at least
STEP, JUMP = 1.05, 1.2  # of a learned rate that held: one step up; a count beyond this is believed as it is
HOLD_S, HOLD_CAP_S = 30.0, 120.0  # before asking for more than what was just pushed back
HOLD_PAUSES = 20.0  # a probe may cost a pause as long as the last one: at most one part in 20 of the time
HOLD_PAUSES_CAP_S = 600.0  # but a limit that was raised is found out within this
HOLD_STARTS = 45.0  # and at most one start in 45; but no answer is believed for longer than the run is old
DOUBLE_S = 60.0  # a learned rate that is not pushed back doubles in this time, ever faster
FORGET_S = 90.0  # and after this, when it is 4.8 times what it was, it is no limit any more
BURST = 1 / 3  # of the mean gap between starts: nearer to each other they are a burst


class Hold:
    """How long not to ask for more after a push-back: longer each time the answer is the same again."""

    def __init__(self) -> None:
        self._length_s = HOLD_S
        self._until = -math.inf

    def is_on(self, now: float) -> bool:
        return now < self._until

    def over_s(self, now: float) -> float:
        """Return for how long it has been over; 0.0 while it is on."""
        return max(0.0, now - self._until)

    def judge(self, *, is_confirmed: bool) -> None:
        """Say whether the answer is the same as last time."""
        self._length_s = min(HOLD_CAP_S, 2 * self._length_s) if is_confirmed else HOLD_S

    def renew(self, now: float, hint_s: float, per_minute: float, *, age_s: float) -> None:
        """Begin anew. The next push-back may cost a pause of `hint_s` again; `per_minute` starts are taken.

        `age_s`: of the run. A push-back after the second request may be a stray one, or the end of a quota that an
        earlier run used up: it must not slow down hours.
        """
        pauses_s = min(HOLD_PAUSES * hint_s, HOLD_PAUSES_CAP_S)
        wanted_s = max(pauses_s, HOLD_STARTS * MINUTE_S / max(1.0, per_minute))
        self._until = now + hint_s + max(self._length_s, min(wanted_s, age_s + hint_s))

    def drop(self) -> None:
        self._until = -math.inf


class Limit:
    """How many requests may be in flight."""

    def __init__(self, *, start: int, most: int, is_adaptive: bool) -> None:
        self._most = float(most)
        self._is_adaptive = is_adaptive
        self.value = float(min(max(1, start), most)) if is_adaptive else self._most
        self._threshold = math.inf  # slow start below it; infinite until the first push-back
        self._hold = Hold()  # no growth past the threshold until it is over
        self._held_level = 0
        self._before_row = self.value
        self._full_serial = 0  # the last start that used the limit up
        self._calm_serial = 0  # starts up to here may not make it grow
        self._gap_s = 0.0
        self._spread = Spread()

    def delay(self, now: float) -> float:
        """Return the seconds until one more is no burst; 0.0 while the limit may grow.

        Answers that come together would be followed by requests that go together. A limit per second refuses some of
        those, and would look like one of requests in flight.
        """
        return self._spread.delay(now) if self._hold.is_on(now) else 0.0

    def started(self, ticket: Ticket) -> None:
        self._spread.started(ticket.at, self._gap_s)
        if ticket.level >= int(self.value):
            self._full_serial = ticket.serial

    def grow(self, ticket: Ticket, now: float) -> None:
        """A request was served: allow more if the limit was used up while it was in flight."""
        if not self._is_adaptive or ticket.serial <= self._calm_serial or self._full_serial < ticket.serial:
            return
        # Once pushed back, slow start ends one below the place where that was: RFC 5681's ssthresh.
        grown = self.value + (1.0 if self.value + 1 <= self._threshold else 1 / self.value)
        if self._hold.is_on(now):
            grown = max(self.value, min(grown, self._threshold))
        self.value = min(grown, self._most)

    def stay(self, last_serial: int) -> None:
        """The server is in trouble: what is in flight now may not make the limit grow."""
        self._calm_serial = last_serial

    def cut(self, *, is_new_row: bool) -> None:
        """The server pushed back: x 0.7, and slow start up to where it was before this row of push-backs."""
        if not self._is_adaptive:
            return
        if is_new_row:
            self._before_row = self.value
        self._threshold = self._before_row if is_new_row else max(self._threshold, self.value)
        self._hold.drop()
        self.value = max(1.0, self.value * CUT)

    def hold(self, level: int, hint_s: float, per_minute: float, now: float, *, age_s: float) -> None:
        """It took `level` in flight and not one more: stay there for a while.

        0 tells that it is not about how many there are: this row of push-backs says nothing about the limit.
        """
        if level < 1:
            self._threshold = self._before_row
            self._hold.drop()
        elif self._is_adaptive:
            if not self._hold.is_on(now):
                self._hold.judge(is_confirmed=abs(level - self._held_level) <= 1)
            self._hold.renew(now, hint_s, per_minute, age_s=age_s)
            self._held_level = level
            self._gap_s = BURST * min(MINUTE_S, age_s) / max(1.0, per_minute)
            self._threshold = float(level)


class Ramp:
    """The way back after a pause, without a burst: until the limit is reached, what is in flight doubles per round or
    grows as fast as starts were taken before the pause, whichever is faster.
    """

    def __init__(self) -> None:
        self._size = math.inf
        self._is_armed = False
        self._gap_s = MINUTE_S
        self._spread = Spread()

    def arm(self, taken: float) -> None:
        """A pause began; `taken` starts were taken in the minute before it."""
        self._is_armed, self._gap_s, self._spread = True, MINUTE_S / max(1.0, taken), Spread()

    def delay(self, now: float, in_flight: int) -> float:
        if self._is_armed or in_flight < self._size:
            return 0.0
        return self._spread.delay(now)

    def started(self, ticket: Ticket) -> None:
        if self._is_armed:
            self._is_armed, self._size = False, float(ticket.level)
        if self._size < math.inf:
            self._spread.started(ticket.at, self._gap_s)

    def grow(self, limit: float) -> None:
        """A request was served: one more may be in flight, until that is what the limit allows anyway."""
        self._size = self._size + 1 if self._size + 1 < limit else math.inf


class Rate:
    """Starts per minute the server seems to allow; none is known until `learn`."""

    def __init__(self) -> None:
        self._base: float | None = None
        self._old: float | None = None  # before the present row of push-backs
        self._good: float | None = None  # the last one that was not pushed back for a whole hold
        self._did_hold = False
        self._row = 0
        self._settled_at = -math.inf  # until then the server still counts what was started before it was learned
        self._hold = Hold()
        self._spread = Spread()

    def is_known(self, now: float) -> bool:
        return self.per_minute(now) < math.inf

    def per_minute(self, now: float) -> float:
        """Return the rate of this moment; infinite when none is known, or no push-back came for long."""
        if self._base is None or (over_s := self._hold.over_s(now)) > FORGET_S:
            return math.inf
        return self._base * 2 ** ((over_s / DOUBLE_S) ** 2)

    def delay(self, now: float) -> float:
        return self._spread.delay(now) if self.is_known(now) else 0.0

    def started(self, now: float) -> None:
        self._spread.started(now, MINUTE_S / self.per_minute(now))

    def learn(self, taken: float, hint_s: float, now: float, *, row: int, age_s: float) -> None:
        """It took `taken` in a minute and no more: stay just below for a while, then ask for more, slowly at first.

        `row` numbers the rows of push-backs: after the first of a row, the others only correct the count. A rate that
        held is trusted more than one count of a minute, which may have seen the end of one quota and the start of the
        next. A rate that was used to the full and did not hold is left for the last one that did.
        """
        is_first, self._row = row != self._row and now >= self._settled_at, row
        if is_first:
            self._settled_at = now + MINUTE_S
            self._old, self._did_hold = self._base, not self._hold.is_on(now)
            self._good = self._old if self._did_hold else self._good
        self._base = max(1.0, self._guess(taken * BELOW))
        if is_first:
            is_same = self._old is not None and SAME * self._old < self._base < self._old / SAME
            self._hold.judge(is_confirmed=is_same and self._did_hold)
        self._hold.renew(now, hint_s, self._base, age_s=age_s)

    def _guess(self, base: float) -> float:
        if self._old is None:
            return base
        if self._did_hold:
            return base if base > self._old * JUMP else min(base, self._old * STEP)
        if base < self._old * SAME * BELOW:  # it was not used to the full: the count says more
            return base
        lower = self._old * DROP
        if self._good is not None and self._good < lower:
            lower = max(self._good, self._old * FAR_DROP)
        return min(base, lower)

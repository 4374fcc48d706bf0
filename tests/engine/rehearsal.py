"""Servers that limit, and a client of the throttle against them, in simulated time: three minutes take 50 ms.

A server is a list of limits as pure functions of time, a distribution of answer times, and, where it queues, its slots.
The client is as unkind as a real one: its event loop wakes late and stalls, an attempt is committed before it is sent,
and a request without an idle connection first makes one, so that requests arrive with other gaps than they started.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.engine.starts import Ticket
from pipeline.engine.throttle import Throttle
from pipeline.model import Billed, Failure, Fault
from pipeline.settings import Limits

Curve = Callable[[float], float]


class Limit(Protocol):
    """One way to count. `admit` returns None, or the seconds until it would admit; only what all admit is taken."""

    def admit(self, t: float, in_flight: int) -> float | None: ...
    def take(self, t: float) -> None: ...


def flat(value: float) -> Curve:
    return lambda _: value


def at(value: float | Curve, t: float) -> float:
    return value(t) if callable(value) else value


@dataclass
class Fixed:
    """So many in each window; windows begin at `phase_s` and every `span_s` after."""

    most: float | Curve
    span_s: float
    phase_s: float = 0.0
    number: int = -1
    count: int = 0

    def admit(self, t: float, in_flight: int) -> float | None:
        number = math.floor((t - self.phase_s) / self.span_s)
        if number != self.number:
            self.number, self.count = number, 0
        left = self.phase_s + (number + 1) * self.span_s - t
        return left if self.count >= at(self.most, t) else None

    def take(self, t: float) -> None:
        self.count += 1


@dataclass
class Rolling:
    """So many in any window. `used_s`: an earlier run used it up, that long ago."""

    most: float | Curve
    span_s: float
    starts: deque[float] = field(default_factory=deque)

    def admit(self, t: float, in_flight: int) -> float | None:
        while self.starts and self.starts[0] <= t - self.span_s:
            self.starts.popleft()
        return self.starts[0] + self.span_s - t if len(self.starts) >= at(self.most, t) else None

    def take(self, t: float) -> None:
        self.starts.append(t)


@dataclass
class Bucket:
    """A token bucket; with a burst of 1 it is nginx's limit_req without burst."""

    rate: float | Curve
    burst: float
    tokens: float = math.inf
    seen: float = 0.0

    def admit(self, t: float, in_flight: int) -> float | None:
        rate = at(self.rate, t)
        self.tokens, self.seen = min(self.burst, self.tokens + (t - self.seen) * rate), t
        return None if self.tokens >= 1 - 1e-9 else max(1.0, (1 - self.tokens) / rate)

    def take(self, t: float) -> None:
        self.tokens -= 1


@dataclass
class InFlight:
    most: float | Curve
    hint_s: float = 1.0

    def admit(self, t: float, in_flight: int) -> float | None:
        return self.hint_s if in_flight >= at(self.most, t) else None

    def take(self, t: float) -> None:
        pass


@dataclass
class Outage:
    spans: Sequence[tuple[float, float]]

    def admit(self, t: float, in_flight: int) -> float | None:
        return 1.0 if any(begin <= t < end for begin, end in self.spans) else None

    def take(self, t: float) -> None:
        pass


@dataclass
class Stray:
    """Refuses a share of the requests, or the ones by number, for no reason of its own."""

    share: float = 0.0
    numbers: frozenset[int] = frozenset()
    count: int = 0
    die: random.Random = field(default_factory=lambda: random.Random(3))

    def admit(self, t: float, in_flight: int) -> float | None:
        self.count += 1
        return 1.0 if self.count in self.numbers or self.die.random() < self.share else None

    def take(self, t: float) -> None:
        pass


@dataclass
class Part:
    """A limit, and what its refusals look like. `names`: whether the delay is told (`ceil`: in whole seconds)."""

    limit: Limit
    status: int = 429
    names: str = ""

    def hint_s(self, wait_s: float) -> float | None:
        return None if not self.names else float(math.ceil(wait_s)) if self.names == "ceil" else wait_s


@dataclass
class Server:
    """`allowed` is what it would take from 0 to t. `slots`: so many are worked on at once, others queue."""

    parts: list[Part]
    allowed: Callable[[float], float]
    latency_s: Callable[[random.Random], float]
    slots: int = 0


@dataclass
class Outcome:
    throttle: Throttle
    images: int = 0
    down: int = 0
    seconds: float = 0.0
    most_in_flight: int = 0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)

    @property
    def refused(self) -> int:
        return len(self.refusals)

    @property
    def sent(self) -> int:
        return len(self.starts)


def failure(status: int, hint_s: float | None = None) -> Failure:
    fault = Fault.THROTTLED if status == 429 else Fault.OUTAGE
    return Failure(fault=fault, billed=Billed.NO, reason=f"HTTP {status}", status=status, hint_s=hint_s)


IDLE_S = 1.5  # a connection is used again within that time
STALL_EVERY_S, STALL_S = 1.0, 0.01  # the event loop is busy with something else: means of exponential distributions


def rehearse(
    server: Server,
    limits: Limits,
    *,
    seconds: float = 180.0,
    images: float = math.inf,
    travel_s: float = 0.01,
    jitter_s: float = 0.002,
    late_s: float = 0.002,
    commit_s: float = 0.001,
    seed: int = 1,
) -> Outcome:
    """Send for `seconds`, or until there are so many images.

    A request travels `travel_s` and an exponential `jitter_s` each way, three times as long where a connection is made
    first; the client wakes up to `late_s` late, and sends a request an exponential `commit_s` after its start.
    """
    die = random.Random(seed)
    now, serial, busy = 0.0, 0, 0
    stall_at = die.expovariate(1 / STALL_EVERY_S)
    queue: deque[Ticket] = deque()
    idle: deque[float] = deque()  # until when connections may be used again
    throttle = Throttle(limits, clock=lambda: now, random=die.random)
    out = Outcome(throttle)
    events: list[tuple[float, int, str, Ticket, Failure | None]] = []

    def push(when: float, what: str, ticket: Ticket, result: Failure | None = None) -> None:
        nonlocal serial
        serial += 1
        heapq.heappush(events, (when, serial, what, ticket, result))

    def way() -> float:
        return travel_s + die.expovariate(1 / jitter_s)

    def send(ticket: Ticket) -> None:
        throttle.sent(ticket)
        while idle and idle[0] < now:
            idle.popleft()
        connect_s = 0.0 if idle else way() + way()
        if idle:
            idle.pop()
        push(now + connect_s + way(), "arrives", ticket)

    def arrive(when: float, ticket: Ticket) -> None:
        nonlocal busy
        for part in server.parts:
            wait_s = part.limit.admit(when, busy)
            if wait_s is not None:
                push(when + way(), "ends", ticket, failure(part.status, part.hint_s(wait_s)))
                return
        for part in server.parts:
            part.limit.take(when)
        busy += 1
        if server.slots and busy > server.slots:
            queue.append(ticket)
        else:
            push(when + server.latency_s(die), "leaves", ticket)

    def leave(when: float, ticket: Ticket) -> None:
        nonlocal busy
        busy -= 1
        push(when + way(), "ends", ticket)
        if queue:
            push(when + server.latency_s(die), "leaves", queue.popleft())

    def end(ticket: Ticket, result: Failure | None) -> None:
        throttle.finished(ticket, result)
        idle.append(now + IDLE_S)
        if result is None:
            out.images += 1
            out.ends.append(now)
        elif result.status in {429, 503}:
            out.refusals.append(now)
        else:
            out.down += 1

    while now < seconds and out.images < images and throttle.verdict is None:
        while len(out.starts) - out.refused - out.down < images and (delay := throttle.delay()) == 0:
            ticket = throttle.started()
            out.starts.append(now)
            out.most_in_flight = max(out.most_in_flight, throttle.in_flight)
            push(now + die.expovariate(1 / commit_s), "sent", ticket)
        due = events[0][0] if events else math.inf
        if len(out.starts) - out.refused - out.down >= images:
            delay = math.inf
        assert min(due, delay) < math.inf, "nothing will ever happen again"
        now = max(now, min(due, now + delay + late_s * die.random()))
        if now >= stall_at:
            now += die.expovariate(1 / STALL_S)
            stall_at = now + die.expovariate(1 / STALL_EVERY_S)
        while events and events[0][0] <= now:
            when, _, what, ticket, result = heapq.heappop(events)
            match what:
                case "sent":
                    send(ticket)
                case "arrives":
                    arrive(when, ticket)
                case "leaves":
                    leave(when, ticket)
                case _:
                    end(ticket, result)
    out.seconds = now
    return out

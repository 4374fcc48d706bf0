"""What the sending part of a run hands back, and how it is looked into while it lasts."""

from dataclasses import dataclass, field
from typing import Protocol

from pipeline.engine.counts import Counts
from pipeline.engine.events import Gauge
from pipeline.engine.halt import Halts
from pipeline.engine.wallet import Wallet


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did, and why it stopped early."""

    counts: Counts = field(default_factory=Counts)
    halts: Halts = field(default_factory=Halts)


class Gauged(Protocol):
    """Something with a gauge: the engine."""

    def gauge(self) -> Gauge: ...


class GaugeOf:
    """The state of a run at this moment; before the engine stands, only its money."""

    def __init__(self, wallet: Wallet, *, concurrency: int) -> None:
        self._wallet = wallet
        self._concurrency = concurrency
        self.engine: Gauged | None = None

    def __call__(self) -> Gauge:
        if self.engine is not None:
            return self.engine.gauge()
        return Gauge(
            in_flight=0,
            limit=0,
            concurrency=self._concurrency,
            spent_microusd=0,
            unknown_microusd=0,
            reserved_microusd=0,
            budget_left_microusd=self._wallet.left_microusd,
            queued=0,
            pause_reason=None,
            pause_left_s=0.0,
        )

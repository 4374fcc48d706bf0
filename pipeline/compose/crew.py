"""The sending part of a run: client, embedded simulator, throttle and engine around one spool of due tasks.

Imported only when something is due: the network's libraries take longer to import than a small plan takes to make.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

from pipeline.compose.holds import owner_of
from pipeline.compose.outcome import GaugeOf, Outcome
from pipeline.compose.preparing import Setup
from pipeline.compose.process import fit_for_images
from pipeline.compose.signals import Stoppable
from pipeline.engine.events import Halted, Listener
from pipeline.engine.halt import SPACED_SHARE, Halt, Watch
from pipeline.engine.run import Engine
from pipeline.engine.throttle import Gate, Throttle
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit, InputError
from pipeline.plan import Spool
from pipeline.provider import Client
from pipeline.provider.pricing import PriceList
from pipeline.senders.local import LocalSender
from pipeline.settings import ProviderSettings
from pipeline.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Everything that sends."""

    setup: Setup
    key: str
    store: Store
    wallet: Wallet
    prices: PriceList
    run: int
    listen: Listener
    attend: Callable[[Stoppable], None]  # signals go to the engine from here on
    view: GaugeOf
    until: float | None  # monotonic; nothing new is sent after it
    held: Collection[str] = ()  # models that nothing is sent for

    async def work(self, stages: AsyncGenerator[Spool, None]) -> Outcome:
        """Ask for what is in the spools, one after the other. A hold the provider asked for is remembered."""
        outcome = Outcome()
        fit_for_images()
        async with AsyncExitStack() as stack:
            provider = await self._provider(stack)
            client = await stack.enter_async_context(
                Client(provider, key=self.key, limits=self.setup.limits, catalogue=self.setup.catalogue)
            )
            sender = await stack.enter_async_context(
                LocalSender(client, self.store.images, manifest=self.setup.manifest.name)
            )
            clock = asyncio.get_running_loop().time  # that of the gate's sleeps
            gate = Gate(Throttle(self.setup.limits, retry=self.setup.retry, clock=clock))
            watch = Watch(
                self.setup.limits.stop_on,
                models=", ".join(self.setup.catalogue.current_models(kind=self.setup.provider.vendor)),
                spaced_s=SPACED_SHARE * self.setup.retry.wait_initial_s,
                clock=clock,
            )
            async with aclosing(stages):
                try:
                    async for spool in stages:
                        engine = self._engine(sender, gate, watch, outcome)
                        await engine.run(due for due in spool if due.task.model not in self.held)
                        if len(outcome.halts):
                            break
                except InputError as error:
                    self._cannot_go_on(outcome, error)
        if outcome.halts.not_before is not None:
            owner = owner_of(self.setup)
            await self.store.hold(
                outcome.halts.not_before,
                "; ".join(outcome.halts.reasons),
                run=self.run,
                provider=owner.provider,
                key=owner.key or "",
            )
        return outcome

    def _cannot_go_on(self, outcome: Outcome, error: InputError) -> None:
        """End with what is there: a job whose rows follow from images shows some mistakes only when those are made."""
        more = f" (and {len(error.problems) - 1:,} more; `imgpipe validate` lists them)" if error.problems[1:] else ""
        halt = Halt(Exit.SOME_FAILED, f"the jobs behind these cannot be planned: {error.problems[0]}{more}")
        if outcome.halts.add(halt):
            self.listen(Halted(exit=halt.exit, reason=halt.reason))

    def _engine(self, sender: LocalSender, gate: Gate, watch: Watch, outcome: Outcome) -> Engine:
        engine = Engine(
            run=self.run,
            sender=sender,
            ledger=self.store,
            prices=self.prices,
            gate=gate,
            wallet=self.wallet,
            watch=watch,
            limits=self.setup.limits,
            retry=self.setup.retry,
            listen=self.listen,
            counts=outcome.counts,
            halts=outcome.halts,
        )
        self.view.engine = engine
        self.attend(engine)
        self._stop_in_time(engine)
        return engine

    async def _provider(self, stack: AsyncExitStack) -> ProviderSettings:
        """Return where to send; the embedded simulator is started for a manifest that names no address."""
        provider = self.setup.provider
        if not self.setup.is_play_money or provider.base_url is not None:
            return provider
        from pipeline.simulator.profile import load_profile
        from pipeline.simulator.server import Simulator

        simulator = await stack.enter_async_context(Simulator(load_profile(self.setup.profile)))
        return replace(provider, base_url=simulator.base_url)

    def _stop_in_time(self, engine: Engine) -> None:
        if self.until is None:
            return
        reason = f"limits.max_duration ({self.setup.limits.max_duration_s:g} s) is over"
        left = max(0.0, self.until - time.monotonic())
        asyncio.get_running_loop().call_later(left, engine.halt, Exit.MAX_DURATION, reason)

"""The sending part of a run: client, embedded simulator, throttle and engine around one spool of due tasks.

Imported only when something is due: the network's libraries take longer to import than a small plan takes to make. It
also tunes the process for many large images (allocator, garbage collector, threads), once, when something is sent.
"""

import asyncio
import ctypes
import gc
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from functools import partial
from socket import NI_NUMERICHOST, NI_NUMERICSERV
from typing import TYPE_CHECKING, Final

from pipeline.app.consent import owner_of
from pipeline.app.context import Setup
from pipeline.app.signals import Stoppable
from pipeline.app.summary import GaugeOf, SendingOutcome
from pipeline.engine.events import Event, Halted, Listener, Workers
from pipeline.engine.halt import SPACED_SHARE, Halt, HaltPolicy, Halts
from pipeline.engine.run import Engine
from pipeline.engine.throttle import Gate, Throttle
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit, InputError
from pipeline.model import Due
from pipeline.provider.catalogue import PriceList
from pipeline.provider.client import Client
from pipeline.senders.checker import TwinFinder
from pipeline.senders.local import LocalSender
from pipeline.settings import ProviderSettings
from pipeline.store.store import Store

if TYPE_CHECKING:
    from pipeline.app.workers import ReadyWorkers
    from pipeline.senders.remote import ClusterSender


# glibc's malloc.h; https://sourceware.org/glibc/manual/latest/html_node/Malloc-Tunable-Parameters.html
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8


def fit_for_images() -> None:
    """Spare the garbage collector and the allocator what they would do again for every image."""
    _freeze_garbage_collector()
    _tune_allocator()


def _freeze_garbage_collector() -> None:
    """Take what is loaded by now, which stays to the end, out of the garbage collector's sight.

    Measured with tiny answers: 10 % less CPU an image, and the longest delay of the event loop fell from 52 to 20 ms.
    """
    gc.freeze()


def _tune_allocator() -> None:
    """Keep the memory of one image for the next: as it is, glibc gives it back and fetches it again page by page.

    An answer is read in one thread, decoded in another and dropped in a third; each has an arena of its own by default,
    and none of them sees what the others have to spare. Measured with answers of 0.4 and 2.7 MB, 32 in flight: 7 to
    15 % less CPU an image and 5 to 18 % more images a second, with no more memory. Other C libraries have no such
    options, and nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in ((M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 32 * 2**20), (M_TRIM_THRESHOLD, 64 * 2**20)):
        mallopt(option, value)


async def _begin_resolver_threads() -> None:
    """Have libuv begin its threads while there is memory; where it cannot, it aborts the process (src/threadpool.c).

    A numeric name is asked for, so nothing is looked up.
    """
    await asyncio.get_running_loop().getnameinfo(("127.0.0.1", 80), NI_NUMERICHOST | NI_NUMERICSERV)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingRun:
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
    looks: Callable[[str], Mapping[str, str]]  # job -> task -> perceptual hash, oldest first
    held: Collection[str] = ()  # models that nothing is sent for
    workers: "ReadyWorkers | None" = None  # that send; None: this process does

    async def work(self, stages: AsyncGenerator[Iterable[Due], None]) -> SendingOutcome:
        """Ask for what is in the stages, one after the other. A hold the provider asked for is remembered."""
        outcome = SendingOutcome(workers=lambda: self.view.workers())
        fit_for_images()
        await _begin_resolver_threads()
        async with AsyncExitStack() as stack:
            provider = await self._provider(stack)
            sender = await self._sender(stack, provider)
            clock = asyncio.get_running_loop().time  # that of the gate's sleeps
            gate = Gate(Throttle(self.setup.limits, retry=self.setup.retry, clock=clock))
            policy = HaltPolicy(
                self.setup.limits.stop_on,
                models=", ".join(self.setup.catalogue.current_models(kind=self.setup.provider.vendor)),
                spaced_s=SPACED_SHARE * self.setup.retry.wait_initial_s,
                clock=clock,
            )
            async with aclosing(stages):
                try:
                    await self._ask(stages, partial(self._engine, sender, gate, policy, outcome), outcome.halts)
                except InputError as error:
                    self._cannot_go_on(outcome, error)
        await self._hold(outcome.halts)
        return outcome

    async def _ask(
        self, stages: AsyncGenerator[Iterable[Due], None], engine: Callable[[], Engine], halts: Halts
    ) -> None:
        async for due in stages:
            await engine().run(each for each in due if each.task.model not in self.held)
            if len(halts):
                return

    async def _hold(self, halts: Halts) -> None:
        """Remember a delay that the provider named."""
        if halts.not_before is None:
            return
        owner = owner_of(self.setup)
        await self.store.hold(
            halts.not_before,
            "; ".join(halts.reasons),
            run=self.run,
            provider=owner.provider,
            key=owner.key or "",
        )

    def _cannot_go_on(self, outcome: SendingOutcome, error: InputError) -> None:
        """End with what is there: a job whose rows follow from images shows some mistakes only when those are made."""
        more = f" (and {len(error.problems) - 1:,} more; `imgpipe validate` lists them)" if error.problems[1:] else ""
        halt = Halt(Exit.SOME_FAILED, f"the jobs behind these cannot be planned: {error.problems[0]}{more}")
        if outcome.halts.add(halt):
            self.listen(Halted(exit=halt.exit, reason=halt.reason))

    async def _sender(self, stack: AsyncExitStack, provider: ProviderSettings) -> "LocalSender | ClusterSender":
        if self.workers is not None:
            return await self._cluster_sender(stack, provider, self.workers)
        client = await stack.enter_async_context(
            Client(provider, key=self.key, limits=self.setup.limits, catalogue=self.setup.catalogue)
        )
        return await stack.enter_async_context(
            LocalSender(client, self.store.images, manifest=self.setup.manifest.name)
        )

    async def _cluster_sender(
        self, stack: AsyncExitStack, provider: ProviderSettings, workers: "ReadyWorkers"
    ) -> "ClusterSender":
        from pipeline.senders.remote import ClusterSender, opened

        def count() -> Workers:
            now = sender.dispatch
            return Workers(started=len(now.workers), lost=now.lost, ready=now.ready_now)

        def listen(event: Event) -> None:
            self.store.count_workers(self.run, started=count().started, lost=count().lost)
            self.listen(event)

        sender = ClusterSender(workers.cluster, outputs=self.store.images, listen=listen)
        self.view.workers = count
        return await stack.enter_async_context(opened(sender, replace(workers.order, provider=provider)))

    def _engine(
        self, sender: "LocalSender | ClusterSender", gate: Gate, policy: HaltPolicy, outcome: SendingOutcome
    ) -> Engine:
        engine = Engine(
            run=self.run,
            sender=TwinFinder(sender.send, sender.abandon, known=self.looks),
            ledger=self.store,
            prices=self.prices,
            gate=gate,
            wallet=self.wallet,
            policy=policy,
            limits=self.setup.limits,
            retry=self.setup.retry,
            listen=self.listen,
            counts=outcome.counts,
            halts=outcome.halts,
        )
        self.view.engine = engine
        if not isinstance(sender, LocalSender):
            sender.halt = engine.halt
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

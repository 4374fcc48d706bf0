"""The sending part of a run: client, embedded simulator, throttle and engine around one spool of due tasks.

Imported only when something is due: the network's libraries take longer to import than a small plan takes to make. It
also tunes the process for many large images (allocator, garbage collector, threads, open files), once, when something
is sent.
"""

import asyncio
import ctypes
import gc
import resource
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from functools import partial
from socket import NI_NUMERICHOST, NI_NUMERICSERV
from typing import TYPE_CHECKING, Final

from pipeline.app.consent import owner_of, prices_of
from pipeline.app.context import Setup
from pipeline.engine.events import Event, Warned, Workers
from pipeline.engine.halt import SPACED_SHARE, Halt, HaltPolicy
from pipeline.engine.run import Engine
from pipeline.engine.throttle import Gate, Throttle
from pipeline.errors import Exit, InputError
from pipeline.model import Due
from pipeline.provider.catalogue import PriceList
from pipeline.provider.client import Client
from pipeline.senders.checker import REMEMBERED, TwinFinder
from pipeline.senders.local import LocalSender
from pipeline.settings import SPARE_FILES, Limits, ProviderSettings
from pipeline.text import count

if TYPE_CHECKING:
    from pipeline.app.run import ActiveRun
    from pipeline.app.workers import WorkerOrder
    from pipeline.senders.remote import Cluster, ClusterSender


# glibc's malloc.h; https://sourceware.org/glibc/manual/latest/html_node/Malloc-Tunable-Parameters.html
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8


def fit_for_images(*, is_guest: bool = False) -> None:
    """Spare the garbage collector and the allocator what they would do again for every image.

    The collector does not look at what is loaded by now and stays to the end; as a guest in another program's process
    (`is_guest`) it goes on, for what that program drops later would never be freed. Measured with tiny answers: 10 %
    less CPU an image, and the longest delay of the event loop fell from 52 to 20 ms.

    The memory of one image is kept for the next, where glibc would give it back and fetch it again page by page, and
    threads share their arenas: an answer is read in one, decoded in another and dropped in a third. Measured with
    answers of 0.4 and 2.7 MB, 32 in flight: 7 to 15 % less CPU an image and 5 to 18 % more images a second, with no
    more memory. Other C libraries have no such options, and nothing is changed.
    """
    if not is_guest:
        gc.freeze()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in ((M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 32 * 2**20), (M_TRIM_THRESHOLD, 64 * 2**20)):
        mallopt(option, value)


def fit_descriptors(limits: Limits, *, each: int = 1) -> Limits:
    """Raise this process's soft limit of open files as far as needed; return limits that keep to what it may open.

    Without a descriptor no image can be written, neither to its place nor to rejected/: connections must not take the
    last ones. `each`: descriptors of one request in flight.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.concurrency * each + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft >= needed:
        return limits
    concurrency = max(1, (soft - SPARE_FILES) // each)
    return replace(
        limits, concurrency=concurrency, start=None if limits.start is None else min(limits.start, concurrency)
    )


def keep_to_descriptors(run: "ActiveRun") -> None:
    """Have fewer requests in flight where there are not descriptors for all, and say so."""
    setup = run.setup
    is_embedded = setup.is_play_money and setup.provider.base_url is None
    each = (run.workers is None) + is_embedded  # this end of a connection, where no workers have it; the simulator's
    limits = fit_descriptors(setup.limits, each=each) if each else setup.limits
    if limits.concurrency < setup.limits.concurrency:
        most = count(limits.concurrency, "request")
        run.listen(Warned(text=f"{most} in flight at most: this process may not open more files (ulimit -n)"))
        run.setup = replace(setup, limits=limits)


async def send(run: "ActiveRun", stages: AsyncGenerator[Iterable[Due], None]) -> None:
    """Ask for what is in the stages, one after the other. A hold the provider asked for is remembered."""
    fit_for_images(is_guest=run.signals.is_guest)
    keep_to_descriptors(run)
    # Has libuv begin its threads while there is memory: where it cannot, it aborts the process (src/threadpool.c). The
    # name is numeric, so nothing is looked up.
    await asyncio.get_running_loop().getnameinfo(("127.0.0.1", 80), NI_NUMERICHOST | NI_NUMERICSERV)
    async with AsyncExitStack() as stack:
        setup = run.setup
        sender = await _sender(run, stack, await _provider(setup, stack))
        clock = asyncio.get_running_loop().time  # that of the gate's sleeps
        gate = Gate(Throttle(setup.limits, retry=setup.manifest.retry, clock=clock))
        policy = HaltPolicy(
            setup.limits.stop_on,
            models=", ".join(setup.catalogue.current_models(kind=setup.provider.vendor)),
            spaced_s=SPACED_SHARE * setup.manifest.retry.wait_initial_s,
            clock=clock,
        )
        prices = prices_of(setup, run.reader)
        await stack.enter_async_context(aclosing(stages))
        try:
            async for due in stages:
                engine = _engine(run, sender, gate=gate, policy=policy, prices=prices)
                await engine.run(each for each in due if each.task.model not in run.held)
                if len(run.halts):
                    break
        except InputError as error:
            run.halt(_cannot_go_on(error))
    if run.halts.not_before is not None:
        provider, key = owner_of(run.setup)
        reason = "; ".join(run.halts.reasons)
        await run.store.hold(run.halts.not_before, reason, run=run.number_in_ledger, provider=provider, key=key)


def _cannot_go_on(error: InputError) -> Halt:
    """End with what is there: a job whose rows follow from images shows some mistakes only when those are made."""
    more = f" (and {len(error.problems) - 1:,} more; `imgpipe validate` lists them)" if error.problems[1:] else ""
    return Halt(Exit.SOME_FAILED, f"the jobs behind these cannot be planned: {error.problems[0]}{more}")


async def _provider(setup: Setup, stack: AsyncExitStack) -> ProviderSettings:
    """Return where to send; the embedded simulator is started for a manifest that names no address."""
    provider = setup.provider
    if not setup.is_play_money or provider.base_url is not None:
        return provider
    from pipeline.simulator.profile import load_profile
    from pipeline.simulator.server import Simulator

    simulator = await stack.enter_async_context(Simulator(load_profile(setup.profile)))
    return replace(provider, base_url=simulator.base_url)


async def _sender(run: "ActiveRun", stack: AsyncExitStack, provider: ProviderSettings) -> "LocalSender | ClusterSender":
    setup = run.setup
    if run.workers is not None:
        cluster, order = run.workers
        return await _cluster_sender(run, stack, cluster, replace(order, provider=provider))
    client = Client(provider, key=run.key, limits=setup.limits, catalogue=setup.catalogue)
    sender = LocalSender(await stack.enter_async_context(client), run.store.images, manifest=setup.manifest.name)
    return await stack.enter_async_context(sender)


async def _cluster_sender(
    run: "ActiveRun", stack: AsyncExitStack, cluster: "Cluster", order: "WorkerOrder"
) -> "ClusterSender":
    from pipeline.senders.remote import ClusterSender, opened

    dispatch = cluster.dispatch

    def count() -> Workers:
        return Workers(started=len(dispatch.workers), lost=dispatch.lost, ready=dispatch.ready_now)

    def listen(event: Event) -> None:
        run.store.count_workers(run.number_in_ledger, started=len(dispatch.workers), lost=dispatch.lost)
        run.listen(event)

    run.worker_counts = count
    return await stack.enter_async_context(
        opened(ClusterSender(cluster, outputs=run.store.images, listen=listen), order)
    )


def _engine(
    run: "ActiveRun", sender: "LocalSender | ClusterSender", *, gate: Gate, policy: HaltPolicy, prices: PriceList
) -> Engine:
    """Return the engine of one stage: signals, and the end of `max_duration`, halt it from here on."""
    looks = partial(run.reader.looks, most=REMEMBERED)
    engine = Engine(
        number=run.number_in_ledger,
        sender=TwinFinder(sender.send, sender.abandon, known=looks),
        ledger=run.store,
        prices=prices,
        gate=gate,
        wallet=run.wallet,
        policy=policy,
        limits=run.setup.limits,
        retry=run.setup.manifest.retry,
        listen=run.listen,
        counts=run.counts,
        halts=run.halts,
    )
    run.signals.engine = engine
    if not isinstance(sender, LocalSender):
        sender.halt = engine.halt
    if (most_s := run.setup.limits.max_duration_s) is not None:
        reason = f"limits.max_duration ({most_s:g} s) is over"
        left = max(0.0, run.started_at + most_s - time.monotonic())
        asyncio.get_running_loop().call_later(left, engine.halt, Exit.MAX_DURATION, reason)
    return engine

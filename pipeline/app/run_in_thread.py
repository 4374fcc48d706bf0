"""Runs a manifest inside another program: in a thread, with an event loop of its own.

What the handler of a signal raises (Celery's soft time limit, Airflow's timeout, `sys.exit`) ends the caller's loop and
cancels all of its tasks at once: in that loop every image in flight would be lost, and only the main thread is ever
interrupted. Not part of `run`, which has one loop and one thread.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext, suppress
from contextvars import copy_context
from typing import Final

from pipeline.app.context import Setup
from pipeline.app.run import Signals, Watcher, run
from pipeline.engine.events import Event, Listener, RunSummary
from pipeline.errors import Exit
from pipeline.pools import Threads, whole_pool
from pipeline.store.lock import StateLock

LEFT: Final = "the caller stopped waiting"
LEFT_S: Final = 300.0  # a loop that did not run for so long was left; one that is stepped through rests between images


@asynccontextmanager
async def running(
    setup: Setup, listen: Listener, lock: StateLock | None = None
) -> AsyncGenerator[asyncio.Future[RunSummary], None]:
    """Run, and call `listen` in the caller's loop with every event; what it raises ends the run, and goes on.

    Leaving before the run has ended is its first signal, being cancelled meanwhile the second.
    """
    threaded, anyio = _ThreadedRun(listen), sys.modules.get("anyio")
    pool = whole_pool(1, "run")
    done = threaded.caller.run_in_executor(pool, threaded.work, setup, lock)
    pool.shutdown(wait=False)
    cancelled: BaseException | None = None
    try:
        yield done
    finally:
        # AnyIO (Starlette, FastAPI) cancels again and again until its scope is left, which is one cancellation
        with nullcontext() if anyio is None else anyio.CancelScope(shield=True):
            while not done.done():
                threaded.stop()
                try:
                    await asyncio.wait({done})
                except asyncio.CancelledError as again:
                    cancelled = again
        done.exception()  # looked at: whoever leaves early asks for no result
        if error := cancelled or threaded.error:
            raise error


class _ThreadedRun:
    """A run in its own loop, and the loop of its caller, in which the listener is called."""

    def __init__(self, listen: Listener) -> None:
        self.caller = asyncio.get_running_loop()
        self.error: Exception | None = None  # the listener's first
        self._listen, self._context = listen, copy_context()
        self._waiting_since: float | None = None
        self._loop = asyncio.new_event_loop()
        self._signals = Signals(drain_s=None)

    def work(self, setup: Setup, lock: StateLock | None) -> RunSummary:
        """Run, in the thread."""
        self._loop.set_default_executor(Threads(thread_name_prefix="asyncio"))  # whose close waits for no name server
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            watch: Watcher = lambda _started, _gauge: nullcontext(self._pass_on)  # noqa: E731
            return runner.run(run(setup, watch=watch, lock=lock, signals=self._signals))

    def stop(self) -> None:
        """Order the first stop, then the second."""
        with suppress(RuntimeError):  # the loop has just closed
            self._loop.call_soon_threadsafe(self._signals.stop, Exit.INTERRUPTED, LEFT)

    def _pass_on(self, event: Event) -> None:
        """Pass an event on. Raises RuntimeError, which ends the run: the caller's loop was left or closed."""
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since > LEFT_S and not self.caller.is_running():
            raise RuntimeError("the caller's event loop has ended")
        self.caller.call_soon_threadsafe(self._listened, event, context=self._context)

    def _listened(self, event: Event) -> None:
        self._waiting_since = None
        try:
            self._listen(event)
        except Exception as error:  # raised by `running`, once what is in flight is saved
            if self.error is None:
                self.error = error
                self.stop()

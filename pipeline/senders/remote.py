"""Sends attempts through the workers of a cluster: this process only dispatches to them.

When a worker dies, what it had been given is looked for in the output by its attempt number; what is not there is
unknown. Nothing is given to it again before a call of `ready` has come back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final, Protocol

from pipeline.engine.events import Listener, Warned, WorkerChanged
from pipeline.errors import Exit, InputError
from pipeline.model import KEPT, Artifact, Attempt, Billed, Failure, Fault
from pipeline.senders.cluster import AGAIN_S, PATIENCE_S, Cluster, Worker, refuse_unfit
from pipeline.senders.local import STOPPED
from pipeline.senders.worker import NOT_READY, Report, unpacked

GRACE_S: Final = 1.5  # of the 2 s that a second signal leaves
LOST: Final = Failure(
    fault=Fault.SILENCE,
    billed=Billed.MAYBE,
    reason="its worker died while this request was in flight",
    code="worker_lost",
)
NOBODY: Final = Failure(
    fault=Fault.UNREACHABLE, billed=Billed.NO, reason="no worker was there to send it", code="no_worker"
)


class Outputs(Protocol):
    """The images of a run, as the process with the ledger sees them: `store.images.stored`."""

    async def find(self, attempt: Attempt) -> Artifact | Failure | None:
        """Find the image of an attempt whose sender died."""
        ...

    async def publish_kept(self, attempt: Attempt, failure: Failure) -> Artifact | Failure:
        """Give the image that a worker kept its name, in the place of the task's earlier one."""
        ...

    async def take_earlier(self, attempt: Attempt, failure: Failure, earlier: Attempt) -> Artifact | Failure:
        """Take the image of an earlier attempt that has the name by now, else return `failure`."""
        ...


class ClusterSender:
    """Sends attempts through workers; see `engine.attempt.AttemptSender`."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        outputs: Outputs,
        listen: Listener,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.dispatch = cluster.dispatch
        self._death = cluster.death
        self._actors = dict(zip(self.dispatch.workers, cluster.actors, strict=True))
        self._outputs = outputs
        self._unknown: dict[str, list[Attempt]] = {}  # by task, given up in this run
        self._listen = listen
        self._patience_s = patience_s
        self._is_any_ready = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()
        self._is_abandoned = False
        self.halt: Callable[[Exit, str], None] = lambda _exit, _reason: None  # the engine's, once there is one

    async def send(self, attempt: Attempt) -> Artifact | Failure:
        """Have one attempt sent by the least loaded worker, and keep what it brings."""
        while (worker := await self._worker()) is not None:
            generation, given = worker.generation, worker.in_flight
            given.add(attempt.id)
            try:
                data = await self._answer(worker, attempt)
            finally:
                given.discard(attempt.id)
            if data is None:
                if not self._is_abandoned:
                    self._lose(worker, generation, in_flight=len(given) + 1)
                found = await self._outputs.find(attempt) or (STOPPED if self._is_abandoned else LOST)
                if found is LOST:
                    self._unknown.setdefault(attempt.task.id, []).append(attempt)
                return replace(found, worker=str(worker))
            if data != NOT_READY:
                return replace(await self._completed(attempt, unpacked(data)), worker=str(worker))
            self._lose(worker, generation, in_flight=0)
        return NOBODY

    async def _completed(self, attempt: Attempt, result: Artifact | Failure) -> Artifact | Failure:
        """Do what no worker may do: move earlier images away, and see whose image is in the way."""
        if isinstance(result, Failure) and result.code == KEPT:
            return await self._outputs.publish_kept(attempt, result)
        if isinstance(result, Failure) and result.fault is Fault.CONFLICT:
            for earlier in self._unknown.get(attempt.task.id, ()):  # of a node that was frozen, and woke up
                found = await self._outputs.take_earlier(attempt, result, earlier)
                if isinstance(found, Artifact):
                    return found
        return result

    def abandon(self) -> None:
        """Stop waiting for answers: workers keep what has arrived, and have a moment to say so."""
        if self._is_abandoned:
            return
        self._is_abandoned = True
        for worker, actor in self._actors.items():
            if worker.is_ready:
                actor.abandon.remote()
        moment = asyncio.get_running_loop().time() + GRACE_S
        for wait in self._waits:
            wait.reschedule(moment)

    async def _worker(self) -> Worker | None:
        """Return the least loaded worker; None when there was none for `patience_s`, and the run is told to stop."""
        while (worker := self.dispatch.pick()) is None:
            try:
                async with self._waiting(self._patience_s):
                    await self._is_any_ready.wait()
            except TimeoutError:
                if not self._is_abandoned:
                    text = f"all workers were lost, and none came back within {self._patience_s:g} s"
                    self.halt(Exit.TRY_LATER, text)
                return None
        return worker

    @asynccontextmanager
    async def _waiting(self, most_s: float | None) -> AsyncIterator[asyncio.Timeout]:
        """A wait that `abandon` shortens; raises TimeoutError."""
        wait = asyncio.timeout(GRACE_S if self._is_abandoned else most_s)
        self._waits.add(wait)
        try:
            async with wait:
                yield wait
        finally:
            self._waits.discard(wait)

    async def _answer(self, worker: Worker, attempt: Attempt) -> bytes | None:
        """Return a worker's record; None: it died, or is not waited for any longer."""
        try:
            async with self._waiting(None):
                data: bytes = await self._actors[worker].send.remote(attempt)
                return data
        except (self._death, TimeoutError):
            return None

    def _lose(self, worker: Worker, generation: int, *, in_flight: int) -> None:
        if self.dispatch.lose(worker, generation):
            self._listen(WorkerChanged(worker=str(worker), is_lost=True, in_flight=in_flight))
        if not self.dispatch.ready_now:
            self._is_any_ready.clear()

    async def keep(self, worker: Worker, order: object) -> None:
        """Open a worker, wait for its death, and again: for as long as the run lasts."""
        actor = self._actors[worker]
        while True:
            try:
                report: Report = await actor.ready.remote(order)
                refuse_unfit([report])
            except self._death:
                await asyncio.sleep(AGAIN_S)
                continue
            except InputError as error:
                self._listen(Warned(text=f"worker {worker} is not used any more: {error}"))
                return
            self.dispatch.ready(worker, report.node)
            self._is_any_ready.set()
            self._listen(WorkerChanged(worker=str(worker), is_lost=False, in_flight=0))
            with suppress(self._death):
                await actor.watch.remote()
            self._lose(worker, worker.generation, in_flight=len(worker.in_flight))


@asynccontextmanager
async def opened(sender: ClusterSender, order: object) -> AsyncIterator[ClusterSender]:
    """Keep the workers of a sender going while the block lasts."""
    failed: Exception | None = None
    async with asyncio.TaskGroup() as group:
        keepers = [
            group.create_task(sender.keep(worker, order), name=f"keep-{worker.number}")
            for worker in sender.dispatch.workers
        ]
        try:
            yield sender
        except Exception as error:  # raised below: not wrapped in a group
            failed = error
        finally:
            for keeper in keepers:
                keeper.cancel()
    if failed is not None:
        raise failed

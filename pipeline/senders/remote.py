"""Sends attempts through the workers of a cluster: what runs in a worker (`Sender`), and what dispatches to them.

A worker is an actor of Ray. Nothing but small records passes between it and the process that dispatches: an attempt in,
`Artifact | Failure` out. It is opened by `ready`; a process that Ray has restarted refuses attempts until then, so
they were never sent. The key comes from its own environment and is in no message.

When a worker dies, what it had been given is looked for in the output by its attempt number; what is not there is
unknown. Nothing is given to it again before a call of `ready` has returned.
"""

import asyncio
import importlib.metadata
import json
import platform
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from pipeline import __version__
from pipeline.engine.events import Listener, Warned, WorkerChanged
from pipeline.errors import Exit, ImgpipeError, InputError
from pipeline.model import KEPT, Artifact, Attempt, Billed, Failure, Fault
from pipeline.senders.local import STOPPED

if TYPE_CHECKING:
    from pipeline.engine.attempt import AttemptSender

MOST_BYTES: Final = 64 * 1024  # of one result; a larger answer is an error
NOT_READY: Final = b""  # instead of a result: nothing was sent
LONG: Final = 2000  # characters of a reason or a note in a result that would be too large
PATIENCE_S: Final = 60.0  # for the first worker
AGAIN_S: Final = 0.5  # between two calls to a worker that is not there yet
GRACE_S: Final = 1.5  # of the 2 s that a second signal leaves
HEAD_S: Final = 3.0  # between two looks at the head of a cluster, and for one
HEAD_TRIES: Final = 3  # in a row
LOST: Final = Failure(
    fault=Fault.SILENCE,
    billed=Billed.MAYBE,
    reason="its worker died while this request was in flight",
    code="worker_lost",
)
NOBODY: Final = Failure(
    fault=Fault.UNREACHABLE, billed=Billed.NO, reason="no worker was there to send it", code="no_worker"
)
_KINDS: Final[dict[bytes, type[Artifact] | type[Failure]]] = {b"A": Artifact, b"F": Failure}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself before anything is sent. `problem`: why it cannot send, and what to do."""

    node: str
    versions: dict[str, str]
    problem: str = ""


def versions() -> dict[str, str]:
    """Return what must be the same everywhere."""
    return {"imgpipe": __version__, "Python": platform.python_version(), "Ray": importlib.metadata.version("ray")}


def packed(result: Artifact | Failure) -> bytes:
    """Return a result as one small record."""
    data = _encoded(result)
    if len(data) <= MOST_BYTES:
        return data
    if isinstance(result, Failure):
        return _encoded(replace(result, reason=result.reason[:LONG], body=None))
    return _encoded(replace(result, notes=(), doubts=tuple(doubt[:LONG] for doubt in result.doubts[:5]), flags={}))


def _encoded(result: Artifact | Failure) -> bytes:
    """Return JSON, with lone surrogates too: a server's words may have them, and msgspec's own encoders refuse them."""
    text = json.dumps(msgspec.to_builtins(result), ensure_ascii=False)
    return (b"A" if isinstance(result, Artifact) else b"F") + text.encode("utf-8", "surrogatepass")


def unpacked(data: bytes) -> Artifact | Failure:
    """Read a record back. Raises ValueError for what no worker of ours sends."""
    if len(data) > MOST_BYTES or data[:1] not in _KINDS:
        raise ValueError(f"a worker answered with {len(data):,} bytes that are no result")
    return msgspec.convert(json.loads(data[1:].decode("utf-8", "surrogatepass")), type=_KINDS[data[:1]])


class Sender:
    """One worker. Its methods are called through Ray, many at once, on the event loop of its process."""

    def __init__(
        self,
        open_sender: Callable[[Any], "AbstractAsyncContextManager[AttemptSender]"],
        prove: Callable[[Any, Any], str],
    ) -> None:
        """Both functions take an order; neither is called here, so that a process always comes up."""
        self._open = open_sender
        self._prove = prove
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._sender: AttemptSender | None = None

    async def prove(self, order: object, probe: object) -> Report:
        """Look at everything that sending needs here; nothing is sent."""
        problem = await asyncio.to_thread(self._prove, order, probe)
        return Report(node=socket.gethostname(), versions=versions(), problem=problem)

    async def ready(self, order: object) -> Report:
        """Open what sends, once in each process."""
        problem = ""
        async with self._opening:
            if self._sender is None:
                try:
                    self._sender = await self._stack.enter_async_context(self._open(order))
                except ImgpipeError as error:
                    problem = str(error)
        return Report(node=socket.gethostname(), versions=versions(), problem=problem)

    async def watch(self) -> None:
        """End with the process; return at once where it was not opened, because Ray has restarted it."""
        if self._sender is not None:
            await asyncio.Event().wait()

    async def send(self, attempt: Attempt) -> bytes:
        return NOT_READY if self._sender is None else packed(await self._sender.send(attempt))

    async def abandon(self) -> None:
        if self._sender is not None:
            self._sender.abandon()


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """One sender process, and those that replace it. Attempts are given to it between `ready` and `lose`.

    The generation tells one process from the next: an error of a dead one that arrives late takes nothing from the
    one that came after.
    """

    number: int  # from 1
    actor: Any = None  # of Ray: a `Sender`, whichever process has it now
    node: str = ""  # where its present process is
    generation: int = 0
    is_ready: bool = False
    in_flight: set[int] = field(default_factory=set)  # numbers of attempts that its present process was given

    def __str__(self) -> str:
        return f"{self.number}@{self.node}" if self.node else str(self.number)


@dataclass(slots=True, kw_only=True)
class Dispatch:
    """Which worker of a run gets the next attempt: decisions only, no Ray, no clock."""

    workers: Sequence[Worker] = ()
    lost: int = 0  # processes that died, each counted once

    @property
    def ready_now(self) -> int:
        return sum(worker.is_ready for worker in self.workers)

    def pick(self) -> Worker | None:
        """Return the worker with the fewest attempts in flight; None: none is ready."""
        return min((each for each in self.workers if each.is_ready), key=lambda each: len(each.in_flight), default=None)

    def ready(self, worker: Worker, node: str) -> None:
        """Give a new process of a worker attempts from here on; what an earlier one had is not its own."""
        worker.generation += 1
        worker.node = node
        worker.in_flight = set()
        worker.is_ready = True

    def lose(self, worker: Worker, generation: int) -> bool:
        """Give a process of a worker nothing more, because it died; say whether this is the first report of it."""
        if worker.generation != generation or not worker.is_ready:
            return False
        worker.is_ready = False
        self.lost += 1
        return True


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A joined cluster and the workers of one run, each of which has proved that it can send."""

    head: str | None  # HOST:PORT; None: it was started for this run
    death: type[Exception]  # what a call raises whose process died
    dispatch: Dispatch = field(default_factory=Dispatch)
    reports: list[Report] = field(default_factory=list)


def refuse_unfit(reports: Collection[Report]) -> None:
    """Raise InputError for workers that cannot send, or whose programs are others than here."""
    ours, texts = versions(), []
    for report in reports:
        other = [f"{name} {found}, here {ours[name]}" for name, found in report.versions.items() if found != ours[name]]
        where = f"node {report.node}: " if report.node else ""
        if report.problem:
            texts.append(f"{where}{report.problem}")
        elif other:
            texts.append(f"{where}it has {'; '.join(other)}; install the same versions everywhere")
    if texts:
        raise InputError("\n".join(dict.fromkeys(texts)))


class Outputs(Protocol):
    """The images of a run, as the process with the ledger sees them: `store.images`."""

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

    def __init__(self, cluster: Cluster, *, outputs: Outputs, listen: Listener, patience_s: float = PATIENCE_S) -> None:
        self.dispatch = cluster.dispatch
        self.head = cluster.head
        self._death = cluster.death
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
        for worker in self.dispatch.workers:
            if worker.is_ready:
                worker.actor.abandon.remote()
        moment = asyncio.get_running_loop().time() + GRACE_S
        for wait in self._waits:
            wait.reschedule(moment)

    async def _worker(self) -> Worker | None:
        """Return the least loaded worker; None when there was none for `patience_s`, and the run stops."""
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
                data: bytes = await worker.actor.send.remote(attempt)
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
        while True:
            try:
                report: Report = await worker.actor.ready.remote(order)
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
                await worker.actor.watch.remote()
            self._lose(worker, worker.generation, in_flight=len(worker.in_flight))

    async def watch_head(self, address: str) -> None:
        """Halt when the head is gone: after a minute without it Ray ends every process, with what is in flight."""
        host, _, port = address.rpartition(":")
        missed = 0
        while missed < HEAD_TRIES:
            await asyncio.sleep(HEAD_S)
            try:
                async with asyncio.timeout(HEAD_S):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.close()
                missed = 0
            except OSError:  # a TimeoutError is one
                missed += 1
        self.halt(Exit.TRY_LATER, f"the head of the cluster at {address} does not answer")


@asynccontextmanager
async def opened(sender: ClusterSender, order: object) -> AsyncIterator[ClusterSender]:
    """Keep the workers of a sender going while the block lasts."""
    failed: Exception | None = None
    async with asyncio.TaskGroup() as group:
        keepers = [
            group.create_task(sender.keep(worker, order), name=f"keep-{worker.number}")
            for worker in sender.dispatch.workers
        ]
        if sender.head is not None:
            keepers.append(group.create_task(sender.watch_head(sender.head), name="watch-head"))
        try:
            yield sender
        except Exception as error:  # raised below: not wrapped in a group
            failed = error
        finally:
            for keeper in keepers:
                keeper.cancel()
    if failed is not None:
        raise failed

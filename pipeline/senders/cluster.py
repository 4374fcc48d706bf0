"""Sends attempts from many machines: workers are actors of Ray, and this process only dispatches to them.

The only module that imports Ray (extra `ray`), and it does so late. Ray repeats nothing: a repeated call would be a
second purchase. When a worker dies, what it had been given is looked for in the output by its attempt number; what is
not there is unknown. Nothing is given to it again before a call of `ready` has come back. Ray is joined by the flag
alone, never because of a variable of the environment.
"""

import asyncio
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipeline.engine.events import Listener, Warned, WorkerChanged
from pipeline.errors import Exit, InputError, TryLater
from pipeline.model import Artifact, Attempt, Billed, Failure, Fault
from pipeline.senders.dispatch import Dispatch, Worker
from pipeline.senders.local import STOPPED
from pipeline.senders.worker import NOT_READY, Report, Sender, unpacked, versions

LOCAL: Final = "local"
AUTO: Final = "auto"
PATIENCE_S: Final = 60.0  # without any worker
AGAIN_S: Final = 0.5  # between two calls of `ready` to a worker that is not there yet
GRACE_S: Final = 1.5  # of the 2 s that a second signal leaves
STORE_BYTES: Final = 80 * 2**20  # of Ray's object store, which nothing is put into; about the least it takes
CALLS: Final = 16  # beside those in flight
_log: Final = logging.getLogger(__name__)
LOST: Final = Failure(
    fault=Fault.SILENCE,
    billed=Billed.MAYBE,
    reason="its worker died while this request was in flight",
    code="worker_lost",
)
NOBODY: Final = Failure(
    fault=Fault.UNREACHABLE, billed=Billed.NO, reason="no worker was there to send it", code="no_worker"
)


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A joined cluster and the actors of one run, each of which has proved that it can send."""

    address: str
    actors: "list[Any]" = field(default_factory=list)  # of `senders.worker.Sender`
    dispatch: Dispatch = field(default_factory=lambda: Dispatch(workers=()))
    reports: list[Report] = field(default_factory=list)

    @property
    def is_local(self) -> bool:
        return self.address == LOCAL


# -- joining ------------------------------------------------------------------------------------------------------


def check_address(address: str) -> None:
    """Raise InputError for what is no address of a cluster."""
    host, _, port = address.rpartition(":")
    if address in (LOCAL, AUTO) or (host and "/" not in address and port.isdecimal()):
        return
    raise InputError(f"--ray {address} is no address of a cluster; write local, auto or HOST:PORT")


@asynccontextmanager
async def joined(address: str, *, cpus: int) -> AsyncIterator[Cluster]:
    """Join a cluster, or start one on this machine with room for `cpus` workers. Raises InputError, TryLater."""
    check_address(address)
    with _temporary_folder() as folder, _environment(address):
        options = _local_options(cpus, folder) if address == LOCAL else {"address": address}
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.to_thread(_init, options)
            yield Cluster(address=address)
        except TimeoutError:
            raise TryLater(f"Ray at {address} did not answer within {PATIENCE_S:g} s; nothing was sent") from None
        finally:
            await asyncio.to_thread(_shutdown)


def _local_options(cpus: int, folder: str) -> dict[str, Any]:
    return {
        "address": LOCAL,
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
        "_node_ip_address": "127.0.0.1",  # nobody else reaches it
        "_temp_dir": folder,
        "_system_config": {
            "memory_monitor_refresh_ms": 0
        },  # limits.memory bounds a worker; a killed one may cost money
    }


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """Make a folder for Ray's logs and sockets, whose names may have 107 bytes."""
    folder = tempfile.mkdtemp(prefix="imgpipe-ray-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(address: str) -> Iterator[None]:
    """Set what Ray reads from the environment, before it is imported; put it back afterwards."""
    wanted: dict[str, str | None] = {"RAY_ADDRESS": None, "RAY_USAGE_STATS_ENABLED": "0"}
    if address == LOCAL:  # a token for this run alone; without it Ray writes one to the home directory
        wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    former = {name: os.environ.get(name) for name in wanted}
    _set(wanted)
    try:
        yield
    finally:
        _set(former)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _init(options: dict[str, Any]) -> None:
    """Connect; in a thread that is not the main one, so that Ray leaves the signal handlers alone."""
    try:
        import ray
        from ray._private import worker
        from ray._raylet import Config  # type: ignore[attr-defined]
    except ImportError:
        raise InputError("--ray needs an extra; install it: pip install 'imgpipe[ray]'") from None
    from ray.exceptions import AuthenticationError

    Config.initialize("")  # reads the environment again
    logging.getLogger("ray").setLevel(logging.ERROR)
    worker.print_to_stdstream = _told  # deaths of workers, which Ray would write to stdout
    try:
        ray.init(log_to_driver=False, configure_logging=False, **options)
    except AuthenticationError:
        raise InputError(
            f"the cluster at {options['address']} has another token, or this machine has none;"
            " copy ~/.ray/auth_token of its head node here (ray get-auth-token)"
        ) from None
    except ConnectionError as error:
        raise _unjoined(options["address"], error) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise _unjoined(options["address"], error) from error


def _unjoined(address: str, error: Exception) -> InputError | TryLater:
    text = " ".join(str(error).split())[:300]
    if address == AUTO:
        return InputError("there is no Ray cluster on this machine; start one (ray start --head), or write --ray local")
    if "ersion mismatch" in text:
        return InputError(f"{address}: {text}; install the same versions of Python and Ray everywhere")
    if address != LOCAL and "node" in text and "find" in text:
        what = f"this machine does not belong to the cluster at {address}"
        return InputError(f"{what}; run: ray start --address={address}")
    return TryLater(f"Ray at {address} cannot be reached ({text}); nothing was sent")


def _told(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:  # noqa: ARG001 - Ray's names
    _log.debug("%s", "\n".join(data.get("lines", ())))


def _shutdown() -> None:
    if (ray := sys.modules.get("ray")) is not None:
        ray.shutdown()


def check_reach(address: str, *, is_rehearsal: bool) -> None:
    """Raise InputError where a cluster reaches beyond this machine and must not."""
    import ray

    if address == LOCAL or all(is_here(each, ray.util.get_node_ip_address()) for each in nodes()):
        return
    if is_rehearsal:
        raise InputError("the built-in simulator is reached from this machine alone; rehearse with --ray local")
    if is_open(ray.get_runtime_context().gcs_address):
        raise InputError(
            f"the cluster at {address} takes orders from anybody who reaches it, and its workers have the key; start it"
            " with token authentication: RAY_AUTH_MODE=token for `ray start` on every node (docs.ray.io, token-auth)"
        )


def is_here(address: str, own: str) -> bool:
    """Say whether the address of a node is one of this machine."""
    return address == own or address.startswith("127.") or address == "::1"


def is_open(gcs_address: str) -> bool:
    """Say whether a cluster answers without a token. In a process of its own: Ray reads its mode once."""
    ask = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)"
    asked = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", ask, gcs_address],
        env={"PATH": os.defpath, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return asked.returncode == 0


def nodes() -> list[str]:
    """Return the addresses of the nodes that are alive."""
    import ray

    return [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]


# -- workers that can send ----------------------------------------------------------------------------------------


async def start_workers(
    cluster: Cluster,
    number: int,
    *,
    concurrency: int,
    functions: tuple[Callable[..., Any], Callable[..., Any]],
    order: object,
    probe: object,
    patience_s: float = PATIENCE_S,
) -> None:
    """Start workers and have each prove that it can send; those that find no place within `patience_s` are left out.

    `functions`: see `senders.worker.Sender`. Raises InputError: a worker cannot send. TryLater: there is none.
    """
    import ray

    actor = ray.remote(
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=concurrency + CALLS,
        scheduling_strategy="SPREAD",
    )(Sender)
    actors = [actor.remote(*functions) for _ in range(number)]
    proofs = {asyncio.create_task(_report(each, order, probe), name="prove"): each for each in actors}
    done, waiting = await asyncio.wait(proofs, timeout=patience_s)
    for task in waiting:
        task.cancel()
        ray.kill(proofs[task])
    cluster.reports = [task.result() for task in done]
    refuse_unfit(cluster.reports)
    if not done:
        raise TryLater(f"no worker could be started within {patience_s:g} s: the cluster has no free CPU")
    if waiting:
        _log.warning("%d of %d workers found no free CPU; the others do the work", len(waiting), number)
    cluster.actors = [proofs[task] for task in done]
    cluster.dispatch = Dispatch(workers=[Worker(number=n + 1) for n in range(len(done))])


async def _report(actor: Any, order: object, probe: object) -> Report:
    from ray.exceptions import ActorDiedError, RayActorError

    while True:
        try:
            report: Report = await actor.prove.remote(order, probe)
            return report
        except RayActorError as error:
            if isinstance(error, ActorDiedError) and error.actor_init_failed:
                what = "a node cannot import imgpipe; install it, with the extra ray, in the Python of its `ray start`"
                return Report(node="", versions=versions(), problem=what)
            await asyncio.sleep(AGAIN_S)


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


# -- sending ------------------------------------------------------------------------------------------------------


class ClusterSender:
    """Sends attempts through workers; see `engine.ports.AttemptSender`."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        find: Callable[[Attempt], Awaitable[Artifact | Failure | None]],
        listen: Listener,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`find` looks for the image of an attempt in the output."""
        self.dispatch = cluster.dispatch
        self._actors = dict(zip(self.dispatch.workers, cluster.actors, strict=True))
        self._find = find
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
                found = await self._find(attempt) or (STOPPED if self._is_abandoned else LOST)
                return replace(found, worker=str(worker))
            if data != NOT_READY:
                return replace(unpacked(data), worker=str(worker))
            self._lose(worker, generation, in_flight=0)
        return NOBODY if not self._is_abandoned else STOPPED

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
        from ray.exceptions import RayActorError

        try:
            async with self._waiting(None):
                data: bytes = await self._actors[worker].send.remote(attempt)
                return data
        except (RayActorError, TimeoutError):
            return None

    def _lose(self, worker: Worker, generation: int, *, in_flight: int) -> None:
        if self.dispatch.lose(worker, generation):
            self._listen(WorkerChanged(worker=str(worker), is_lost=True, in_flight=in_flight))
        if not self.dispatch.ready_now:
            self._is_any_ready.clear()

    async def keep(self, worker: Worker, order: object) -> None:
        """Open a worker, wait for its death, and again: for as long as the run lasts."""
        from ray.exceptions import RayActorError

        actor = self._actors[worker]
        while True:
            try:
                report: Report = await actor.ready.remote(order)
                refuse_unfit([report])
            except RayActorError:
                await asyncio.sleep(AGAIN_S)
                continue
            except InputError as error:
                self._listen(Warned(text=f"worker {worker} is not used any more: {error}"))
                return
            self.dispatch.ready(worker, report.node)
            self._is_any_ready.set()
            self._listen(WorkerChanged(worker=str(worker), is_lost=False, in_flight=0))
            try:
                await actor.watch.remote()
            except RayActorError:
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

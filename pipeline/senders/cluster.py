"""Joins a cluster of Ray, or starts one on this machine, and starts workers that have proved that they can send.

The only module that imports Ray (extra `ray`), and it does so late. Ray is joined by the flag alone, never because of a
variable of the environment, and a cluster of more than this machine only if it asks for a token. Ray repeats nothing: a
repeated call would be a second purchase.
"""

import asyncio
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from pipeline.errors import ImgpipeError, InputError, TryLater
from pipeline.senders.remote import (
    AGAIN_S,
    PATIENCE_S,
    Cluster,
    Dispatch,
    Report,
    Sender,
    Worker,
    refuse_unfit,
    versions,
)

LOCAL: Final = "local"
AUTO: Final = "auto"
REST_S: Final = 15.0  # for another one, once some are there
CONNECT_S: Final = 5.0
REMOVALS: Final = 10  # tries to remove Ray's folder
STORE_BYTES: Final = 80 * 2**20  # of Ray's object store, which nothing is put into; about the least it takes
CALLS: Final = 16  # at once to one worker, beside those in flight
ASK: Final = (
    "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).get_all_node_info(timeout=9)"
)
_log: Final = logging.getLogger(__name__)


# -- joining ------------------------------------------------------------------------------------------------------


def check_address(address: str) -> None:
    """Raise InputError for what is no address of a cluster."""
    host, _, port = address.rpartition(":")
    if address in (LOCAL, AUTO) or (host and "/" not in address and port.isdecimal()):
        return
    raise InputError(f"--ray {address} is no address of a cluster; write local, auto or HOST:PORT")


@asynccontextmanager
async def joined(address: str, *, cpus: int, is_rehearsal: bool = False) -> AsyncIterator[Cluster]:
    """Join a cluster, or start one on this machine with room for `cpus` workers.

    `is_rehearsal`: only this machine reaches the simulator. Raises InputError, TryLater.
    """
    check_address(address)
    with _temporary_folder() as folder, _environment(address):
        try:
            if address == LOCAL:
                options = _local_options(cpus, folder)
            else:
                address = await asyncio.to_thread(_resolved, address)
                await _refuse_unreachable(address)
                options = {"address": address}
            death = await _connected(options)
            if address != LOCAL:
                await asyncio.to_thread(_check_reach, address, is_rehearsal=is_rehearsal)
            yield Cluster(head=None if address == LOCAL else address, death=death)
        finally:
            await asyncio.to_thread(_shutdown)


async def _connected(options: dict[str, Any]) -> type[Exception]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(_init, options)
    except TimeoutError:
        text = f"Ray at {options['address']} did not answer within {PATIENCE_S:g} s; nothing was sent"
        raise TryLater(text) from None


def _local_options(cpus: int, folder: str) -> dict[str, Any]:
    return {
        "address": LOCAL,
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
        "_temp_dir": folder,
        "_system_config": {"memory_monitor_refresh_ms": 0},  # `limits` bound a worker; to kill one may cost money
    }


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """Make a folder for Ray's logs and sockets, whose names may have 107 bytes."""
    folder = tempfile.mkdtemp(prefix="imgpipe-ray-", dir="/tmp")
    try:
        yield folder
    finally:
        for _ in range(REMOVALS):  # processes of Ray that end still write to it
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):  # noqa: PTH110 - a path of tempfile
                break
            time.sleep(AGAIN_S / REMOVALS)


@contextmanager
def _environment(address: str) -> Iterator[None]:
    """Set what Ray reads from the environment, before it is imported; put it back afterwards."""
    wanted: dict[str, str | None] = {"RAY_ADDRESS": None, "RAY_USAGE_STATS_ENABLED": "0"}
    if address == LOCAL:  # a token for this run alone; without it Ray writes one to the home directory
        wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    else:
        wanted["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE")  # put back, whatever `_choose_mode` finds out
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


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("--ray needs an extra; install it: pip install 'imgpipe[ray]'") from None
    return ray


def _resolved(address: str) -> str:
    """Return HOST:PORT; of `auto`, the cluster whose `ray start` was run on this machine."""
    _imported()
    from ray._private.utils import read_ray_address

    found: str | None = read_ray_address() if address == AUTO else address
    if not found:
        raise InputError("no Ray cluster runs on this machine; start one (ray start --head), or write --ray local")
    return found


async def _refuse_unreachable(address: str) -> None:
    """Raise TryLater where nobody listens, InputError where the token is another one: Ray would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
    except OSError as error:
        why = error.strerror or "no answer"
        raise TryLater(f"Ray at {address} cannot be reached ({why}); nothing was sent") from None
    await asyncio.to_thread(_choose_mode, address)


def _choose_mode(address: str) -> None:
    """Set RAY_AUTH_MODE to what the cluster takes, a token or none, unless it is set: a cluster takes one mode only.

    Raises InputError: the token is another one, or there is none.
    """
    given = os.environ.get("RAY_AUTH_MODE")
    modes = ("disabled", "token") if given is None else (given,)
    for mode in modes:
        refusal = _refusal(address, {**os.environ, "RAY_AUTH_MODE": mode})
        if not refusal or (mode == modes[0] and "InvalidAuthToken" not in refusal):  # else Ray says what is wrong
            os.environ["RAY_AUTH_MODE"] = mode
            return
    what = f"the cluster at {address} has another token than this machine"
    raise InputError(f"{what}; copy ~/.ray/auth_token of its head node here (ray get-auth-token)")


def _refusal(address: str, environ: Mapping[str, str]) -> str:
    """Ask a cluster for its nodes, in a process of its own: Ray reads its token once. Return the error, if any."""
    asked = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", ASK, address],
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return "" if asked.returncode == 0 else asked.stderr


def is_open(address: str) -> bool:
    """Say whether a cluster answers without a token."""
    return not _refusal(address, {"PATH": os.defpath, "RAY_AUTH_MODE": "disabled"})


def _init(options: dict[str, Any]) -> type[Exception]:
    """Connect; in a thread that is not the main one, so that Ray leaves the signal handlers alone."""
    ray = _imported()
    from ray._private import worker
    from ray._raylet import Config  # type: ignore[attr-defined]
    from ray.exceptions import RayActorError

    Config.initialize("")  # reads the environment again
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Deaths of workers, which Ray would write to stdout.
    worker.print_to_stdstream = lambda data, *_, **__: _log.debug("%s", "\n".join(data.get("lines", ())))
    try:
        ray.init(log_to_driver=False, configure_logging=False, **options)
    except Exception as error:  # Ray raises the bare class where a node does not start in time; its text is passed on
        raise _unjoined(options["address"], error) from error
    death: type[Exception] = RayActorError
    return death


def _unjoined(address: str, error: Exception) -> ImgpipeError:
    text = " ".join(str(error).split())[:300]
    if "ersion mismatch" in text:
        return InputError(f"{address}: {text}; install the same versions of Python and Ray everywhere")
    if address != LOCAL and "find" in text and "node" in text:
        return InputError(f"this machine does not belong to the cluster; run: ray start --address={address}")
    return TryLater(f"Ray at {address} cannot be reached ({text}); nothing was sent")


def _shutdown() -> None:
    if (ray := sys.modules.get("ray")) is not None:
        ray.shutdown()


def _check_reach(address: str, *, is_rehearsal: bool) -> None:
    """Raise InputError where a cluster reaches beyond this machine and must not."""
    import ray

    own = ray.util.get_node_ip_address()
    if all(each in (own, "::1") or each.startswith("127.") for each in nodes()):
        return
    if is_rehearsal:
        raise InputError("the built-in simulator is reached from this machine alone; rehearse with --ray local")
    if is_open(address):
        raise InputError(
            f"the cluster at {address} takes orders from anybody who reaches it, and its workers have the key; start it"
            " with token authentication: RAY_AUTH_MODE=token for `ray start` on every node"
        )


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
) -> None:
    """Start workers and have each prove that it can send; those that find no place in time are left out.

    `functions`: see `senders.remote.Sender`. Raises InputError: a worker cannot send. TryLater: there is none.
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
    async with asyncio.TaskGroup() as group:
        proofs = {group.create_task(_report(each, order, probe), name="prove"): each for each in actors}
        done, waiting = await _first_come(set(proofs))
        for task in waiting:
            task.cancel()
            ray.kill(proofs[task])
    cluster.reports = [task.result() for task in done]
    refuse_unfit(cluster.reports)
    if not done:
        raise TryLater(f"no worker could be started within {PATIENCE_S:g} s: the cluster has no free CPU")
    if waiting:
        _log.warning("%d of %d workers found no free CPU; the others do the work", len(waiting), number)
    cluster.dispatch = Dispatch(workers=[Worker(number=n, actor=proofs[task]) for n, task in enumerate(done, 1)])


Proofs = set["asyncio.Task[Report]"]


async def _first_come(proofs: Proofs) -> tuple[Proofs, Proofs]:
    """Wait for all, or until none came for long; return who came, and who did not."""
    done: Proofs = set()
    while proofs:
        came, proofs = await asyncio.wait(
            proofs, timeout=REST_S if done else PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
        )
        done |= came
        if not came:
            break
    return done, proofs


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

"""`doctor`: checks what a run needs: Python, packages, manifest, key, address, disk, clock, limits.

Each check is ok, warn or bad with what to do. Nothing is paid for, the key is never shown, and no file is left behind.
CometAPI publishes its list of models at `{base_url}/api/models`; its shape is not promised, so every text in it counts
that is the name of a model.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import socket
import sqlite3
import ssl
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipeline.app import context
from pipeline.app.consent import describe_hold, lasting_holds
from pipeline.app.context import Flags, Setup, prepare
from pipeline.app.planning import reading
from pipeline.buckets import as_input_error, open_bucket
from pipeline.errors import Exit, ImgpipeError, InputError
from pipeline.model import BucketUrl
from pipeline.provider.byte_budget import CONNECTION_BYTES, UNREAD_BYTES
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.credentials import Proxy, check_address, find_key, find_proxy, key_doubt, trust_advice
from pipeline.settings import SPARE_FILES, Kind, Limits, ProviderSettings
from pipeline.store.lock import refuse_network
from pipeline.text import count, size

PATIENCE_S: Final = 10.0
LIST_PATIENCE_S: Final = 20.0
MOST_BYTES: Final = 16 * 2**20
_NAME: Final = re.compile(r"gemini-[a-z0-9.-]{1,60}")
_IMAGE: Final = re.compile(r"image|banana")
LEAST_FREE: Final = 100 * 10**6
LITTLE_FREE: Final = 10**9
LEAST_SQLITE: Final = (3, 37, 0)  # STRICT tables, https://www.sqlite.org/stricttables.html
BASE_MEMORY: Final = 120 * 2**20  # of a run beside what its limits allow in flight
MEMORY_LIMITS: Final = (  # of a container, where it sees them: version 2, version 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
RELEASED: Final = datetime(2026, 11, 1, tzinfo=UTC)  # a clock before this is wrong
SKEW_S: Final = 5.0  # between this machine and the disk
EXTRAS: Final = {
    "arro3-io": ("parquet", "each: {parquet: ...}"),
    "pillow-heif": ("heic", "HEIC input images"),
    "obstore": ("bucket", "output_dir: s3://, gs://, az://"),
    "ray": ("ray", "run --ray"),
}


class Level(StrEnum):
    """How well it is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One line. `exit`: what a bad one makes of the whole."""

    level: Level
    name: str
    text: str
    advice: str = ""
    exit: Exit = field(default=Exit.USAGE, kw_only=True)


_ok, _warn, _bad = partial(Check, Level.OK), partial(Check, Level.WARN), partial(Check, Level.BAD)


def doctor(path: Path | None, flags: Flags, *, with_models: bool = False) -> Iterator[Check]:
    """Look at everything, one check at a time. Without a manifest: what is the same for all of them.

    `with_models`: the gateway's public list of models is fetched and compared, without a key.
    """
    yield from _programs()
    setup = None
    if path is not None:
        try:
            setup = prepare(path, flags)
            yield _ok("manifest", f"{path}: {count(len(setup.manifest.jobs), 'job')}")
        except InputError as error:
            yield _bad("manifest", str(error), f"fix it: imgpipe validate {path}")
    is_known = setup is not None or path is None  # what is asked for can be looked at
    if is_known:
        yield _key(setup)
        yield _address(setup)
        yield from () if setup is None else _models(setup)
        yield from _offers(setup) if with_models else ()
    yield from _places(setup)
    yield _clock(setup)
    yield from _limits(Limits() if setup is None else setup.limits)
    if flags.ray is not None and is_known:
        yield from _cluster(setup, flags)


def doctor_exit_code(checks: list[Check]) -> Exit:
    """Return 2 when something here is bad, 7 when only the account or the way to it is, else 0."""
    bad = {check.exit for check in checks if check.level is Level.BAD}
    return Exit.USAGE if Exit.USAGE in bad else Exit.ACCOUNT if bad else Exit.OK


def verdict(checks: list[Check]) -> str:
    """Return the whole in one sentence: `Not ready: 2 of 16 checks are bad (key, address).`"""
    bad, warn = ([c.name for c in checks if c.level is level] for level in (Level.BAD, Level.WARN))
    if bad:
        verb = "is" if len(bad) == 1 else "are"
        return f"Not ready: {len(bad)} of {len(checks)} checks {verb} bad ({', '.join(bad)})."
    return f"Ready, but look at {', '.join(warn)}." if warn else f"Ready: {count(len(checks), 'check')}, all well."


# -- this machine -------------------------------------------------------------------------------------------------


def _programs() -> Iterator[Check]:
    yield _ok("python", f"{platform.python_version()}, {sys.executable}")
    is_old, advice = sqlite3.sqlite_version_info < LEAST_SQLITE, "use a Python that comes with SQLite 3.37 or newer"
    yield _bad("sqlite", sqlite3.sqlite_version, advice) if is_old else _ok("sqlite", sqlite3.sqlite_version)
    needed = (line for line in importlib.metadata.requires("imgpipe") or [] if "extra ==" not in line)
    versions = {name: _version(name) for name in sorted({re.split(r"[^\w.-]", line)[0] for line in needed})}
    if missing := [name for name, version in versions.items() if version is None]:
        yield _bad("packages", f"not installed: {', '.join(missing)}", "install imgpipe again")
    yield _ok("packages", ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None))
    for name, (extra, what) in EXTRAS.items():
        version = _version(name)
        missing_text = f"not installed, needed only for {what}: pip install 'imgpipe[{extra}]'"
        yield _ok(f"extra {extra}", missing_text if version is None else f"{name} {version}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _clock(setup: Setup | None) -> Check:
    now, zone = datetime.now(UTC), "UTC" if setup is None else setup.limits.tz
    if now < RELEASED:
        return _bad("clock", f"it says {now:%Y-%m-%d}, which is over", "set it (NTP): certificates and budgets need it")
    return _ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC; budgets' days begin in {zone}")


def _limits(limits: Limits) -> Iterator[Check]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a run raises the soft one
    needed = limits.concurrency + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        text = f"{hard:,} at once, {needed:,} are needed for {limits.concurrency:,} requests in flight"
        yield _warn("open files", text, f"ulimit -n {needed}, or lower limits.concurrency")
    else:
        yield _ok("open files", "unlimited" if hard == resource.RLIM_INFINITY else f"{hard:,} at once")
    available = _available_bytes()
    wanted = BASE_MEMORY + limits.memory_bytes + limits.concurrency * (CONNECTION_BYTES + UNREAD_BYTES)
    if available is not None and available < wanted:
        yield _warn("memory", f"{size(available)} free, a run may take {size(wanted)}", "lower limits.concurrency")
    elif available is not None:
        yield _ok("memory", f"{size(available)} free, a run takes {size(wanted)} at most")


def _available_bytes() -> int | None:
    """Return what Linux says could be used without swapping, and at most a container's limit; None elsewhere.

    proc(5), MemAvailable; https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.max
    """
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    if match is None:
        return None
    available = int(match[1]) * 1024
    for file in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or `max`
            available = min(available, int(file.read_text()))
    return available


def _cluster(setup: Setup | None, flags: Flags) -> Iterator[Check]:
    """Join the cluster and have a worker on each node look at what it needs; nothing is sent."""
    from pipeline.app.workers import inspect_cluster  # late: it imports everything that sends

    try:
        for text in asyncio.run(inspect_cluster(setup, flags)):
            yield _ok("ray", text)
    except ImgpipeError as error:
        yield from (_bad("ray", *line.split("; ", 1)) for line in str(error).splitlines())  # what is wrong; what to do


# -- key, address and models --------------------------------------------------------------------------------------


def _key(setup: Setup | None) -> Check:
    try:
        if setup is not None:
            setup.key()
        else:
            find_key(ProviderSettings(), environ=os.environ, dotenv_dir=Path())
    except InputError as error:
        if setup is None:
            return _warn("key", str(error), "a rehearsal needs none: imgpipe run FILE --simulate")
        return _bad("key", str(error), "a rehearsal needs none: --simulate", exit=Exit.ACCOUNT)
    if setup is not None and setup.is_play_money:
        return _ok("key", "none is needed")
    folder = Path.cwd() if setup is None else setup.manifest.path.parent
    other = key_doubt(ProviderSettings() if setup is None else setup.provider, environ=os.environ, dotenv_dir=folder)
    told = [text for text in (context.key_exposure(folder), other) if text is not None]
    return _warn("key", "present", "; ".join(told)) if told else _ok("key", "present")


def _address(setup: Setup | None) -> Check:
    """Connect once to where requests would go, through a proxy in between. No request is sent."""
    if setup is not None and setup.is_play_money and setup.provider.base_url is None:
        return _ok("address", "the built-in simulator: no network is needed")
    try:
        address = check_address(ProviderSettings() if setup is None else setup.provider)
        proxy = find_proxy(address, os.environ)
    except InputError as error:
        return _bad("address", str(error), exit=Exit.ACCOUNT)
    where = _host_and_port(address) + ("" if proxy is None else f" through the proxy {_host_and_port(proxy.url)}")

    started = time.monotonic()
    try:
        _connect(address, proxy)
    except TimeoutError:
        what, advice = f"no answer within {PATIENCE_S:g} s", "check the network, a firewall, or the proxy variables"
    except socket.gaierror:
        what, advice = "the name is not known", "check provider.base_url and DNS"
    except ssl.SSLError as error:
        what = f"TLS failed ({error.reason or error})"
        advice = f"{trust_advice(os.environ)}; a wrong clock makes this too"
    except OSError as error:
        what, advice = str(error.strerror or error), "check provider.base_url, the network and HTTPS_PROXY"
    except HTTPException:
        what, advice = "what answers is no HTTP proxy", "check HTTPS_PROXY"
    else:
        took = f"{(time.monotonic() - started) * 1000:.0f} ms"
        return _ok("address", f"{where} answers{' over TLS' if address.startswith('https') else ''} in {took}")
    return _bad("address", f"{where}: {what}", advice, exit=Exit.ACCOUNT)


def _connect(address: str, proxy: Proxy | None) -> None:
    """Connect to a server, and end the connection after the TLS handshake. Raises OSError, HTTPException.

    Of a proxy that speaks TLS itself, only its own handshake is tried.
    """
    there, first = urlsplit(address), urlsplit(address if proxy is None else proxy.url)
    host, port = _host_and_port(first.geturl()).rsplit(":", 1)
    with contextlib.closing(HTTPConnection(host, int(port), timeout=PATIENCE_S)) as connection:
        if proxy is not None and first.scheme == "http":
            connection.set_tunnel(there.hostname or "", there.port or 443, proxy.headers or {})
        connection.connect()
        if "https" in (there.scheme, first.scheme):
            name = first.hostname if first.scheme == "https" else there.hostname
            ssl.create_default_context().wrap_socket(connection.sock, server_hostname=name).close()


def _host_and_port(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _models(setup: Setup) -> Iterator[Check]:
    """Say which models of the manifest are retired or about to be."""
    retired = setup.retired(setup.models)
    for text in retired:
        yield _warn("model", text, "a relay may serve it still; else write one of those")
    if not retired:
        yield _ok("model", ", ".join(sorted(setup.models)) or "named by the rows")


def _offers(setup: Setup | None) -> Iterator[Check]:
    """Compare what the catalogue calls offered with the gateway's own list."""
    provider = ProviderSettings() if setup is None else setup.provider
    if provider.kind is not Kind.COMETAPI:
        yield _ok("models", f"kind {provider.kind} has no list that is read without a key; only cometapi has")
        return
    try:
        listed = asyncio.run(_listed_models(provider))
    except InputError as error:
        yield _warn("models", str(error), "the catalogue is used as it is")
        return
    catalogue = Catalogue() if setup is None else setup.catalogue
    offered = set(catalogue.current_models(datetime.now(UTC).date(), kind=provider.kind))
    gone, back = offered - listed, {model for model in listed - offered if catalogue.family(model) is not None}
    new = {model for model in listed - offered - back if _IMAGE.search(model)}
    for names, text, advice in (
        (gone, "offered by the catalogue, not in the list", "ask for another model, or see whether a run gets one"),
        (back, "ended by the catalogue, in the list", "the gateway seems to serve it still"),
        (new, "in the list, not in the catalogue", "name its price under `prices:` to use it with a budget"),
    ):
        if names:
            yield _warn("models", f"{text}: {', '.join(sorted(names))}", advice)
    if not gone | back | new:
        yield _ok("models", f"the gateway lists what the catalogue calls offered: {', '.join(sorted(offered))}")


async def _listed_models(settings: ProviderSettings) -> frozenset[str]:
    """Return the names of the Gemini models in the list. Raises InputError: there is no list to be had."""
    import aiohttp  # takes 0.3 s to import: only for who asks

    address = check_address(settings)
    url, proxy = f"{address}/api/models", find_proxy(address, os.environ)
    way, headers = (None, None) if proxy is None else (proxy.url, proxy.headers)
    timeout, body, names = aiohttp.ClientTimeout(total=LIST_PATIENCE_S), bytearray(), frozenset[str]()
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, proxy=way, proxy_headers=headers, allow_redirects=False) as reply,
        ):
            async for chunk in reply.content.iter_chunked(2**16):
                body += chunk
                if len(body) > MOST_BYTES:
                    raise ValueError(f"more than {MOST_BYTES // 2**20} MB")
        names = frozenset(_names(json.loads(body)))
        why = None if reply.status == 200 and names else f"HTTP {reply.status}, {len(names)} Gemini models"
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
    if why is not None:
        raise InputError(f"{url} gave no list of models ({why}); try later")
    return names


def _names(node: object) -> Iterator[str]:
    """Yield every text of a tree of JSON, keys included, that is the name of a Gemini model."""
    if isinstance(node, str) and _NAME.fullmatch(node):
        yield node
    children: Iterable[object] = (*node, *node.values()) if isinstance(node, dict) else ()
    for child in node if isinstance(node, list) else children:
        yield from _names(child)


# -- disk, bucket and ledger --------------------------------------------------------------------------------------


def _places(setup: Setup | None) -> Iterator[Check]:
    """Look at where images and the ledger go."""
    if setup is None:
        yield from _disk(Path.cwd())
        return
    output_dir = setup.manifest.output_dir
    if isinstance(output_dir, Path):
        yield from _disk(output_dir)
    else:
        yield from _disk(setup.manifest.state_dir)
        yield _bucket(output_dir)
    yield from _ledger(setup)


def _disk(output_dir: Path) -> Iterator[Check]:
    folder = next(parent for parent in (output_dir, *output_dir.parents) if parent.exists())
    where = f"{output_dir}" + ("" if folder == output_dir else f" (not there yet; looked at {folder})")
    try:
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        text = f"{where}: {size(free)} free"
        if free < LEAST_FREE:
            yield _bad("disk", text, "free some space; an image takes 1 to 3 MB")
        elif free < LITTLE_FREE:
            yield _warn("disk", text, "an image takes 1 to 3 MB; free space before a long run")
        else:
            yield _ok("disk", text)
        if (exposed := context.folder_exposure(output_dir)) is not None:
            yield _warn("disk", where, exposed)
        with tempfile.TemporaryDirectory(prefix=".imgpipe-doctor-", dir=folder) as probe:
            yield from _abilities(Path(probe))
    except OSError as error:
        yield _bad("disk", f"{where}: {error.strerror}", "choose another output_dir, or fix its permissions")


def _abilities(probe: Path) -> Iterator[Check]:
    """Try what an image needs on its way to its name: write, sync, link; compare clocks on the way."""
    file = probe / "probe"
    with file.open("wb") as stream:
        stream.write(b"imgpipe")
        stream.flush()
        os.fsync(stream.fileno())
    skew = file.stat().st_mtime - time.time()
    try:
        (probe / "link").hardlink_to(file)
        yield _ok("links", "hard links work")
    except OSError as error:
        yield _warn("links", f"no hard links here ({error.strerror})", "images are renamed instead, which is safe too")
    fd = os.open(probe, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
        yield _ok("sync", "files and directories can be synced")
    except OSError as error:
        text = f"directories cannot be synced ({error.strerror})"
        yield _warn("sync", text, "a power loss may undo the newest names; use a local disk")
    finally:
        os.close(fd)
    if abs(skew) > SKEW_S:
        yield _warn("clock", f"the disk's clock is {skew:+.0f} s off", "set the clocks of both machines (NTP)")


def _bucket(url: BucketUrl) -> Check:
    """Try what an image needs in a bucket: list, put, put again, delete."""
    try:
        bucket = open_bucket(url)
        with as_input_error(url):
            next(bucket.listing(), None)
        bucket.prove()
    except ImgpipeError as error:
        return _bad("bucket", *str(error).split("; ", 1))
    return _ok("bucket", f"{url}: reachable; list, put and delete are allowed, and put-if-absent is honoured")


def _ledger(setup: Setup) -> Iterator[Check]:
    """Look at the ledger's place, at the ledger itself, and at an order to wait."""
    state_dir = setup.manifest.state_dir
    try:
        refuse_network(state_dir)
        with reading(setup) as reader:
            if reader.is_missing:
                yield _ok("ledger", "none yet; the first run makes it")
                return
            held, runs = list(lasting_holds(setup, reader).values()), reader.runs()
    except ImgpipeError as error:
        yield _bad("ledger", str(error))
        return
    except OSError as error:
        where = error.filename or state_dir
        yield _bad("ledger", f"{where}: {error.strerror}", "run as its owner, or change its owner")
        return
    yield _ok("ledger", f"{state_dir}: {count(len(runs), 'run')}")
    for hold in held:
        yield _warn("quota", describe_hold(hold), "the same command works after that; `run --now` sends anyway")
    if runs and runs[-1] > datetime.now(UTC):
        yield _warn("clock", "the last run began in the future", "the clock went back; set it (NTP)")

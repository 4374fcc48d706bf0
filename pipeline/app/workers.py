"""Starts the workers of a run (`--ray`), after each has shown that it can write, see the inputs and find a key.

A worker gets its settings as a `WorkerOrder`, which holds no key: it reads its own environment, or the `.env` beside
the manifest where it sees that. Every worker must see the output directory, where the images of one that died are
found. The state directory may lie on the machine of the run alone; a worker that does not see it keeps what it cannot
publish in a folder of the output (`store/rejected`).
"""

import asyncio
import logging
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.app.context import Flags, Setup
from pipeline.app.sending import fit_descriptors, fit_for_images
from pipeline.buckets import Bucket, BucketError, Locations, as_input_error, open_bucket
from pipeline.errors import ImgpipeError, InputError, StorageError
from pipeline.manifest.location import folder_of
from pipeline.model import BucketUrl, Due, InputImage, is_object
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.client import Client
from pipeline.provider.credentials import find_key
from pipeline.senders.cluster import LOCAL, joined, nodes, start_workers
from pipeline.senders.local import LocalSender
from pipeline.senders.remote import Cluster
from pipeline.settings import Limits, ProviderSettings
from pipeline.store.images import StoredImages, WriterPool
from pipeline.store.rejected import WORKERS_MARK, apart_dir
from pipeline.store.resources import StoreSettings, open_worker_resources
from pipeline.store.store import Store
from pipeline.text import count

FOLDERS: Final = 200  # of input images, of each of which one is looked at
PROBE: Final = ".imgpipe-probe-"
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What a worker needs to send; no key."""

    provider: ProviderSettings
    is_keyless: bool
    limits: Limits
    prices: Mapping[str, int | Mapping[str, int]]
    manifest: str
    folder: Path  # of the manifest
    output_dir: Path | BucketUrl
    state_dir: Path
    token: str  # the content of its `WORKERS_MARK`
    ledger_id: str
    is_play_money: bool
    force: bool

    def key(self) -> str:
        """Find the key here. Raises InputError: there is none."""
        if self.is_keyless:
            return "simulator"
        return find_key(self.provider, environ=os.environ, dotenv_dir=self.folder)

    @property
    def is_state_seen(self) -> bool:
        """Whether the state directory of the run is seen from here, and not another one under the same path."""
        with suppress(OSError):
            return (self.state_dir / WORKERS_MARK).read_text() == self.token
        return False

    @property
    def kept_dir(self) -> Path:
        """Where this worker keeps what it cannot publish."""
        if self.is_state_seen:
            return self.state_dir
        if isinstance(self.output_dir, Path):
            return apart_dir(self.output_dir, self.ledger_id)
        return Path(tempfile.gettempdir()) / f"imgpipe-{os.getuid()}-{self.ledger_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a worker must see."""

    name: str  # in the output directory
    content: str
    inputs: tuple[InputImage, ...]


# -- in a worker --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_worker(order: WorkerOrder) -> AsyncIterator[LocalSender]:
    """Open what a worker sends with. Raises InputError, StorageError."""
    fit_for_images()
    fit_descriptors(order.limits)  # raises the limit of this process; the run decides how many are in flight
    settings = StoreSettings(
        output_dir=order.output_dir,
        state_dir=order.kept_dir,
        manifest=order.manifest,
        is_play_money=order.is_play_money,
        force=order.force,
    )
    resources = await asyncio.to_thread(
        open_worker_resources, settings, ledger_id=order.ledger_id, is_apart=not order.is_state_seen
    )
    pool = WriterPool(settings.threads)
    try:
        client = Client(order.provider, key=order.key(), limits=order.limits, catalogue=Catalogue(order.prices))
        images = StoredImages(resources, pool)
        async with client, LocalSender(client, images, manifest=order.manifest) as sender:
            yield sender
    finally:
        await pool.aclose()
        resources.close_directories()


def prove_worker(order: WorkerOrder | None, probe: Probe) -> str:
    """Look at output directory, inputs and key from here; return what is wrong and what to do, or nothing."""
    if order is None:  # no manifest was named
        return ""
    try:
        if isinstance(order.output_dir, Path):
            _prove_folder(order.output_dir, probe)
        else:
            _prove_bucket(open_bucket(order.output_dir), probe)
        _prove_inputs(probe.inputs)
        order.key()
    except ImgpipeError as error:
        return str(error)
    return ""


def _prove_folder(folder: Path, probe: Probe) -> None:
    """Read the run's probe; make a file and a second name for it, as an image has.

    A second name of the probe would be refused where workers are another user's (fs.protected_hardlinks).
    """
    mine = folder / f"{PROBE}{secrets.token_hex(8)}"
    link = mine.with_name(mine.name + "-link")
    instead = "mount the same folder under this path on every node, or use a bucket as output_dir"
    try:
        if (folder / probe.name).read_text() != probe.content:
            raise InputError(f"{folder} is another folder here; {instead}")
        mine.write_text(probe.content)
        os.link(mine, link)
    except FileNotFoundError:
        raise InputError(f"output_dir {folder} is not seen here; {instead}") from None
    except OSError as error:
        what = f"images cannot be written to {folder} ({error.strerror})"
        raise InputError(f"{what}; it must be writable and have hard links, else use a bucket") from error
    finally:
        for path in (mine, link):
            with suppress(OSError):
                path.unlink()


def _prove_bucket(bucket: Bucket, probe: Probe) -> None:
    with as_input_error(bucket.url):
        if bucket.read(probe.name) != probe.content.encode():
            raise InputError(f"{bucket.url} is another bucket here; set the same endpoint on every node")
    bucket.prove()


def _prove_inputs(images: Iterable[InputImage]) -> None:
    locations = Locations()
    for image in images:
        try:
            size_bytes = _size_bytes(image.path, locations)
        except (OSError, BucketError) as error:
            what = f"input image {image.path} cannot be seen here ({getattr(error, 'strerror', error)})"
            raise InputError(f"{what}; mount its folder under the same path on every node") from None
        if size_bytes != image.size_bytes:
            raise InputError(f"input image {image.path} is another file here; mount the same folder on every node")


def _size_bytes(path: str, locations: Locations) -> int | None:
    if not is_object(path):
        return os.stat(path).st_size  # noqa: PTH116 - names that are not UTF-8 stay strings
    bucket, name = locations.find(path)
    found = bucket.look(name)
    return None if found is None else found.size_bytes


# -- in the process of the run ------------------------------------------------------------------------------------


def order_of(setup: Setup, *, ledger_id: str = "", token: str = "") -> WorkerOrder:
    """Return the settings of a run's workers."""
    manifest = setup.manifest
    return WorkerOrder(
        provider=setup.provider,
        is_keyless=setup.is_play_money and setup.provider.base_url is None,
        limits=setup.limits,
        prices=manifest.prices,
        manifest=manifest.name,
        folder=folder_of(manifest.path),
        output_dir=manifest.output_dir,
        state_dir=manifest.state_dir,
        token=token,
        ledger_id=ledger_id,
        is_play_money=setup.is_play_money,
        force=setup.rules.force,
    )


@asynccontextmanager
async def _joined(
    address: str, order: WorkerOrder | None, due: Iterable[Due] = (), *, workers: int | None, concurrency: int
) -> AsyncIterator[Cluster]:
    """Join a cluster and start workers that have proved that they can send; None: one a node, `local`: one a core."""
    is_rehearsal = order is not None and order.is_keyless
    cores = workers or os.cpu_count() or 1
    async with joined(address, cpus=cores, is_rehearsal=is_rehearsal) as cluster:
        number = cores if address == LOCAL else workers or len(nodes())
        async with nullcontext() if order is None else _probe(order, due) as probe:
            functions = (open_worker, prove_worker)
            await start_workers(cluster, number, concurrency=concurrency, functions=functions, order=order, probe=probe)
        yield cluster


@asynccontextmanager
async def workers_of(setup: Setup, store: Store, due: Iterable[Due]) -> AsyncIterator[tuple[Cluster, WorkerOrder]]:
    """Start the workers of a run; each has proved that it can send. Raises InputError, TryLater: nothing was sent."""
    flags, token = setup.flags, secrets.token_hex(16)
    assert flags.ray is not None
    (setup.manifest.state_dir / WORKERS_MARK).write_text(token)
    order = order_of(setup, ledger_id=store.ledger_id, token=token)
    async with _joined(flags.ray, order, due, workers=flags.workers, concurrency=setup.limits.concurrency) as cluster:
        try:
            yield cluster, order
        finally:
            await take_rest(store, lost=cluster.dispatch.lost)


async def take_rest(store: Store, *, lost: int) -> None:
    """Take what workers kept, and what lost ones wrote late; what cannot be had now is left to the next start.

    That looks for it in any case, as long as `WORKERS_MARK` is there: a frozen worker may write long after the run.
    """
    try:
        await store.collect_kept(are_gone=not lost)
        if lost:
            await store.recover_late()
    except (OSError, StorageError) as error:  # the run is over, and what it did must be reported
        _log.warning("the next start looks again for what workers kept: %s", error)


@asynccontextmanager
async def _probe(order: WorkerOrder, due: Iterable[Due]) -> AsyncIterator[Probe]:
    """Put something into the output directory that every worker must find there."""
    probe = Probe(
        name=f"{PROBE}{secrets.token_hex(8)}",
        content=secrets.token_hex(16),
        inputs=await asyncio.to_thread(_inputs, due),
    )
    if isinstance(order.output_dir, Path):
        path = order.output_dir / probe.name
        path.write_text(probe.content)
        try:
            yield probe
        finally:
            path.unlink(missing_ok=True)
        return
    bucket = open_bucket(order.output_dir)
    with as_input_error(bucket.url):
        await asyncio.to_thread(bucket.put_new, probe.name, probe.content.encode(), {})
    try:
        yield probe
    finally:
        await asyncio.to_thread(bucket.delete, probe.name)


def _inputs(due: Iterable[Due]) -> tuple[InputImage, ...]:
    """Return an input image of each folder; what another job is yet to make lies in the output."""
    found: dict[str, InputImage] = {}
    for each in due:
        for image in each.task.images:
            if image.sha256:
                found.setdefault(os.path.dirname(image.path), image)  # noqa: PTH120 - as above
        if len(found) >= FOLDERS:
            break
    return tuple(found.values())


async def inspect_cluster(setup: Setup | None, flags: Flags) -> list[str]:
    """Have a worker on each node prove what it would need; return what was seen. Raises InputError, TryLater."""
    address = flags.ray
    assert address is not None
    order = None if setup is None else order_of(setup)
    if order is not None and isinstance(order.output_dir, Path):
        folder = order.output_dir
        order = replace(order, output_dir=next(each for each in (folder, *folder.parents) if each.is_dir()))
    workers = 1 if address == LOCAL else None
    async with _joined(address, order, workers=workers, concurrency=1) as cluster:
        seen = "the same versions" + (", the output directory and a key" if order is not None else "")
        where = Counter(report.node for report in cluster.reports)
        return [f"{address}: {count(len(where), 'machine')} answered", *(f"{node}: {seen}" for node in sorted(where))]

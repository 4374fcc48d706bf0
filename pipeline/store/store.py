"""Records a run: attempts, images and money, each durable when its call returns.

Opened under the state lock; owns the ledger's writer thread and the threads that write images (`images`).
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Self, TypeVar

from pipeline.buckets import Bucket
from pipeline.errors import InputError, StorageError
from pipeline.failpoint import reach
from pipeline.model import Artifact, Attempt, Failure, Fault, Task, TaskState
from pipeline.store import rows
from pipeline.store.images import StoredImages, WriterPool
from pipeline.store.ledger import awaited
from pipeline.store.ledger_file import query, to_us
from pipeline.store.maintenance import Maintenance
from pipeline.store.parts import Recovery
from pipeline.store.recovery import Recoverer
from pipeline.store.resources import StoreResources, StoreSettings, open_resources
from pipeline.store.tree import Tree, components

T = TypeVar("T")


class Store:
    """What must last. All methods may be called concurrently; every one survives the cancellation of its caller."""

    def __init__(self, resources: StoreResources) -> None:
        """Use `Store.open`."""
        self._settings = resources.settings
        self._resources = resources
        self._ledger = resources.ledger
        self._pool = WriterPool(resources.settings.threads)
        self.images = StoredImages(resources, self._pool, received=resources.ledger.receive)
        self._maintenance = Maintenance(resources)
        self._is_closed = False
        self._found: dict[str, int] = {}  # as the present run has it

    @property
    def ledger_id(self) -> str:
        return self._resources.ledger_id

    def __repr__(self) -> str:
        return f"<Store {self._settings.output_dir}, {self._pool!r}>"

    @classmethod
    async def open(cls, settings: StoreSettings) -> Self:
        """Open or create.

        Raises InputError: a directory cannot be used, or other money lies there. LedgerError, StorageError, TryLater.
        MemoryError: there are not enough threads.
        """
        resources = await asyncio.to_thread(open_resources, settings)
        try:
            return cls(resources)
        except MemoryError:
            resources.close()
            raise

    async def aclose(self) -> None:
        """Wait for every image that is being written, commit, close. Safe to call twice."""
        await self._pool.aclose()
        if not self._is_closed:
            self._is_closed = True
            await asyncio.to_thread(self._resources.close)

    async def collect_kept(self, *, are_gone: bool) -> None:
        """See `RejectedFolder.collect`. Raises OSError, StorageError."""
        await self._pool.finish(partial(self._resources.rejected.collect, self._resources.outputs, are_gone=are_gone))

    async def recover_late(self) -> Recovery:
        """Publish or reject what lost workers wrote after they were given up. Raises StorageError."""
        return await self._pool.finish(Recoverer(self._resources).recover_late)

    # --- a run

    async def recover(self) -> Recovery:
        """Bring disk and ledger together after whatever happened; before anything is sent."""
        return await self._pool.finish(Recoverer(self._resources).run)

    async def begin_run(self, *, manifest_sha256: str, found: Mapping[str, int] | None = None) -> int:
        """Write a run down; return its number. `found`: due tasks (`due`), and those that are not by state.

        Raises InputError, StorageError: its bucket cannot be written to.
        """
        if isinstance(self._resources.outputs, Bucket):
            await self._pool.run(self._resources.outputs.prove)
        manifest, now = self._settings.manifest_row, self._settings.now_us()
        self._found = dict(found or {})
        text = "" if found is None else json.dumps(found)
        return await self._committed(lambda c: rows.begin_run(c, manifest, now=now, sha256=manifest_sha256, found=text))

    async def end_run(self, run: int, *, exit: int) -> None:  # noqa: A002 - its name everywhere
        """Write down how a run ended."""
        await self._change("end_run", run=run, exit=exit, reason="")

    def count_workers(self, run: int, *, started: int, lost: int) -> None:
        """Write down how many workers a run has, for who looks at it meanwhile; nobody waits for it."""
        self._found |= {"workers": started, "workers_lost": lost}
        values: dict[str, object] = {"run": run, "found": json.dumps(self._found)}
        self._ledger.submit(lambda c: _execute(c, "set_found", values))

    # --- an attempt

    async def begin(self, task: Task, *, run: int, reserved_microusd: int | None) -> Attempt:
        """Record an attempt as sent, before it is (B0). None: the price is not known.

        Cancelled: nothing was sent, so the attempt is taken back. Raises InputError: a name that leads outside.
        """
        try:
            components(task.name or "/")
        except ValueError as error:
            raise InputError(f"{task.id}: the output name is {error}") from error
        row = rows.task_row(task, manifest=self._settings.manifest, now=self._settings.now_us())
        record = rows.record_of(task, self._settings.state_dir)
        written: list[Attempt] = []

        def work(connection: sqlite3.Connection) -> Attempt:
            written[:] = [rows.begin(connection, task, row, record, run=run, reserved=reserved_microusd or 0)]
            return written[0]

        future = self._ledger.submit(work)
        try:
            attempt = await awaited(future)
        except asyncio.CancelledError:
            if not future.cancel():  # the ledger keeps order: what follows finds it written, or it never will be
                now, withdraw = self._settings.now_us(), query("withdraw_attempt")
                self._ledger.submit(lambda c: [c.execute(withdraw, {"attempt": a.id, "now": now}) for a in written])
            raise
        reach("intent")
        return attempt

    async def finish(self, attempt: Attempt, artifact: Artifact, *, cost_microusd: int, seconds: float) -> None:
        """Record an image that stands under its final name as done (B5), then remove its part.

        Raises LedgerError, StorageError, TryLater: the image is kept, and the next `recover` records it.
        """
        now = self._settings.now_us()
        await self._committed(
            lambda c: rows.finish(c, attempt.id, artifact, cost=cost_microusd, now=now, seconds=seconds)
        )
        reach("done")
        await self.images.release(attempt, artifact)

    async def close(
        self,
        attempt: Attempt,
        failure: Failure,
        *,
        state: TaskState,
        cost_microusd: int,
        unknown_microusd: int,
        seconds: float,
    ) -> None:
        """Record an attempt that left no image under a final name. Raises LedgerError, StorageError.

        Where an input image could not be used, the digests of the task's files are forgotten: the next plan reads them.
        """
        now, state_dir = self._settings.now_us(), self._settings.state_dir
        images = attempt.task.images if failure.fault is Fault.INPUT else ()
        forgotten = [{"path": rows.relative_bytes(image.path, state_dir)} for image in images]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(query("forget_digest"), forgotten)
            rows.close(
                connection,
                attempt.id,
                failure,
                state=state,
                cost=cost_microusd,
                unknown=unknown_microusd,
                now=now,
                seconds=seconds,
            )

        await self._committed(work)

    async def fail(self, ids: Collection[str]) -> int:
        """Record these tasks as failed where they are pending; return how many."""
        values = [
            {"manifest": self._settings.manifest, "id": rows.text(task_id), "now": self._settings.now_us()}
            for task_id in ids
        ]
        return await self._committed(lambda c: c.executemany(query("fail_task"), values).rowcount)

    async def maintain(self, order: Callable[[Maintenance], T]) -> T:
        """Carry out one order of `Maintenance`; raises what it raises."""
        return await self._pool.finish(order, self._maintenance)

    # --- between runs

    async def hold(self, not_before: datetime, reason: str, *, run: int, provider: str = "", key: str = "") -> None:
        """Remember that nothing may be sent before a moment; a later moment wins.

        It binds this provider, key and the model that a request of `run` was refused for.
        """
        moment, why = to_us(not_before), rows.text(reason)
        await self._change("set_hold", run=run, provider=rows.text(provider), key=key, not_before=moment, reason=why)

    async def forget_holds(self, *, provider: str, key: str) -> None:
        """Forget what binds a provider and key."""
        await self._change("forget_holds", provider=rows.text(provider), key=key)

    async def forget_void_holds(self, *, later: datetime) -> None:
        """Forget holds that were written later than this: by a clock that was ahead."""
        await self._change("forget_void_holds", later=to_us(later))

    async def write_doubt(self, reason: str) -> None:
        """Remember that more may have been spent than is written here, from now on, and why."""
        manifest, now = self._settings.manifest_row, self._settings.now_us()
        await self._committed(lambda c: rows.rebuilt_run(c, manifest, doubt=reason, now=now))

    async def release(self, states: Collection[TaskState], ids: Collection[str]) -> int:
        """Make those tasks due again that are in one of these states; return how many. Their history stays."""
        values = {"manifest": self._settings.manifest, "now": self._settings.now_us()}
        return await self._committed(lambda c: _release(c, states, ids, values))

    async def remember_digests(self, digests: Iterable[tuple[str, int, int, str, str]]) -> None:
        """Remember SHA-256 of input files: path, size in bytes, mtime in ns, hex of the whole file, of its pixels."""
        values = [
            {
                "path": rows.relative_bytes(path, self._settings.state_dir),
                "size_bytes": size_bytes,
                "mtime_ns": mtime_ns,
                "sha256": sha256,
                "pixels": pixels,
            }
            for path, size_bytes, mtime_ns, sha256, pixels in digests
        ]
        await self._committed(lambda c: c.executemany(query("remember_digest"), values).rowcount)

    async def free_bytes(self) -> int:
        """Return what new requests may count on, in the scarcer of the two directories. Raises StorageError."""
        return await self._pool.run(self._free_bytes)

    def _free_bytes(self) -> int:
        resources = self._resources
        free = _free_bytes(resources.state) - resources.reserve.spent_bytes
        outputs = resources.outputs
        return max(0, free if isinstance(outputs, Bucket) else min(_free_bytes(outputs), free))

    async def _change(self, name: str, **values: object) -> int:
        """Carry out one statement; return how many rows it changed."""
        values["now"] = self._settings.now_us()
        return await self._committed(lambda c: _execute(c, name, values))

    async def _committed(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Hand work to the ledger and wait for its commit; a cancelled caller does not take it back."""
        return await awaited(self._ledger.submit(work))


def _free_bytes(tree: Tree) -> int:
    try:
        return tree.free_bytes()
    except OSError as error:  # a drive or a share that went away
        raise StorageError(f"{tree.root}: {error.strerror}; make it available, then run this again") from error


def _execute(connection: sqlite3.Connection, name: str, values: dict[str, object]) -> int:
    return connection.execute(query(name), values).rowcount


def _release(
    connection: sqlite3.Connection,
    states: Collection[TaskState],
    ids: Collection[str],
    values: dict[str, object],
) -> int:
    released = 0
    for task_id in ids:
        row = values | {"id": rows.text(task_id)}
        released += _execute(connection, "forget_absent", row)
        released += sum(_execute(connection, "release_task", row | {"state": state.value}) for state in states)
    return released

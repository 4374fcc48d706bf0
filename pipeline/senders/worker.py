"""The process of a worker: an actor of Ray that performs attempts with a sender of its own.

Nothing but small records passes between it and the process that dispatches: an attempt in, `Artifact | Failure` out.
It is opened by `ready`; a process that Ray has started anew refuses attempts until then, so they were never sent. The
key comes from its own environment and is in no message.
"""

import asyncio
import importlib.metadata
import json
import platform
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pipeline import __version__
from pipeline.errors import ImgpipeError
from pipeline.model import Artifact, Attempt, Failure

if TYPE_CHECKING:  # a worker runs no engine
    from pipeline.engine.attempt import AttemptSender

MOST_BYTES: Final = 64 * 1024  # of one result; a worker that sends more is not believed
NOT_READY: Final = b""  # instead of a result: nothing was sent
LONG: Final = 2000  # characters of a reason or a note in a result that would be too large
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
        """End with the process; return at once where it was not opened, because Ray has started it anew."""
        if self._sender is not None:
            await asyncio.Event().wait()

    async def send(self, attempt: Attempt) -> bytes:
        """Perform one attempt."""
        return NOT_READY if self._sender is None else packed(await self._sender.send(attempt))

    async def abandon(self) -> None:
        """Stop waiting for answers."""
        if self._sender is not None:
            self._sender.abandon()

"""A raw server that plays a script, and whole runs against it inside the test's own process.

The server is the lying one of `tests/provider`; here it chooses its answer by the prompt, remembers when each request
came, and answers with an image of its own for every prompt that has no script.
"""

import asyncio
import contextlib
import itertools
import json
import math
import selectors
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.app import context, redo, status
from pipeline.app import run as app_run
from pipeline.engine.events import Event, Gauge, RunStarted, RunSummary
from pipeline.model import TaskState
from pipeline.plan.selection import Selection
from pipeline.view import logs
from pipeline.view.explain import AttemptLine
from pipeline.view.status import StatusTask, status_json
from tests.provider.conftest import Liar, answer_json, png

KEY = "sk-canary/7+hard=to~miss"
HASTE = "retry: {wait: {initial: 10ms, max: 50ms}}"
Step = bytes | Callable[[asyncio.StreamWriter], None]


def ok(picture: bytes | None = None, **more: Any) -> bytes:
    """Return a whole answer with an image; without `picture` one that has not been there before."""
    return Liar.http(200, answer_json(picture if picture is not None else next(_pictures), **more))


_pictures = (png(rows=(b"\0" + n.to_bytes(3, "big") * 16) * 16) for n in itertools.count())


def said(status: int, message: str = "no", /, **error: Any) -> bytes:
    """Return a refusal in the provider's envelope; `headers` go out as they are."""
    headers = error.pop("headers", None)
    return Liar.http(status, json.dumps({"error": {"message": message, **error}}).encode(), headers)


def words(finish: str = "STOP", text: str = "I would rather talk.") -> bytes:
    """Return a 200 without an image."""
    parts = [{"text": text}] if text else []
    return Liar.http(200, json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": finish}]}).encode())


def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection after the request was read, without a word."""
    writer.transport.abort()


@dataclass
class Scripted:
    """`scripts`: row -> answers, one a request, the last one for ever. `always`: for rows without a script.

    `judge`, where given, is asked first: from the number of the request (from 1) and its row to an answer or None.
    """

    scripts: dict[str, list[Step]] = field(default_factory=dict)
    always: Step | None = None
    judge: Callable[[int, str], Step | None] = lambda _number, _row: None
    latency_s: float = 0.0
    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)  # of the requests, in order
    came: list[float] = field(default_factory=list)  # when each one did, monotonic
    left: list[float] = field(default_factory=list)  # when the answer to each one did
    in_flight: int = 0
    most_in_flight: int = 0

    @property
    def posts(self) -> int:
        return len(self.rows)

    async def act(self, liar: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await liar.take(reader))
        number = len(self.came)
        self.came.append(time.monotonic())
        self.left.append(math.inf)
        row = json.loads(liar.bodies.pop())["contents"][0]["parts"][-1]["text"].rsplit(" ", 1)[-1]
        self.rows.append(row)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        step = self._step(row)
        await asyncio.sleep(self.latency_s)
        self.in_flight -= 1
        self.left[number] = time.monotonic()
        if callable(step):
            step(writer)
        else:
            writer.write(step)
            await writer.drain()

    def _step(self, row: str) -> Step:
        if (judged := self.judge(len(self.rows), row)) is not None:
            return judged
        script = self.scripts.get(row)
        if script:
            return script.pop(0) if len(script) > 1 else script[0]
        return self.always if self.always is not None else ok()


@contextlib.asynccontextmanager
async def serving(script: Scripted) -> AsyncIterator[Scripted]:
    """Serve the script on a port of its own."""
    liar = Liar(act=lambda liar, reader, writer: script.act(liar, reader, writer))
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0, limit=2**24)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()
        if liar.serving:
            await asyncio.wait(liar.serving, timeout=5)


@dataclass
class Shop:
    """A manifest of rows `row0`, `row1` ... beside its outputs; runs it and looks at what came of it."""

    folder: Path
    url: str
    rows: int = 1
    extra: str = ""
    prompt: str = "A red mug, its number is"
    timeout: str = "20s"
    listen: Callable[[Event], None] = lambda _event: None
    events: list[Event] = field(default_factory=list)

    @property
    def manifest(self) -> Path:
        path = self.folder / "shop.yaml"
        items = "\n".join(f"      row{n}: {self.prompt} row{n}" for n in range(self.rows))
        haste = "" if "retry:" in self.extra else HASTE
        path.write_text(
            "version: 1\nprovider:\n"
            "  kind: cometapi\n  model: gemini-3-pro-image\n"
            f"  base_url: '{self.url}'\n  timeout: {self.timeout}\n"
            f"output_dir: out\nprices: {{gemini-3-pro-image: 0.04}}\n{haste}\n{self.extra}\n"
            f"jobs:\n  mugs:\n    items:\n{items}\n"
        )
        return path

    @property
    def setup(self) -> context.Setup:
        return context.prepare(self.manifest, context.Flags(is_yes=True))

    async def run(self, retry: redo.Release | None = None, *, select: tuple[str, ...] = (), **flags: Any) -> RunSummary:
        flags |= {"selection": Selection(select=select)}
        setup = context.prepare(self.manifest, context.Flags(is_yes=True, **flags))
        self.events.clear()
        return await app_run.run(setup, watch=self._watch, retry=retry)

    async def retry(self, *states: TaskState) -> RunSummary:
        return await self.run(retry=redo.Release(states=frozenset(states)))

    @contextlib.contextmanager
    def _watch(self, _started: RunStarted, _gauge: Callable[[], Gauge]) -> Iterator[Callable[[Event], None]]:
        journal = logs.Journal()

        def listen(event: Event) -> None:
            journal(event)
            self.events.append(event)
            self.listen(event)

        yield listen

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def status(self) -> dict[str, Any]:
        """What `status --json` says."""
        return dict(status_json(status.status(self.setup)))

    @property
    def states(self) -> dict[str, int]:
        return {state: n for state, n in self.status["tasks"].items() if n}

    def task(self, row: str = "row0") -> StatusTask:
        return status.task_history(self.setup, f"mugs/{row}").task

    def history(self, row: str = "row0") -> list[AttemptLine]:
        return list(status.task_history(self.setup, f"mugs/{row}").attempts)

    def forget_hold(self) -> None:
        """Let the moment before which nothing may be sent be a past one."""
        with contextlib.closing(sqlite3.connect(self.folder / "out" / ".pipeline" / "ledger.sqlite")) as ledger, ledger:
            ledger.execute("UPDATE hold SET not_before = 1")

    @property
    def rejected(self) -> list[Path]:
        """Bodies that were kept, without their facts."""
        kept = (self.folder / "out" / ".pipeline" / "rejected").glob("*")
        return sorted(path for path in kept if not path.name.endswith(".facts.json"))

    @property
    def images(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "out" / "mugs").glob("*.png"))


class _HurriedSelector(selectors.DefaultSelector):
    speed = 1.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout if timeout is None or timeout <= 0 else timeout / self.speed)


class Hurried(asyncio.SelectorEventLoop):
    """A loop on whose clock time runs `speed` times as fast: minutes of waiting, tested as they are."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        selector = _HurriedSelector()
        selector.speed = speed
        super().__init__(selector)

    def time(self) -> float:
        return time.monotonic() * self._speed


T = TypeVar("T")


@dataclass(frozen=True)
class Hurry(Generic[T]):
    """What came of a hurried run, and how long it thought it took."""

    came: T
    seconds: float


def hurried(run: Callable[[], Coroutine[Any, Any, T]], *, speed: float = 200.0) -> Hurry[T]:
    """Run on a hurried loop."""

    async def timed() -> Hurry[T]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        return Hurry(await run(), loop.time() - began)

    with asyncio.Runner(loop_factory=lambda: Hurried(speed)) as runner:
        return runner.run(timed())

"""The command, installed in a bare environment, forked or called here; simulators on real sockets, with their bills."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.cli.main import main
from pipeline.simulator.profile import parse
from pipeline.simulator.server import Simulator
from pipeline.view import logs
from tests.e2e import forked as forking
from tests.e2e.canary import leaks, spellings
from tests.e2e.scripted import KEY

COMMAND = Path(sys.executable).with_name("imgpipe")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background job of a shell; what it starts would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup, likewise
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
T = TypeVar("T")
CANARIES = {f"{key}: {name}": text for key in (KEY, "sk-canary-7f3a") for name, text in spellings(key).items()}
BARE = {"PATH": "/usr/bin:/bin", "LANG": "C", "COMETAPI_KEY": "sk-canary-7f3a"}


@dataclass
class Imgpipe:
    """Runs the installed command as cron would: a bare environment, no terminal, another working directory."""

    folder: Path
    env: dict[str, str] = field(default_factory=lambda: dict(BARE))
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)
    ended: "list[subprocess.CompletedProcess[str]]" = field(default_factory=list)

    def __call__(
        self, *args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60, before: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[str]":
        """Run to the end; `before` is what starts it, such as `nohup`."""
        done = subprocess.run(
            [*before, str(COMMAND), *map(str, args)],
            env={**self.env, **(env or {})},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        self.ended.append(done)
        return done

    def start(
        self, *args: str | Path, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*before, str(COMMAND), *map(str, args)],
            env={**self.env, **(env or {})},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Kill what a failed test left behind, and close its pipes."""
        for process in self.started:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def json(self, *args: str | Path, **options: Any) -> dict[str, Any]:
        done = self(*args, "--json", **options)
        lines = done.stdout.splitlines()
        assert lines, f"nothing on stdout (exit {done.returncode}): {done.stderr}"
        document: dict[str, Any] = json.loads(lines[-1])
        return document


@pytest.fixture
def imgpipe(tmp_path: Path) -> Iterator[Imgpipe]:
    command = Imgpipe(tmp_path)
    yield command
    command.end()
    assert leaks(CANARIES, tmp_path / "nothing", *command.ended) == []


@dataclass
class Forked(Imgpipe):
    """Runs the command in a process of its own that is forked, not started: see `tests/e2e/forked.py`."""

    forks: list[forking.Process] = field(default_factory=list)

    def __call__(
        self, *args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60, before: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[str]":
        process = self.start(*args, env=env, before=before)
        out, err = process.communicate(timeout)
        assert process.returncode is not None
        self.ended.append(subprocess.CompletedProcess(args, process.returncode, out, err))
        return self.ended[-1]

    def start(
        self, *args: str | Path, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> forking.Process:
        assert not before
        folder = Path(tempfile.mkdtemp(prefix="said", dir=self.folder))
        files = (folder / "out", folder / "err")
        with Path(os.devnull).open() as nothing, files[0].open("w") as out, files[1].open("w") as err:
            process = forking.start(args, {**self.env, **(env or {})}, (nothing.fileno(), out.fileno(), err.fileno()))
        self.forks.append(forking.Process(process, files))
        return self.forks[-1]

    def end(self) -> None:
        """Kill what a failed test left behind."""
        for process in self.forks:
            process.kill()
            process.wait()


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[Forked]:
    command = Forked(tmp_path)
    yield command
    command.end()
    assert leaks(CANARIES, tmp_path / "nothing", *command.ended) == []


@dataclass
class Called(Imgpipe):
    """Calls the command in this process: a process of its own takes 0.6 s of CPU, and proves no more about a plan."""

    capsys: "pytest.CaptureFixture[str] | None" = None

    def __call__(
        self, *args: str | Path, env: Mapping[str, str] | None = None, **_: Any
    ) -> "subprocess.CompletedProcess[str]":
        assert self.capsys is not None
        self.capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**self.env, **(env or {})}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as stop:
                main([str(arg) for arg in args])
        out, err = self.capsys.readouterr()
        assert isinstance(stop.value.code, int)
        self.ended.append(subprocess.CompletedProcess(args, int(stop.value.code), out, err))
        return self.ended[-1]


@pytest.fixture
def called(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Called]:
    monkeypatch.chdir("/")
    for name in ("COMETAPI_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    command = Called(tmp_path, BARE | {"NO_COLOR": "1"}, capsys=capsys)
    yield command
    logs.tear_down()
    assert leaks(CANARIES, tmp_path / "nothing", *command.ended) == []


@pytest.fixture(autouse=True)
def _no_byte_shows_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """S01: whatever a test was about, no file that it left behind and no line of its log shows a key."""
    yield
    assert leaks(CANARIES, tmp_path, log=caplog.text) == []


@dataclass
class Served:
    """A simulator on a socket of this machine; `bill` is what it would charge for."""

    base_url: str
    bill_file: Path
    simulator: Simulator
    waits: list[float]  # of requests that have arrived, before their answers

    @property
    def bill(self) -> list[dict[str, Any]]:
        if not self.bill_file.exists():
            return []
        return [json.loads(line) for line in self.bill_file.read_text().splitlines()]

    @property
    def billed(self) -> list[dict[str, Any]]:
        return [line for line in self.bill if line["billed"]]


@cache
def server_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of every simulator, in a thread of this process: one of its own took 0.5 s of CPU each."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="simulators", daemon=True).start()
    return loop


@contextmanager
def entered(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Serve on the loop of the simulators while the command runs here."""
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), server_loop()).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), server_loop()).result(10)


class Servers:
    """Starts simulators and ends them with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Served] = []

    def start(self, profile: str = "picture: tiny\nlatency: 0s\n") -> Served:
        bill = self._folder / f"bill-{len(self._running)}.jsonl"
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            await asyncio.sleep(seconds)

        simulator = Simulator(parse(profile, "profile.yaml"), bill, sleep=sleep)
        asyncio.run_coroutine_threadsafe(simulator.__aenter__(), server_loop()).result(10)
        served = Served(simulator.base_url, bill, simulator, waits)
        self._running.append(served)
        return served

    def stop(self) -> None:
        for served in self._running:
            asyncio.run_coroutine_threadsafe(served.simulator.__aexit__(None, None, None), server_loop()).result(10)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


def write_manifest(
    folder: Path, base_url: str | None, items: int = 5, *, extra: str = "", job_extra: str = "", name: str = "shop"
) -> Path:
    """Write a manifest of `items` rows; without `base_url` it runs on the embedded simulator."""
    provider = f"{{kind: cometapi, base_url: '{base_url}'}}" if base_url else "{kind: simulator, profile: quick}"
    rows = "\n".join(f"      row{n}: A red mug number {n}" for n in range(items))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"version: 1\nprovider: {provider}\noutput_dir: out\n"
        f"retry: {{wait: {{initial: 10ms, max: 50ms}}}}\n{extra}\n"
        f"jobs:\n  mugs:\n{job_extra}    items:\n{rows}\n"
    )
    return path


def images(folder: Path) -> list[Path]:
    """List the images under final names."""
    out = folder / "out"
    return sorted(
        path
        for path in out.rglob("*")
        if path.suffix in {".png", ".jpg", ".webp"} and ".pipeline" not in path.parts and "report" not in path.parts
    )


def wait_until(condition: Any, *, timeout: float = 30.0) -> None:
    """Poll another process; there is no event to wait for across processes."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        os.sched_yield()
        time.sleep(0.005)


def at_once(work: Callable[[int, Servers, Path], T], folder: Path) -> list[T]:
    """Do two halves of a loop at once, each with simulators and a folder of its own: most of the time is start-up."""

    def half(number: int) -> T:
        own = folder / f"half{number}"
        own.mkdir()
        servers = Servers(own)
        try:
            return work(number, servers, own)
        finally:
            servers.stop()

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(half, range(2)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests more time: they start processes, and a busy machine starts them slowly."""
    for item in items:
        if "e2e" in item.path.parts and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120))

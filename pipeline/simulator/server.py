"""Starts and stops the simulator's HTTP server on an address of this machine."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from aiohttp import web

from pipeline.errors import InputError
from pipeline.simulator.api import Api, Sleep
from pipeline.simulator.pictures import Renderer
from pipeline.simulator.profile import Profile, load_profile
from pipeline.simulator.responses import Bill

KEY = "simulator"  # any key that is not empty is let in; this is the embedded one
_SHUTDOWN_S = 0.5  # how long answers that are under way may still take when it stops


@dataclass(repr=False, eq=False)
class Simulator:
    """The API on this machine, in this process: `async with Simulator() as simulator: simulator.base_url`.

    Leaving the context closes the port, drops answers that do not finish within half a second and closes the bill.
    """

    profile: Profile = field(default_factory=load_profile)
    bill: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    _: KW_ONLY
    clock: Callable[[], float] = time.monotonic
    sleep: Sleep = asyncio.sleep
    key: str = KEY
    base_url: str = ""  # once it has started

    def __repr__(self) -> str:
        return f"<Simulator {self.base_url or 'not started'}>"

    async def __aenter__(self) -> "Simulator":
        async with contextlib.AsyncExitStack() as stack:
            bill = Bill(self.bill)
            stack.callback(bill.close)
            renderer = Renderer(self.profile)
            stack.callback(renderer.close)
            api = Api(self.profile, bill, renderer, self.clock, self.sleep)
            application = api.application()
            application.on_shutdown.append(lambda _: api.end(_SHUTDOWN_S))
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_S)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await self._listen(runner)
            host, port, *_ = runner.addresses[0]
            self.base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            self._close = stack.pop_all().aclose
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._close()

    async def _listen(self, runner: web.AppRunner) -> None:
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError as error:
            what = f"cannot listen on {self.host}:{self.port}: {error.strerror or error}"
            raise InputError(what, instead="choose another --port, 0 for any free one") from error


async def serve(
    profile: Profile,
    *,
    port: int = 8787,
    bill: Path | None = None,
    announce: Callable[[Simulator], None] = lambda _: None,
) -> None:
    """Serve until SIGINT or SIGTERM. `announce` is called once, when the port is open.

    Raises `InputError` when the port cannot be had, `StorageError` when the bill cannot be written.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Simulator(profile, bill, port=port) as simulator:
            announce(simulator)
            await stop.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

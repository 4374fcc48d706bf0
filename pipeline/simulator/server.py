"""The HTTP server on an address of this machine: one request, from its key to its line on the bill, and the answer.

The order of events: key, rate limits, model, validation, fault, wait and picture, bill, and only then the body. What
aiohttp would never send is written to the transport directly.
"""

import asyncio
import contextlib
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
from aiohttp import web

from pipeline.errors import InputError
from pipeline.simulator import faults, rules, validation
from pipeline.simulator.pictures import Renderer, UnreadableImage
from pipeline.simulator.profile import FaultRule, Profile, load_profile
from pipeline.simulator.responses import AnswerWriter, Bill, Entry, Rendered
from pipeline.simulator.rules import Dice, FaultRules, Limiter
from pipeline.simulator.validation import SERVED, Ask

Sleep = Callable[[float], Awaitable[None]]
_STALL_S = 60.0
_TRICKLE_S = 10.0
_TRICKLE_STEPS = 40
_LIMIT_ANSWERS = {"retry_info": "rate_limited_retry_info", "text": "rate_limited_text"}
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
KEY = "simulator"  # any key that is not empty is let in; this is the embedded one
_SHUTDOWN_S = 0.5  # how long answers that are under way may still take when it stops


@dataclass(eq=False, repr=False)
class Api:
    """The handlers of one server."""

    profile: Profile
    bill: Bill
    renderer: Renderer
    clock: Callable[[], float]
    sleep: Sleep

    def __post_init__(self) -> None:
        self._dice = Dice(self.profile.seed, "api")
        self._limiter = Limiter(self.profile, self.clock)
        self._rules = FaultRules(self.profile)
        self._requests = 0
        self._under_way: set[asyncio.Task[object]] = set()

    def application(self) -> web.Application:
        """Return the application that `Simulator` serves."""
        app = web.Application(client_max_size=self.profile.max_request_bytes)
        app.router.add_post("/v1beta/models/{model:[^/:]+}:generateContent", self.generate)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/images/generations", self.generations)
        app.router.add_route("*", "/{path:.*}", self.elsewhere)
        return app

    async def generate(self, request: web.Request) -> web.Response:
        """Answer `generateContent`."""
        self._note_under_way()
        entry, rule = self._entry(), None
        try:
            body, rule = await self._answered(entry, request)
            reply = faults.WireReply(status=200, body=body)
        except faults.RequestRejected as rejected:
            reply = rejected.reply
        except (ConnectionError, web.RequestPayloadError):
            return web.Response(status=499)  # the client left while it was sending: nobody reads this
        entry.status = reply.status
        self.bill.write(entry)
        return await send(request, faults.signed(reply, entry.request_id), rule, self.sleep)

    async def models(self, request: web.Request) -> web.Response:
        """List the models that are served, in the OpenAI shape."""
        try:
            find_key(request.headers, request.query)
        except faults.RequestRejected as rejected:
            return self._respond(rejected.reply)
        data = [{"id": name, "object": "model", "created": 1626777600, "owned_by": "google"} for name in SERVED]
        return respond(faults.WireReply(status=200, body=msgspec.json.encode({"object": "list", "data": data})))

    async def generations(self, _: web.Request) -> web.Response:
        """Refuse the OpenAI-compatible route: these models are not served there."""
        return self._respond(faults.error_response("convert_request_failed", ""))

    async def elsewhere(self, request: web.Request) -> web.Response:
        return self._respond(wrong_path(request.method, request.path))

    async def end(self, timeout_s: float) -> None:
        """Wait for answers that are under way, then drop the rest.

        aiohttp (3.14) does so by itself, but raises InvalidStateError when an answer ends just as it is given up.
        """
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=timeout_s)
            for task in late:
                task.cancel()

    def _note_under_way(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "aiohttp answers in a task"
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _respond(self, reply: faults.WireReply) -> web.Response:
        return respond(faults.signed(reply, self._entry().request_id))

    def _entry(self) -> Entry:
        self._requests += 1
        moment = datetime.now(UTC)
        tail = "".join(self._dice.choice(_ALPHABET, "request id", self._requests, place) for place in range(8))
        return Entry(request=self._requests, request_id=f"{moment:%Y%m%d%H%M%S%f}000{tail}")

    async def _answered(self, entry: Entry, request: web.Request) -> tuple[bytes, FaultRule | None]:
        """Check and execute one request; return the body of its 200 and the rule that applies to its connection.

        Raises `RequestRejected`.
        """
        entry.key = fingerprint(find_key(request.headers, request.query))
        entry.model = model = request.match_info["model"]
        body = await self._body(request)
        delay_s = self._limiter.acquire(entry.key)
        if delay_s is not None:
            hint = self.profile.limits.hint
            answer = _LIMIT_ANSWERS.get(hint, "rate_limited") if self.profile.limits.status == 429 else "overloaded"
            raise faults.RequestRejected(faults.error_response(answer, model, None if hint == "none" else delay_s))
        try:
            ask = validation.check(model, body)
            entry.understood(ask)
            return await self._execute(entry, ask)
        finally:
            self._limiter.release(entry.key)

    async def _body(self, request: web.Request) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            message = f"request body too large, the limit is {self.profile.max_request_bytes} bytes"
            raise faults.RequestRejected(faults.comet(413, message, code="read_request_body_failed")) from None

    async def _execute(self, entry: Entry, ask: Ask) -> tuple[bytes, FaultRule | None]:
        """Wait, draw and return the body; a fault of the stage error is raised as `RequestRejected`."""
        step, asking = self._limiter.step(), self._rules.asking(ask)
        rule = self._rules.strike(ask, asking, step)
        fault = None if rule is None else faults.FAULTS[rule.name]
        name = "" if fault is None else fault.name
        entry.seed = ask.seed if ask.seed is not None else asking - 1
        wait_s = rules.wait_s(self.profile.latency, self._dice, ask, asking) * step.slower
        writer = AnswerWriter.of(ask, self._dice, entry.request)
        if rule is not None and fault is not None and fault.stage is faults.Stage.ERROR:
            if fault.is_billed:
                entry.charge(writer.count(images=1), ask.model)
            entry.fault = name
            await self.sleep(wait_s if fault.is_billed else wait_s * 0.1)
            raise faults.RequestRejected(faults.error_response(name, ask.model.name, rule.retry_after))
        if fault is not None and fault.stage is faults.Stage.CONTENT:
            tokens = writer.count(images=0, is_blocked=name == "prompt_blocked")
            await self.sleep(wait_s * 0.4)
            body = writer.without_image(tokens, fault)
        elif not ask.with_image:
            tokens = writer.count(images=0)
            await self.sleep(wait_s * 0.4)
            body = writer.words(tokens)
        else:
            rendered = await self._rendered(entry, ask, wait_s, name)
            tokens = writer.count(images=len(rendered.images))
            body = writer.with_images(rendered, tokens, name)
        entry.charge(tokens, ask.model)
        entry.fault = name or None
        entry.outcome = fault.outcome if fault else faults.Outcome.IMAGE if ask.with_image else faults.Outcome.NO_IMAGE
        return body, rule

    async def _rendered(self, entry: Entry, ask: Ask, wait_s: float, fault: str) -> Rendered:
        began = self.clock()
        try:
            rendered = await self.renderer.render(ask, entry.seed or 0, fault)
        except UnreadableImage:  # nothing was made that a fault could spoil
            raise faults.bad_argument("Provided image is not valid") from None
        entry.ratio, entry.images = rendered.ratio, len(rendered.images)
        entry.image_sha256 = tuple(picture.sha256 for picture in rendered.images)
        await self.sleep(max(0.0, wait_s - (self.clock() - began)))
        return rendered


def find_key(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """Return the key of whichever of the four forms was used: `x-goog-api-key`, then `?key=`, then `Authorization`."""
    shown = headers.get("x-goog-api-key") or query.get("key") or headers.get("Authorization", "")
    key = shown.removeprefix("Bearer ").removeprefix("bearer ").strip()
    if not key or key.casefold() == "bearer":
        raise faults.RequestRejected(faults.comet(401, "Invalid token"))
    return key


def fingerprint(key: str) -> str:
    """Return what a bill may show of a key: enough to tell two apart; the key cannot be found from it."""
    return sha256(b"imgpipe simulator\0" + key.encode()).hexdigest()[:12]


def wrong_path(method: str, path: str) -> faults.WireReply:
    """Answer a path that is not of the API: under /v1 a JSON 404, slips of the slash a 301, all else a web page."""
    tidy = "/" + "/".join(part for part in path.split("/") if part)
    if tidy != path and path != "/":
        return faults.html(301, "301 Moved Permanently", "", headers={"Location": tidy})
    if path.startswith(("/models/", "/v1beta1/")):
        there = "/v1beta" + path.removeprefix("/v1beta1")
        return faults.html(301, "301 Moved Permanently", "", headers={"Location": there})
    if path.startswith("/v1"):
        return faults.comet(404, f"Invalid URL ({method} {path})", kind="invalid_request_error")
    return faults.html(200, "Image API simulator", "This is a page, not the API, which begins with /v1beta/models/.")


async def send(request: web.Request, reply: faults.WireReply, rule: FaultRule | None, sleep: Sleep) -> web.Response:
    """Send one answer the way `rule` wants; the response that is returned is not sent when the connection is closed."""
    transport = request.transport
    if rule is None or transport is None:
        return respond(reply)
    seconds = rule.seconds
    match rule.name:
        case "hang":
            await sleep(_STALL_S if seconds is None else seconds)
        case "trickle":
            await _trickle(transport, reply, _TRICKLE_S if seconds is None else seconds, sleep)
        case "disconnect":
            transport.close()
        case "reset":
            _reset(transport)
        case "cut_body" | "cut_unframed" | "reset_body" | "stall" as name:
            length = None if name == "cut_unframed" else len(reply.body)
            transport.write(_head(reply, length) + reply.body[: len(reply.body) // 2])
            if name == "reset_body":
                await sleep(0.05)  # the client reads some of it first
                _reset(transport)
            elif name == "stall":
                await sleep(_STALL_S if seconds is None else seconds)
                transport.abort()
            else:
                transport.close()
    return respond(reply)


def respond(reply: faults.WireReply) -> web.Response:
    headers = {**reply.headers, "Content-Type": reply.content_type}
    return web.Response(status=reply.status, body=reply.body, headers=headers)


def _head(reply: faults.WireReply, length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} OK", f"Content-Type: {reply.content_type}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _trickle(transport: asyncio.Transport, reply: faults.WireReply, seconds: float, sleep: Sleep) -> None:
    transport.write(_head(reply, len(reply.body)))
    step = max(1, -(-len(reply.body) // _TRICKLE_STEPS))
    for at in range(0, len(reply.body), step):
        if transport.is_closing():
            return
        transport.write(reply.body[at : at + step])
        await sleep(seconds / _TRICKLE_STEPS)
    transport.close()


def _reset(transport: asyncio.Transport) -> None:
    """Close so that the other side sees a reset instead of an end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


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

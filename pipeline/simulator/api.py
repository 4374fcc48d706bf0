"""Handles one HTTP request, from its key to its line on the bill, and sends the answer: whole, cut, slow or reset.

The order of events: key, rate limits, model, validation, fault, wait and picture, bill, and only then the body. What
aiohttp would never send is written to the transport directly.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

import msgspec
from aiohttp import web

from pipeline.simulator import responses, rules, validation
from pipeline.simulator.faults import (
    ERROR_RESPONSES,
    FAULTS,
    Case,
    Outcome,
    RequestRejected,
    SimulatedFault,
    Stage,
    WireReply,
    bad_argument,
    comet,
    html,
)
from pipeline.simulator.models import SERVED, Ask
from pipeline.simulator.pictures import Renderer, UnreadableImage
from pipeline.simulator.profile import FaultRule, Profile
from pipeline.simulator.responses import (
    PROMPT_SHOWN,
    Bill,
    Entry,
    Rendered,
    Tokens,
    count,
    price_microusd,
    prompt_only,
)
from pipeline.simulator.rules import Dice, FaultRules, Limiter

Sleep = Callable[[float], Awaitable[None]]
_STALL_S = 60.0
_TRICKLE_S = 10.0
_TRICKLE_STEPS = 40
_LIMIT_ANSWERS = {"retry_info": "rate_limited_retry_info", "text": "rate_limited_text"}
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request on its way; fields fill as it is understood."""

    number: int
    request_id: str
    key: str | None = None
    model: str | None = None
    ask: Ask | None = None
    seed: int | None = None
    rule: FaultRule | None = None
    rendered: Rendered | None = None
    tokens: Tokens | None = None  # None: nothing was executed

    @property
    def fault(self) -> SimulatedFault | None:
        return None if self.rule is None else FAULTS[self.rule.name]


class Api:
    """The handlers of one server."""

    def __init__(
        self, profile: Profile, bill: Bill, renderer: Renderer, *, clock: Callable[[], float], sleep: Sleep
    ) -> None:
        self._profile = profile
        self._bill = bill
        self._renderer = renderer
        self._clock = clock
        self._sleep = sleep
        self._dice = Dice(profile.seed, "api")
        self._limiter = Limiter(profile, clock)
        self._rules = FaultRules(profile)
        self._exchanges = 0
        self._under_way: set[asyncio.Task[object]] = set()

    def application(self) -> web.Application:
        """Return the application that `Simulator` serves."""
        app = web.Application(client_max_size=self._profile.max_request_bytes)
        app.router.add_post("/v1beta/models/{model:[^/:]+}:generateContent", self.generate)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/images/generations", self.generations)
        app.router.add_route("*", "/{path:.*}", self.elsewhere)
        return app

    async def generate(self, request: web.Request) -> web.Response:
        """Answer `generateContent`."""
        self._note_under_way()
        exchange = self._exchange()
        try:
            reply = await self._answered(exchange, request)
        except RequestRejected as rejected:
            is_executed = exchange.fault is not None and exchange.fault.is_billed
            self._write(exchange, rejected.reply.status, is_executed=is_executed)
            return respond(_signed(rejected.reply, exchange))
        except (ConnectionError, web.RequestPayloadError):
            return web.Response(status=499)  # the client left while it was sending: nobody reads this
        self._write(exchange, reply.status, is_executed=True)
        name = exchange.fault.name if exchange.fault is not None else ""
        return await send(
            request, _signed(reply, exchange), name, exchange.rule.seconds if exchange.rule else None, self._sleep
        )

    async def models(self, request: web.Request) -> web.Response:
        """List the models that are served, in the OpenAI shape."""
        try:
            find_key(request.headers, request.query, self._exchange().request_id)
        except RequestRejected as rejected:
            return respond(rejected.reply)
        data = [{"id": name, "object": "model", "created": 1626777600, "owned_by": "google"} for name in SERVED]
        return respond(WireReply(status=200, body=msgspec.json.encode({"object": "list", "data": data})))

    async def generations(self, _: web.Request) -> web.Response:
        """Refuse the OpenAI-compatible route: these models are not served there."""
        case = Case(model="", request_id=self._exchange().request_id)
        return respond(ERROR_RESPONSES["convert_request_failed"](case))

    async def elsewhere(self, request: web.Request) -> web.Response:
        """Answer every other path."""
        return respond(wrong_path(request.method, request.path, self._exchange().request_id))

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

    def _exchange(self) -> Exchange:
        self._exchanges += 1
        moment = datetime.now(UTC)
        tail = "".join(self._dice.choice(_ALPHABET, "request id", self._exchanges, place) for place in range(8))
        return Exchange(number=self._exchanges, request_id=f"{moment:%Y%m%d%H%M%S%f}000{tail}")

    async def _answered(self, exchange: Exchange, request: web.Request) -> WireReply:
        """Let one request through the checks and execute it; raises `RequestRejected`."""
        exchange.key = fingerprint(find_key(request.headers, request.query, exchange.request_id))
        exchange.model = request.match_info["model"]
        body = await self._body(exchange, request)
        delay_s = self._limiter.acquire(exchange.key)
        if delay_s is not None:
            hint = self._profile.limits.hint
            named_s = None if hint == "none" else delay_s
            case = Case(model=exchange.model, request_id=exchange.request_id, delay_s=named_s)
            answer = _LIMIT_ANSWERS.get(hint, "rate_limited") if self._profile.limits.status == 429 else "overloaded"
            raise RequestRejected(ERROR_RESPONSES[answer](case))
        try:
            model = validation.find_model(exchange.model, exchange.request_id)
            exchange.ask = validation.check(model, body, exchange.request_id)
            return WireReply(status=200, body=await self._execute(exchange, exchange.ask))
        finally:
            self._limiter.release(exchange.key)

    async def _body(self, exchange: Exchange, request: web.Request) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            message = f"request body too large, the limit is {self._profile.max_request_bytes} bytes"
            raise RequestRejected(comet(413, message, exchange.request_id, code="read_request_body_failed")) from None

    async def _execute(self, exchange: Exchange, ask: Ask) -> bytes:
        """Wait, draw and return the body; a fault of the stage error is raised as `RequestRejected`."""
        step, asking = self._limiter.step(), self._rules.asking(ask)
        exchange.rule = self._rules.strike(ask, asking, step)
        exchange.seed = ask.seed if ask.seed is not None else asking - 1
        wait_s = rules.wait_s(self._profile.latency, self._dice, ask, asking) * step.slower
        variation = responses.Variation.of(self._dice, exchange.number)
        fault = exchange.fault
        if fault is not None and fault.stage is Stage.ERROR:
            exchange.tokens = count(ask, self._dice, variation.response_id, images=1) if fault.is_billed else None
            await self._sleep(wait_s if fault.is_billed else wait_s * 0.1)
            delay_s = exchange.rule.retry_after if exchange.rule is not None else None
            case = Case(model=ask.model.name, request_id=exchange.request_id, delay_s=delay_s)
            raise RequestRejected(ERROR_RESPONSES[fault.name](case))
        if fault is not None and fault.stage is Stage.CONTENT:
            tokens = count(ask, self._dice, variation.response_id, images=0)
            exchange.tokens = prompt_only(tokens) if fault.name == "prompt_blocked" else tokens
            await self._sleep(wait_s * 0.4)
            return responses.without_image(ask, variation, exchange.tokens, fault)
        if not ask.with_image:
            exchange.tokens = count(ask, self._dice, variation.response_id, images=0)
            await self._sleep(wait_s * 0.4)
            return responses.words(ask, variation, exchange.tokens)
        rendered = await self._rendered(exchange, ask, wait_s)
        exchange.tokens = count(ask, self._dice, variation.response_id, images=len(rendered.images))
        return responses.answer(ask, rendered, variation, exchange.tokens, fault)

    async def _rendered(self, exchange: Exchange, ask: Ask, wait_s: float) -> Rendered:
        began = self._clock()
        try:
            fault = exchange.fault.name if exchange.fault else ""
            rendered = await self._renderer.render(ask, exchange.seed or 0, fault)
        except UnreadableImage:
            exchange.rule = None  # nothing was made that a fault could spoil
            raise bad_argument("Provided image is not valid") from None
        exchange.rendered = rendered
        await self._sleep(max(0.0, wait_s - (self._clock() - began)))
        return rendered

    def _write(self, exchange: Exchange, status: int, *, is_executed: bool) -> None:
        """Put one answer on the bill."""
        ask, rendered, tokens = exchange.ask, exchange.rendered, exchange.tokens
        images = () if rendered is None else rendered.images
        self._bill.write(
            Entry(
                time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                request=exchange.number,
                request_id=exchange.request_id,
                key=exchange.key,
                status=status,
                outcome=_outcome(exchange, status),
                billed=is_executed,
                price_microusd=0 if ask is None or tokens is None else price_microusd(ask.model, tokens),
                model=exchange.model,
                size=None if ask is None else ask.size,
                ratio=None if ask is None else (ask.ratio if rendered is None else rendered.ratio),
                prompt_sha256=None if ask is None else sha256(ask.prompt.encode("utf-8", "surrogatepass")).hexdigest(),
                prompt=None if ask is None else ask.prompt[:PROMPT_SHOWN],
                input_images=0 if ask is None else len(ask.images),
                images=len(images),
                image_sha256=tuple(picture.sha256 for picture in images),
                seed=exchange.seed,
                fault=None if exchange.fault is None else exchange.fault.name,
            )
        )


def _signed(reply: WireReply, exchange: Exchange) -> WireReply:
    """Return the answer with its request id in a header, as gateways of this family send it."""
    return replace(reply, headers={**reply.headers, "X-Oneapi-Request-Id": exchange.request_id})


def _outcome(exchange: Exchange, status: int) -> Outcome:
    if status != 200:
        return Outcome.ERROR
    if exchange.fault is not None:
        return exchange.fault.outcome
    return Outcome.IMAGE if exchange.rendered is not None else Outcome.NO_IMAGE


def find_key(headers: Mapping[str, str], query: Mapping[str, str], request_id: str) -> str:
    """Return the key of whichever of the four forms was used: `x-goog-api-key`, then `?key=`, then `Authorization`."""
    shown = headers.get("x-goog-api-key") or query.get("key") or headers.get("Authorization", "")
    key = shown.removeprefix("Bearer ").removeprefix("bearer ").strip()
    if not key or key.casefold() == "bearer":
        raise RequestRejected(comet(401, "Invalid token", request_id))
    return key


def fingerprint(key: str) -> str:
    """Return what a bill may show of a key: enough to tell two apart, nothing to unlock with."""
    return sha256(b"imgpipe simulator\0" + key.encode()).hexdigest()[:12]


def wrong_path(method: str, path: str, request_id: str) -> WireReply:
    """Answer a path that is not of the API: under /v1 a JSON 404, slips of the slash a 301, all else a web page."""
    tidy = "/" + "/".join(part for part in path.split("/") if part)
    if tidy != path and path != "/":
        return html(301, "301 Moved Permanently", "", headers={"Location": tidy})
    if path.startswith(("/models/", "/v1beta1/")):
        return html(301, "301 Moved Permanently", "", headers={"Location": "/v1beta" + path.removeprefix("/v1beta1")})
    if path.startswith("/v1"):
        return comet(404, f"Invalid URL ({method} {path})", request_id, kind="invalid_request_error")
    return html(200, "Image API simulator", "This is a web page, not the API. The API begins with /v1beta/models/.")


async def send(request: web.Request, reply: WireReply, fault: str, seconds: float | None, sleep: Sleep) -> web.Response:
    """Send one answer the way `fault` wants; the response that is returned goes nowhere when the connection is gone."""
    transport = request.transport
    if transport is None or not isinstance(transport, asyncio.Transport):
        return respond(reply)
    half = len(reply.body) // 2
    match fault:
        case "hang":
            await sleep(_STALL_S if seconds is None else seconds)
        case "cut_body":
            transport.write(_head(reply, len(reply.body)) + reply.body[:half])
            transport.close()
        case "cut_unframed":
            transport.write(_head(reply, None) + reply.body[:half])
            transport.close()
        case "reset_body":
            transport.write(_head(reply, len(reply.body)) + reply.body[:half])
            await sleep(0.05)  # the client reads some of it first
            _reset(transport)
        case "reset":
            _reset(transport)
        case "disconnect":
            transport.close()
        case "stall":
            transport.write(_head(reply, len(reply.body)) + reply.body[:half])
            await sleep(_STALL_S if seconds is None else seconds)
            transport.abort()
        case "trickle":
            await _trickle(transport, reply, _TRICKLE_S if seconds is None else seconds, sleep)
    return respond(reply)


def respond(reply: WireReply) -> web.Response:
    """Return the ordinary response."""
    headers = {**reply.headers, "Content-Type": reply.content_type}
    return web.Response(status=reply.status, body=reply.body, headers=headers)


def _head(reply: WireReply, length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} OK", f"Content-Type: {reply.content_type}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _trickle(transport: asyncio.Transport, reply: WireReply, seconds: float, sleep: Sleep) -> None:
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

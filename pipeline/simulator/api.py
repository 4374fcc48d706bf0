"""The API itself: what happens to one request, from the door to the bill.

In: HTTP requests. Out: HTTP answers and a line on the bill for each. Order of events: key, limits, model, checks,
fault, wait and picture, bill, and only then the body.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from pipeline.simulator import answers, checks, doors, waits, wire
from pipeline.simulator.asks import Ask
from pipeline.simulator.bill import PROMPT_SHOWN, Bill, Entry, digest, now
from pipeline.simulator.dice import Dice
from pipeline.simulator.envelopes import TurnedAway, WireReply, bad_argument, comet
from pipeline.simulator.faults import FAULTS, Fault, Outcome, Stage
from pipeline.simulator.limits import Limiter
from pipeline.simulator.models import SERVED
from pipeline.simulator.pictures import UnreadableImage
from pipeline.simulator.profile import Profile, Rule
from pipeline.simulator.refusals import REFUSALS, Case
from pipeline.simulator.rules import Rules
from pipeline.simulator.studio import Shooting, Studio
from pipeline.simulator.wire import Sleep

_LIMIT_ANSWERS = {
    "retry_after": "rate_limited",
    "retry_info": "rate_limited_retry_info",
    "text": "rate_limited_text",
    "none": "rate_limited",
}
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request on its way; fields fill as it is understood."""

    number: int
    request_id: str
    key: str | None = None
    model: str | None = None
    ask: Ask | None = None
    seed: int | None = None
    rule: Rule | None = None
    shooting: Shooting | None = None

    @property
    def fault(self) -> Fault | None:
        return None if self.rule is None else FAULTS[self.rule.name]


class Api:
    """The handlers of one server."""

    def __init__(
        self, profile: Profile, bill: Bill, studio: Studio, *, clock: Callable[[], float], sleep: Sleep
    ) -> None:
        self._profile = profile
        self._bill = bill
        self._studio = studio
        self._clock = clock
        self._sleep = sleep
        self._dice = Dice(profile.seed, "api")
        self._limiter = Limiter(profile, clock)
        self._rules = Rules(profile)
        self._visits = 0

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
        visit = self._visit()
        try:
            reply = await self._judged(visit, request)
        except TurnedAway as turned:
            self._write(visit, turned.reply.status, is_executed=visit.fault is not None and visit.fault.is_billed)
            return wire.respond(_signed(turned.reply, visit))
        except (ConnectionError, web.RequestPayloadError):
            return web.Response(status=499)  # the client left while it was sending: nobody reads this
        self._write(visit, reply.status, is_executed=True)
        name = visit.fault.name if visit.fault is not None else ""
        return await wire.send(
            request, _signed(reply, visit), name, visit.rule.seconds if visit.rule else None, self._sleep
        )

    async def models(self, request: web.Request) -> web.Response:
        """List the models that are served, in the OpenAI shape."""
        try:
            doors.find_key(request.headers, request.query, self._visit().request_id)
        except TurnedAway as turned:
            return wire.respond(turned.reply)
        data = [{"id": name, "object": "model", "created": 1626777600, "owned_by": "google"} for name in SERVED]
        return wire.respond(WireReply(status=200, body=msgspec.json.encode({"object": "list", "data": data})))

    async def generations(self, _: web.Request) -> web.Response:
        """Refuse the OpenAI-compatible route: these models are not served there."""
        return wire.respond(REFUSALS["convert_request_failed"](Case(model="", request_id=self._visit().request_id)))

    async def elsewhere(self, request: web.Request) -> web.Response:
        """Answer every other path."""
        return wire.respond(doors.wrong_path(request.method, request.path, self._visit().request_id))

    def _visit(self) -> Visit:
        self._visits += 1
        moment = datetime.now(UTC)
        tail = "".join(self._dice.choice(_ALPHABET, "request id", self._visits, place) for place in range(8))
        return Visit(number=self._visits, request_id=f"{moment:%Y%m%d%H%M%S%f}000{tail}")

    async def _judged(self, visit: Visit, request: web.Request) -> WireReply:
        """Let one request through the checks and execute it; raises `TurnedAway`."""
        visit.key = doors.fingerprint(doors.find_key(request.headers, request.query, visit.request_id))
        visit.model = request.match_info["model"]
        body = await self._body(visit, request)
        delay_s = self._limiter.enter(visit.key)
        if delay_s is not None:
            hint = self._profile.limits.hint
            case = Case(model=visit.model, request_id=visit.request_id, delay_s=None if hint == "none" else delay_s)
            raise TurnedAway(REFUSALS[_LIMIT_ANSWERS[hint]](case))
        try:
            model = checks.find_model(visit.model, visit.request_id)
            visit.ask = checks.check(model, body, visit.request_id)
            return WireReply(status=200, body=await self._executed(visit, visit.ask))
        finally:
            self._limiter.leave(visit.key)

    async def _body(self, visit: Visit, request: web.Request) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            message = f"request body too large, the limit is {self._profile.max_request_bytes} bytes"
            raise TurnedAway(comet(413, message, visit.request_id, code="read_request_body_failed")) from None

    async def _executed(self, visit: Visit, ask: Ask) -> bytes:
        """Wait, draw and return the body; a fault of the stage door is raised as `TurnedAway`."""
        step, asking = self._limiter.step(), self._rules.asking(ask)
        visit.rule = self._rules.strike(ask, asking, step)
        visit.seed = ask.seed if ask.seed is not None else asking - 1
        wait_s = waits.seconds(self._profile.latency, self._dice, ask, asking) * step.slower
        voice = answers.Voice.of(self._dice, visit.number)
        fault = visit.fault
        if fault is not None and fault.stage is Stage.DOOR:
            await self._sleep(wait_s if fault.is_billed else wait_s * 0.1)
            delay_s = visit.rule.retry_after if visit.rule is not None else None
            case = Case(model=ask.model.name, request_id=visit.request_id, delay_s=delay_s)
            raise TurnedAway(REFUSALS[fault.name](case))
        if fault is not None and fault.stage is Stage.CONTENT:
            await self._sleep(wait_s * 0.4)
            return answers.without_image(ask, voice, fault)
        if not ask.with_image:
            await self._sleep(wait_s * 0.4)
            return answers.words(ask, voice)
        shooting = await self._shot(visit, ask, wait_s)
        return answers.answer(ask, shooting.prints, shooting.drafts, voice, fault)

    async def _shot(self, visit: Visit, ask: Ask, wait_s: float) -> Shooting:
        began = self._clock()
        try:
            shooting = await self._studio.shoot(ask, visit.seed or 0, visit.fault.name if visit.fault else "")
        except UnreadableImage:
            visit.rule = None  # nothing was made that a fault could spoil
            raise bad_argument("Provided image is not valid") from None
        visit.shooting = shooting
        await self._sleep(max(0.0, wait_s - (self._clock() - began)))
        return shooting

    def _write(self, visit: Visit, status: int, *, is_executed: bool) -> None:
        """Put one answer on the bill."""
        ask, shooting = visit.ask, visit.shooting
        prints = () if shooting is None else shooting.prints
        self._bill.write(
            Entry(
                time=now(),
                request=visit.number,
                request_id=visit.request_id,
                key=visit.key,
                status=status,
                outcome=_outcome(visit, status),
                billed=is_executed,
                price_microusd=0 if ask is None else ask.model.price_microusd(ask.size) * max(1, len(prints)),
                model=visit.model,
                size=None if ask is None else ask.size,
                ratio=None if ask is None else (ask.ratio if shooting is None else shooting.ratio),
                prompt_sha256=None if ask is None else digest(ask.prompt),
                prompt=None if ask is None else ask.prompt[:PROMPT_SHOWN],
                input_images=0 if ask is None else len(ask.images),
                images=len(prints),
                image_sha256=tuple(picture.sha256 for picture in prints),
                seed=visit.seed,
                fault=None if visit.fault is None else visit.fault.name,
            )
        )


def _signed(reply: WireReply, visit: Visit) -> WireReply:
    """Return the answer with its request id in a header, as gateways of this family send it."""
    return replace(reply, headers={**reply.headers, "X-Oneapi-Request-Id": visit.request_id})


def _outcome(visit: Visit, status: int) -> Outcome:
    if status != 200:
        return Outcome.ERROR
    if visit.fault is not None:
        return visit.fault.outcome
    return Outcome.IMAGE if visit.shooting is not None else Outcome.NO_IMAGE

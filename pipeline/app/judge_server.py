"""Serves `judge` over HTTP to one person's browser on this machine, and to nobody else.

Other users of the machine and every web page in the person's browser can reach a local port. So:

- it listens on 127.0.0.1 only, on a random port unless one is named; requests must have exactly this `Host` (which
  stops DNS rebinding), and writes exactly this `Origin`; no CORS header is ever sent
- the address has a token in its fragment, which no request and no log contains. The page exchanges it, once, for a
  cookie: HttpOnly, SameSite=Strict. Without the cookie only that page is served. A second exchange is refused
- cookies do not distinguish ports: another server on 127.0.0.1 would receive this one and could use it. So everything
  lies under a random path that the cookie is bound to, and which nobody else's address has
- a write also names a secret in a header that only a script of this origin can read and set
- nothing is loaded from elsewhere (`default-src 'self'`), and only raster images are served
- bodies are at most 64 KB; the server ends after half an hour without a request
- the process has no key: see `without_keys`
"""

import asyncio
import contextlib
import hmac
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from pipeline.app.context import Setup
from pipeline.app.judge import JudgeSession, MarkChange, Picture
from pipeline.errors import ImgpipeError, InputError
from pipeline.report.sheet import SERVED_POLICY, asset, mark_data, script
from pipeline.settings import KEY_NAMES

HOST: Final = "127.0.0.1"
MOST_BODY: Final = 64 * 1024
IDLE_S: Final = 1800.0
SHUTDOWN_S: Final = 0.5  # how long answers that are under way may still take when it ends
OPEN: Final = frozenset(  # without the cookie
    {("GET", "/"), ("GET", "/enter.js"), ("GET", "/icon.svg"), ("POST", "/session")}
)
COOKIE: Final = "imgpipe"
WRITE_HEADER: Final = "X-Imgpipe-Write"
HEADERS: Final = {
    "Content-Security-Policy": SERVED_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EditBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a write. `since`: the last change that the window has seen."""

    edits: dict[str, MarkChange]
    since: int = 0


class JudgeServer:
    """Serves one session. It ends after `idle_s` without a request."""

    def __init__(self, session: JudgeSession, *, secret: str, idle_s: float = IDLE_S) -> None:
        self._session = session
        self._secret = secret
        self._idle_s = idle_s
        self._token: str | None = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)
        self._path = f"/{secrets.token_urlsafe(16)}/"
        self.host = ""  # address and port, once it listens
        self._asked_at = time.monotonic()
        self._page_lock = asyncio.Lock()

    @property
    def address(self) -> str:
        """Return the address with its token, which is good for one entry."""
        return f"http://{self.host}/#{self._token}"

    def app(self) -> web.Application:
        """Return the application; it refuses everything until `host` is set."""
        app = web.Application(middlewares=[self._guard], client_max_size=MOST_BODY)
        app.on_response_prepare.append(_harden)
        here = self._path
        app.add_routes(
            [
                web.get("/", _text(partial(asset, "enter.html"), "text/html")),
                web.get("/enter.js", _text(partial(asset, "enter.js"), "text/javascript")),
                web.get("/icon.svg", _text(partial(asset, "icon.svg"), "image/svg+xml")),
                web.post("/session", self._enter),
                web.get(here, self._index),
                web.get(f"{here}page.css", _text(partial(asset, "page.css"), "text/css")),
                web.get(f"{here}icon.svg", _text(partial(asset, "icon.svg"), "image/svg+xml")),
                web.get(f"{here}page.js", _text(script, "text/javascript")),
                web.get(f"{here}thumbs/{{name:[0-9a-f]{{32}}[.]webp}}", _pictures(self._session.thumb)),
                web.get(f"{here}image/{{sha256:[0-9a-f]{{64}}}}/{{task_id:.+}}", _pictures(self._session.image)),
                web.get(f"{here}input/{{task_id:.+}}", _pictures(self._session.input)),
                web.get(f"{here}marks", self._changes),
                web.post(f"{here}marks", self._mark),
            ]
        )
        return app

    async def until_idle(self, stopped: asyncio.Event) -> None:
        """Return when no request came for `idle_s`, or when `stopped` is set."""
        while (left := self._asked_at + self._idle_s - time.monotonic()) > 0 and not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await stopped.wait()

    # --- who may ask

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.getall("Host", []) != [self.host]:
            raise web.HTTPForbidden(text=f"open the address that imgpipe judge has printed, with {self.host}\n")
        is_write = request.method == "POST"
        if request.method not in ("GET", "POST"):
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "POST"])
        if is_write and request.headers.getall("Origin", []) != [f"http://{self.host}"]:
            raise web.HTTPForbidden(text="another origin asked\n")
        if (request.method, request.path) not in OPEN:
            if not _is_same(request.cookies.get(COOKIE), self._cookie):
                raise web.HTTPForbidden(text="open the address that imgpipe judge has printed\n")
            if is_write and not _is_same(request.headers.get(WRITE_HEADER), self._secret):
                raise web.HTTPForbidden(text="the header is missing\n")
            self._asked_at = time.monotonic()  # whoever else can reach the port does not keep it open
        try:
            return await handler(request)
        except (ImgpipeError, OSError) as error:  # a damaged ledger, a full disk: the page shows what is to be done
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from error

    async def _enter(self, request: web.Request) -> web.Response:
        """Swap the token for the cookie, once; answer with the path of the sheet."""
        if self._token is None or not _is_same((await request.text()).strip(), self._token):
            raise web.HTTPForbidden(text="this address was used already, or is not the one that was printed\n")
        self._token = None
        self._asked_at = time.monotonic()
        response = web.Response(text=self._path)
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict", path=self._path)
        return response

    # --- what is answered

    async def _index(self, _: web.Request) -> web.Response:
        async with self._page_lock:
            change, marks = self._session.marks.since(0)
            html = await asyncio.to_thread(self._session.page, marks, change)
        return web.Response(body=html.encode(errors="replace"), content_type="text/html", charset="utf-8")

    async def _changes(self, request: web.Request) -> web.Response:
        text = request.query.get("since", "0")
        since = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
        return self._marks_since(since)

    async def _mark(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=EditBody)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        self._session.edit(body.edits)
        return self._marks_since(body.since)

    def _marks_since(self, since: int) -> web.Response:
        change, marks = self._session.marks.since(since)
        found = {task_id: mark_data(mark) for task_id, mark in marks.items()}
        body = msgspec.json.encode({"change": change, "marks": found, "isStale": self._session.is_stale})
        return web.Response(body=body, content_type="application/json")


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.pop("Server", None)


def _is_same(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _text(read: Callable[[], str], content_type: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=read(), content_type=content_type)

    return answer


def _pictures(find: Callable[..., Picture | None]) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        """Answer with a picture; the browser keeps it and asks whether it is still the same one."""
        picture = await asyncio.to_thread(find, **request.match_info)
        if picture is None:
            raise web.HTTPNotFound(text="there is no such picture\n")
        tag = f'"{picture.tag}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=picture.data, content_type=picture.mime, headers=headers)

    return answer


# --- the process


def without_keys(setup: Setup) -> dict[str, str] | None:
    """Return the environment without API keys; None: there is none in it.

    The caller starts the process again with it: a variable that is only deleted is still in the memory that the
    process was started with (`/proc/PID/environ`).
    """
    keys = {name for names in KEY_NAMES.values() for name in names} | {setup.provider.api_key_env}
    kept = {name: value for name, value in os.environ.items() if name not in keys}
    return kept if len(kept) < len(os.environ) else None


async def serve_judge(
    setup: Setup, *, port: int = 0, announce: Callable[[str], None] = lambda _: None, idle_s: float = IDLE_S
) -> None:
    """Serve until SIGINT, SIGTERM, or until no window asks any more. `announce`: called once, with the address.

    Raises InputError when the port cannot be had or nothing was made yet, LedgerError, StorageError.
    """
    secret = secrets.token_urlsafe(32)
    setup = replace(setup, manifest=replace(setup.manifest, secrets=()))  # keys of a `.env`: nothing is asked for here
    session = JudgeSession(setup, secret=secret)
    try:
        session.prepare()  # nothing else waits for this loop yet, and Ctrl-C ends it at once
        await _serve(JudgeServer(session, secret=secret, idle_s=idle_s), port, announce)
    finally:
        session.close()


async def _serve(server: JudgeServer, port: int, announce: Callable[[str], None]) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=SHUTDOWN_S)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            what = f"cannot listen on {HOST}:{port}: {error.strerror or error}"
            raise InputError(f"{what}; leave --port out to use any free port") from error
        server.host = f"{HOST}:{runner.addresses[0][1]}"
        announce(server.address)
        await server.until_idle(stopped)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await runner.cleanup()

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from pipeline.app.notify import address_problem, body_for, payload, ping_url, plain_chat, post
from pipeline.errors import Exit
from pipeline.view.run import run_json


class Listener:
    """A server that remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.status = 200

    async def take(self, request: web.Request) -> web.Response:
        self.heard.append((request.path, await request.json() if request.can_read_body else None))
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def server(listener: Listener) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_post("/{tail:.*}", listener.take)
    async with TestServer(app) as running:
        yield running


async def test_a_webhook_hears_the_summary(server: TestServer, listener: Listener, summary) -> None:
    body = payload(summary(exit=Exit.SOME_FAILED, failed=1), manifest="shop", file="jobs/x.yaml")
    assert await post(str(server.make_url("/hook")), body, timeout_s=5) is None
    [(path, heard)] = listener.heard
    assert path == "/hook"
    assert heard["run"] == run_json(summary(exit=Exit.SOME_FAILED, failed=1))
    assert heard["title"] == "shop: exit 3, 60 images for $2.34"
    assert "imgpipe retry jobs/x.yaml --failed" in heard["text"]


def test_discord_gets_content_of_its_length(summary) -> None:
    short, long = (payload(summary(reasons=("x" * length,)), manifest="shop", file="x.yaml") for length in (10, 5000))
    assert short["content"] == short["text"]
    assert isinstance(long["content"], str)
    assert len(long["content"]) == 2000


def test_google_chat_gets_no_field_that_it_refuses(summary) -> None:
    body = payload(summary(), manifest="shop", file="x.yaml")
    assert body_for("https://chat.googleapis.com/v1/spaces/A/messages?key=K", body) == {"text": body["text"]}
    assert body_for("https://hooks.slack.com/services/T/B/X", body) == body


@pytest.mark.parametrize(
    "host", ["prod-15.uksouth.logic.azure.com:443", "default1.ab.environment.api.powerplatform.com"]
)
def test_teams_gets_a_card(summary, host: str) -> None:
    body = payload(summary(exit=Exit.SOME_FAILED, failed=1), manifest="shop", file="x.yaml")
    sent: Any = body_for(f"https://{host}/workflows/1?sig=x", body)
    [attachment] = sent["attachments"]
    assert (sent["type"], sent["run"]) == ("message", body["run"])
    assert attachment["content"]["type"] == "AdaptiveCard"
    assert "\n".join(block["text"] for block in attachment["content"]["body"]) == body["text"]


async def test_a_ping_has_no_body(server: TestServer, listener: Listener) -> None:
    assert await post(ping_url(str(server.make_url("/ping/uuid")), "start"), timeout_s=5) is None
    assert listener.heard == [("/ping/uuid/start", None)]


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_an_answer_that_is_no_success_is_a_warning(server: TestServer, listener: Listener, status: int) -> None:
    listener.status = status
    assert (
        await post(str(server.make_url("/token-1234")), timeout_s=5)
        == f"notify: the ping at 127.0.0.1 answered {status}"
    )
    assert len(listener.heard) == 1


async def test_h24_nobody_there_is_a_warning_without_the_address() -> None:
    warning = await post(f"http://127.0.0.1:{unused_port()}/token-1234", {}, timeout_s=5)
    assert warning == "notify: the webhook at 127.0.0.1 was not reached (ClientConnectorError)"


async def test_the_proxy_of_requests_is_that_of_a_webhook_too(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        monkeypatch.setenv("ALL_PROXY", f"http://user:word@127.0.0.1:{server.sockets[0].getsockname()[1]}")
        warning = await post("https://hooks.example/token-1234", {}, timeout_s=5)
    assert warning is not None
    assert warning.startswith("notify: the webhook at hooks.example was not reached")
    assert heads[0].startswith(b"CONNECT hooks.example:443 ")
    assert b"Proxy-Authorization: Basic " in heads[0]


async def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:hush@127.0.0.1:1080")
    warning = await post("https://hooks.example/token-1234", {}, timeout_s=5)
    assert warning is not None
    assert warning.startswith("notify: the webhook at hooks.example was not reached: HTTPS_PROXY is not an http")
    assert "hush" not in warning


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://hc-ping.com/uuid", None),
        ("http://localhost:8000/x", None),
        ("http://[::1]:8000/x", None),
        ("http://example.com/x", "would go to example.com unencrypted; use https"),
        ("ftp://example.com", "is not an https address"),
        ("https://", "is not an https address"),
        ("https://user:pass@example.com/", "has a user name in it; put the token into the path"),
        ("https://[bad/", "is not an address"),
        ("https://example.com:99999/", "is not an address"),
    ],
)
def test_s08_only_https_or_this_machine(url: str, problem: str | None) -> None:
    assert address_problem(url) == problem


async def test_s05_a_bad_address_is_a_warning_and_never_sent() -> None:
    assert await post("http://example.com/token", timeout_s=5) == (
        "notify: the address would go to example.com unencrypted; use https"
    )


@pytest.mark.parametrize(
    ("moment", "url"),
    [
        ("start", "https://hc-ping.com/uuid/start?rid=1"),
        ("success", "https://hc-ping.com/uuid?rid=1"),
        ("fail", "https://hc-ping.com/uuid/fail?rid=1"),
    ],
)
def test_pings_follow_the_convention(moment, url: str) -> None:
    assert ping_url("https://hc-ping.com/uuid?rid=1", moment) == url


def test_a_name_is_no_chat_markup(summary) -> None:
    name = "<!channel> <https://evil.example|renew your key> @everyone [renew](https://evil.example)"
    body = payload(summary(exit=Exit.SOME_FAILED, failed=1), manifest=name, file="jobs/<!here>@all.yaml")
    for text in (body["text"], body["title"]):
        assert isinstance(text, str)
        assert not any(markup in text for markup in ("<", ">", "@everyone", "@all", "](", "://"))


def test_commands_with_a_variant_stay_fit_to_be_pasted() -> None:
    assert plain_chat("imgpipe status x.yaml shop/mug@2") == "imgpipe status x.yaml shop/mug@2"

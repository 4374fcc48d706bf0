"""Telling somebody that a run began or ended: a webhook with the summary, a ping for a dead man's switch.

In: a summary and an address. Out: one POST; what goes wrong comes back as a warning and never as an exception.
Addresses are secrets (they carry tokens): only their host is ever named.
"""

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

from pipeline.engine.summary import RunSummary
from pipeline.report.figures import count, money
from pipeline.report.foreign import visible
from pipeline.report.summary import paragraph, run_json

if TYPE_CHECKING:
    from aiohttp import ClientSession

_TIMEOUT_S = 10.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Moment = Literal["start", "success", "fail"]


def payload(summary: RunSummary, *, manifest: str, file: str) -> dict[str, object]:
    """Return the webhook's JSON: `text` for chat services, `title`, `manifest`, and `run` as `run --json` has it.

    manifest: its name; file: its path as it was typed, for the commands that `text` advises.
    """
    cost = money(summary.spent_microusd, summary.is_play_money)
    title = f"{manifest}: exit {int(summary.exit)}, {count(summary.images, 'image')} for {cost}"
    return {
        "text": f"{title}\n{paragraph(summary, manifest=file)}",
        "title": title,
        "manifest": manifest,
        "is_play_money": summary.is_play_money,
        "run": run_json(summary),
    }


def ping_url(url: str, moment: Moment) -> str:
    """Return the address to ping by the convention of healthchecks.io: itself, `/start` or `/fail`; a query stays."""
    if moment == "success":
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{moment}"))


def address_problem(url: str) -> str | None:
    """Say what is wrong with an address: https, or http to this machine, and no user name in it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not an address"
    if not host or parts.scheme not in ("https", "http"):
        return "is not an https address"
    if parts.scheme == "http" and host not in _LOOPBACK:
        return f"would go to {visible(host)} unencrypted; use https"
    if parts.username is not None:
        return "has a user name in it; put the token into the path"
    return None


async def post(url: str, body: object = None, *, session: "ClientSession | None" = None) -> str | None:
    """POST `body` as JSON (nothing: an empty ping); return a warning, or None when the other side took it.

    No redirects, 10 seconds. Cancellation propagates.
    """
    import aiohttp

    problem = address_problem(url)
    if problem is not None:
        return f"notify: the address {problem}"
    host = urlsplit(url).hostname or ""
    if session is None:
        async with aiohttp.ClientSession() as own:
            return await post(url, body, session=own)
    try:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with session.post(
            url, json=body, timeout=timeout, allow_redirects=False, proxy=_proxy(url, host)
        ) as answer:
            return None if answer.status < 300 else f"notify: {visible(host)} answered {answer.status}"
    except TimeoutError:
        return f"notify: {visible(host)} did not answer within {_TIMEOUT_S:.0f} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"notify: {visible(host)} was not reached ({type(error).__name__})"


def _proxy(url: str, host: str) -> str | None:
    """Return the proxy that the environment names for this address."""
    from urllib.request import getproxies, proxy_bypass

    return None if host in _LOOPBACK or proxy_bypass(host) else getproxies().get(urlsplit(url).scheme)

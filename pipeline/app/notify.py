"""Reports a run to others: a ping when it begins and ends, its summary to a webhook, its numbers to a Prometheus file.

What goes wrong here is a warning in the log and changes neither the run nor its exit code. The ping says `success` for
exit 0 alone. Addresses are secrets (they carry tokens): only their host is ever shown. The metrics file is the
exposition format 0.0.4 for node_exporter's textfile collector, replaced atomically.
"""

import asyncio
import contextlib
import errno
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

from pipeline.engine.events import RunSummary
from pipeline.errors import Exit, InputError
from pipeline.model import is_loopback
from pipeline.provider.credentials import find_proxy
from pipeline.settings import METRICS_SUFFIX, Notify
from pipeline.text import count, money, usd, visible
from pipeline.view.logs import LOGGER
from pipeline.view.run import paragraph, run_json

_METRICS_HEAD: Final = b"# HELP imgpipe_"
_STATES = ("done", "skipped", "failed", "refused", "unknown", "pending", "conflict")


def metrics_text(summary: RunSummary, *, manifest: str, finished_at: float) -> str:
    """Return the metrics of one run, labelled by manifest. `finished_at`: seconds since 1970."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest  # 25 ms, for who asked for a file

    registry = CollectorRegistry()
    labels = {"manifest": manifest}
    kind = {**labels, "is_play_money": str(summary.is_play_money).lower()}
    states = [({**labels, "state": state}, getattr(summary, state)) for state in _STATES]
    for name, help_text, samples in (
        ("exit_code", "Exit code of the last run", [(labels, int(summary.exit))]),
        ("finished_timestamp_seconds", "When the last run ended", [(labels, round(finished_at, 3))]),
        ("duration_seconds", "How long the last run took", [(labels, round(summary.seconds, 3))]),
        ("tasks", "Tasks after the last run, by state", states),
        ("attempts", "Requests sent by the last run", [(labels, summary.attempts)]),
        ("images", "Images made by the last run", [(labels, summary.images)]),
        ("image_bytes", "Bytes of these images", [(labels, summary.bytes)]),
        ("spent_usd", "Dollars spent by the last run", [(kind, usd(summary.spent_microusd))]),
        ("unknown_usd", "Dollars that may have been billed", [(kind, usd(summary.unknown_microusd))]),
    ):
        gauge = Gauge(f"imgpipe_last_run_{name}", help_text, tuple(samples[0][0]), registry=registry)
        for each, value in samples:
            gauge.labels(**each).set(value)
    return generate_latest(registry).decode()


def write_metrics(path: Path, text: str) -> None:
    """Replace `path` with `text` in one step. Raises OSError, also where something stands that is not ours."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # No name that somebody else could have taken before; the collector reads only those that end in .prom.
    part = f".{path.name}.{secrets.token_hex(8)}.part"
    try:
        if not _is_ours_or_absent(path.name, folder):
            raise FileExistsError(errno.EEXIST, "there is something that imgpipe did not write; it stays")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(part, flags, 0o644, dir_fd=folder), "w", encoding="utf-8") as file:  # noqa: PTH123
            os.fchmod(file.fileno(), 0o644)  # whatever the umask of cron: the collector is another user
            file.write(text)
        os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
        os.close(folder)


def _is_ours_or_absent(name: str, folder: int) -> bool:
    """Say whether metrics may be written there: a `*.prom` that is not there, or a plain file that begins as ours."""
    if not name.endswith(METRICS_SUFFIX):
        return False
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError:  # a link, or a file that is not for us to read
        return False
    with open(fd, "rb") as file:  # noqa: PTH123
        return stat.S_ISREG(os.fstat(fd).st_mode) and file.read(len(_METRICS_HEAD)) == _METRICS_HEAD


Moment = Literal["start", "success", "fail"]
DISCORD_CHARS: Final = 2000


def payload(summary: RunSummary, *, manifest: str, file: str) -> dict[str, object]:
    """Return the webhook's JSON: `text` for chat services, `title`, `manifest`, and `run` as `run --json` has it.

    manifest: its name; file: its path as it was typed, for the commands that `text` advises. Discord refuses a message
    without `content`, and one that is longer (https://discord.com/developers/docs/resources/webhook#execute-webhook).
    """
    cost = money(summary.spent_microusd, summary.is_play_money)
    title = plain_chat(f"{manifest}: exit {int(summary.exit)}, {count(summary.images, 'image')} for {cost}")
    text = f"{title}\n{plain_chat(paragraph(summary, manifest=file))}"
    return {
        "text": text,
        "content": text[:DISCORD_CHARS],
        "title": title,
        "manifest": manifest,
        "is_play_money": summary.is_play_money,
        "run": run_json(summary),
    }


_MENTION = re.compile(r"@(?=[^\W\d_])")  # not that of a variant, `shop/mug@2`: commands stay fit to be pasted


def plain_chat(text: str) -> str:
    """Return text that chat services show as it is: what a task, a manifest or a server is called mentions nobody.

    Slack asks for `&`, `<` and `>` as entities and acts on nothing else then. Discord, Mattermost and Teams act on
    `@name` and on `[words](address)`; a word joiner, which is not seen, keeps them from it. Addresses become words.
    """
    for char, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, shown)
    return _MENTION.sub("@\u2060", text).replace("](", "]\u2060(").replace("://", ":\u2060//")


_TEAMS: Final = (".logic.azure.com", ".api.powerplatform.com")  # its workflows
_GOOGLE_CHAT: Final = "chat.googleapis.com"


def body_for(url: str, body: Mapping[str, object]) -> dict[str, object]:
    """Return what the service at an address shows of a payload.

    Google Chat refuses a message with fields of others. A workflow of Teams answers 202 to any message and shows none
    but cards (https://learn.microsoft.com/connectors/teams/#microsoft-teams-webhook).
    """
    host = urlsplit(url).hostname or ""
    if host == _GOOGLE_CHAT:
        return {"text": body["text"]}
    if not host.endswith(_TEAMS):
        return dict(body)
    lines = [{"type": "TextBlock", "text": line, "wrap": True} for line in str(body["text"]).splitlines()]
    card = {"type": "AdaptiveCard", "version": "1.4", "body": lines}
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {**body, "type": "message", "attachments": [attachment]}


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
    if parts.scheme == "http" and not is_loopback(host):
        return f"would go to {visible(host)} unencrypted; use https"
    if parts.username is not None:
        return "has a user name in it; put the token into the path"
    return None


async def post(url: str, body: object = None, *, timeout_s: float) -> str | None:
    """POST `body` as JSON (nothing: an empty ping); return a warning, or None when the other side took it.

    No redirects. Cancellation propagates.
    """
    import aiohttp

    problem = address_problem(url)
    if problem is not None:
        return f"notify: the address {problem}"
    host = urlsplit(url).hostname or ""
    whom = f"notify: the {'ping' if body is None else 'webhook'} at {visible(host)}"
    try:
        proxy = find_proxy(url, os.environ)
        way, headers = (None, None) if proxy is None else (proxy.url, proxy.headers)
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.post(url, json=body, allow_redirects=False, proxy=way, proxy_headers=headers) as answer,
        ):
            return None if answer.status < 300 else f"{whom} answered {answer.status}"
    except TimeoutError:
        return f"{whom} did not answer within {timeout_s:g} s"
    except InputError as error:  # of the proxy
        return f"{whom} was not reached: {error}"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{whom} was not reached ({type(error).__name__})"


HURRY_S: Final = 1.0  # for all of it, when a signal ended the run
START_S: Final = 3.0  # for the ping at the beginning: a run does not wait for who does not answer
END_S: Final = 7.0  # for all of it at the end


class Notifier:
    """Sends the notifications of one run. `notify` None: there are none."""

    def __init__(self, notify: Notify | None, *, manifest: str, file: str) -> None:
        self._notify = notify if notify is not None else Notify()
        self._manifest = manifest
        self._file = file
        self.failures: list[str] = []  # who could not be reached, and why

    async def started(self) -> None:
        """Ping that the run begins. Cancellation propagates."""
        await self._ping("start", START_S)

    async def ended(self, summary: RunSummary) -> RunSummary:
        """Tell how it ended, all at once; within a second when a signal ended it. Return it with what went wrong."""
        self._write(summary)
        seconds = HURRY_S if summary.exit in (Exit.INTERRUPTED, Exit.TERMINATED) else END_S
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ping("success" if summary.exit is Exit.OK else "fail", seconds), name="ping")
            group.create_task(self._post(summary, seconds), name="webhook")
        return replace(summary, cautions=(*summary.cautions, *self.failures))

    async def broke_off(self, error: Exception, summary: RunSummary) -> None:
        """Notify of an error that ended the run; who could not be reached is noted on the error."""
        await self.ended(summary)
        for text in self.failures:
            error.add_note(text)

    async def _ping(self, moment: Moment, timeout_s: float) -> None:
        if self._notify.ping is not None:
            self._warn(await post(ping_url(self._notify.ping, moment), timeout_s=timeout_s))

    async def _post(self, summary: RunSummary, timeout_s: float) -> None:
        if self._notify.webhook is not None:
            body = payload(summary, manifest=self._manifest, file=self._file)
            address = self._notify.webhook
            self._warn(await post(address, body_for(address, body), timeout_s=timeout_s))

    def _warn(self, text: str | None) -> None:
        """Keep and log a failure, each text once; None: there was none."""
        if text is not None and text not in self.failures:
            self.failures.append(text)
            logging.getLogger(LOGGER).warning("%s", text, extra={"event": "notify_failed"})

    def _write(self, summary: RunSummary) -> None:
        if (path := self._notify.prometheus) is not None:
            try:
                write_metrics(path, metrics_text(summary, manifest=self._manifest, finished_at=time.time()))
            except OSError as error:
                self._warn(f"notify: {visible(str(path))} was not written ({error.strerror})")

"""Reports a run to others: a ping when it begins and ends, its summary to a webhook, its numbers to a Prometheus file.

What goes wrong here is a warning in the log and changes neither the run nor its exit code. The ping says `success` for
exit 0 alone. Addresses are secrets (they carry tokens): only their host is ever shown. The metrics file is the
exposition format 0.0.4 for node_exporter's textfile collector, replaced atomically.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from pipeline.engine.events import RunSummary
from pipeline.errors import Exit
from pipeline.settings import Notify
from pipeline.text import count, money, usd, visible
from pipeline.view.logs import LOGGER
from pipeline.view.run import paragraph, run_json

if TYPE_CHECKING:
    from aiohttp import ClientSession


_STATES = ("done", "skipped", "failed", "refused", "unknown", "pending", "conflict")


def metrics_text(summary: RunSummary, *, manifest: str, finished_at: float) -> str:
    """Return the metrics of one run, labelled by manifest. `finished_at`: seconds since 1970."""
    label = f'manifest="{_escaped(manifest)}"'
    money = f'{label},is_play_money="{str(summary.is_play_money).lower()}"'
    families = (
        ("exit_code", "Exit code of the last run", [(label, int(summary.exit))]),
        ("finished_timestamp_seconds", "When the last run ended", [(label, round(finished_at, 3))]),
        ("duration_seconds", "How long the last run took", [(label, round(summary.seconds, 3))]),
        (
            "tasks",
            "Tasks after the last run, by state",
            [(f'{label},state="{s}"', getattr(summary, s)) for s in _STATES],
        ),
        ("attempts", "Requests sent by the last run", [(label, summary.attempts)]),
        ("images", "Images made by the last run", [(label, summary.images)]),
        ("image_bytes", "Bytes of these images", [(label, summary.bytes)]),
        ("spent_usd", "Dollars spent by the last run", [(money, usd(summary.spent_microusd))]),
        ("unknown_usd", "Dollars that may have been billed", [(money, usd(summary.unknown_microusd))]),
    )
    lines: list[str] = []
    for name, text, samples in families:
        full = f"imgpipe_last_run_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge"]
        lines += [f"{full}{{{labels}}} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def write_metrics(path: Path, text: str) -> None:
    """Replace `path` with `text` in one step. Raises OSError."""
    from pipeline.report.tables import replaced  # only where somebody wants the file

    with replaced(path) as file:  # the collector reads only names that end in .prom, so never the unfinished one
        file.write(text)


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


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


HURRY_S: Final = 1.0  # for all of it, when a signal ended the run
START_S: Final = 3.0  # for the ping at the beginning: a run does not wait for who does not answer
END_S: Final = 7.0  # for all of it at the end


def _warn(text: str) -> None:
    logging.getLogger(LOGGER).warning("%s", text, extra={"event": "notify_failed"})


class Notifier:
    """Tells of one run. `notify` None: nobody wants to know."""

    def __init__(
        self,
        notify: Notify | None,
        *,
        manifest: str,
        file: str,
        warn: Callable[[str], None] = _warn,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._notify = notify if notify is not None else Notify()
        self._manifest = manifest
        self._file = file
        self._log = warn
        self._now = now
        self.failures: list[str] = []  # who could not be told, and why

    async def started(self) -> None:
        """Ping that the run begins. Cancellation propagates."""
        try:
            async with asyncio.timeout(START_S):
                await self._ping("start")
        except TimeoutError:
            self._warn(f"notify: the ping at the beginning was not answered within {START_S:g} s")

    async def ended(self, summary: RunSummary) -> RunSummary:
        """Tell how it ended, all at once; within a second when a signal ended it. Return it with what went wrong."""
        self._write(summary)
        seconds = HURRY_S if summary.exit in (Exit.INTERRUPTED, Exit.TERMINATED) else END_S
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(self._ping("success" if summary.exit is Exit.OK else "fail"), name="ping")
                group.create_task(self._post(summary), name="webhook")
        except TimeoutError:
            self._warn(f"notify: not every address answered within {seconds:g} s")
        return replace(summary, cautions=(*summary.cautions, *self.failures))

    async def broke_off(self, error: Exception, summary: RunSummary) -> None:
        """Tell that an error ended the run; who could not be told is noted on the error."""
        await self.ended(summary)
        for text in self.failures:
            error.add_note(text)

    def _warn(self, text: str) -> None:
        self.failures.append(text)
        self._log(text)

    async def _ping(self, moment: Moment) -> None:
        if self._notify.ping is not None:
            self._heard(await post(ping_url(self._notify.ping, moment)))

    async def _post(self, summary: RunSummary) -> None:
        if self._notify.webhook is not None:
            self._heard(await post(self._notify.webhook, payload(summary, manifest=self._manifest, file=self._file)))

    def _write(self, summary: RunSummary) -> None:
        path = self._notify.prometheus
        if path is None:
            return
        try:
            write_metrics(path, metrics_text(summary, manifest=self._manifest, finished_at=self._now()))
        except OSError as error:
            self._warn(f"notify: {path} could not be written ({error.strerror})")

    def _heard(self, warning: str | None) -> None:
        if warning is not None:
            self._warn(warning)

"""Who wants to know of a run is told: a ping when it begins and ends, its summary to a webhook, its numbers to a file.

In: the manifest's `notify`, summaries. Out: requests and a file. What goes wrong is a warning in the log and changes
neither the run nor its exit code. The dead man's switch hears `success` for exit 0 alone: everything else is for a
person to look at.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pipeline.engine.summary import RunSummary
from pipeline.errors import Exit
from pipeline.report import metrics_text, payload, ping_url, post, write_metrics
from pipeline.report.logs import LOGGER
from pipeline.report.notify import Moment
from pipeline.settings import Notify

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
            self._warn(f"notify: not everybody was told within {seconds:g} s")
        return replace(summary, cautions=(*summary.cautions, *self.failures))

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

"""How a run is shown: progress and logs while it lasts, and its summary.

stderr carries sentences and progress; with `--log-format json` JSON lines and nothing else. With `-q` a run that ends
well is silent, and one that does not prints one paragraph. A log file gets every event in each case.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.cli import terminal
from pipeline.errors import Exit, ImgpipeError
from pipeline.text import clipped
from pipeline.view import logs, progress
from pipeline.view import run as run_view
from pipeline.view.logs import LOGGER

if TYPE_CHECKING:
    from pipeline.app.context import Setup
    from pipeline.engine.events import Event, Gauge, Listener, RunStarted, RunSummary
    from pipeline.view.progress import Mode


SAMPLES: Final = 3  # tasks named in the last word of a quiet run
_LOG: Final = logging.getLogger(LOGGER)


@dataclass(slots=True, kw_only=True)
class RunDisplay:
    """What a person asked to see of a run."""

    mode: "Mode"
    is_quiet: bool
    is_json_log: bool
    samples: list[str] = field(default_factory=list)  # the first tasks that ended without an image

    def set_up_log(self, *, is_verbose: bool, file: Path | None) -> None:
        """Send the log where it belongs. Raises InputError when the file cannot be opened."""
        least = logging.INFO if self.is_json_log else logging.WARNING
        if is_verbose:
            least = logging.DEBUG
        elif self.is_quiet:
            least = logging.ERROR
        logs.set_up(level=least, style="json" if self.is_json_log else "text", file=file)

    @contextmanager
    def __call__(self, started: "RunStarted", gauge: "Callable[[], Gauge]") -> "Iterator[Listener]":
        """Show one run."""
        if not (self.is_quiet or self.is_json_log):
            run_view.say(logs.resume_line(started), terminal.console(is_stderr=True))
        view = progress.progress(
            self._mode(is_idle=not started.due),
            total=started.due,
            gauge=gauge,
            console=terminal.console(is_stderr=True),
            is_quiet=self.is_quiet,
        )
        journal = logs.Journal()

        def listen(event: "Event") -> None:
            journal(event)
            view(event)
            self._remember(event)

        with view:
            yield listen

    def _mode(self, *, is_idle: bool) -> "Mode":
        if is_idle or (self.is_json_log and self.mode == "auto"):
            return "none"
        return "plain" if self.mode == "auto" and not terminal.is_lively() else self.mode

    def _remember(self, event: "Event") -> None:
        from pipeline.engine.events import TaskEnded
        from pipeline.model import TaskState

        if not isinstance(event, TaskEnded) or event.state in (TaskState.DONE, TaskState.PENDING):
            return
        if len(self.samples) < SAMPLES:
            self.samples.append(f"  {clipped(event.task_id, 100)} {event.state}: {clipped(event.reason, 200)}")

    def last_word(self, summary: "RunSummary", setup: "Setup") -> None:
        """Say what the run did, and what to do now."""
        is_well = summary.exit is Exit.OK
        place = setup.manifest.output_dir
        text = run_view.paragraph(
            summary,
            manifest=setup.command,
            selected=setup.command_of_selection,
            output_dir="" if self.is_quiet else os.path.relpath(place) if isinstance(place, Path) else str(place),
        )
        if self.is_json_log:
            if not is_well:
                _LOG.error("%s", text, extra={"event": "last_word", "fields": {"exit": int(summary.exit)}})
            self._say_cautions(summary.cautions)
        elif not self.is_quiet:
            run_view.say(text, terminal.console(is_stderr=True))
        elif not is_well or summary.cautions:
            cautions = [clipped(caution, 400) for caution in summary.cautions]
            run_view.say("\n".join([text, *self.samples, *cautions]), terminal.console(is_stderr=True))

    def _say_cautions(self, cautions: "Sequence[str]") -> None:
        """Log what a quiet run must say all the same; others have logged it as it came."""
        for caution in cautions if self.is_quiet else ():
            _LOG.error("%s", caution, extra={"event": "caution"})

    def not_begun(self, error: ImgpipeError) -> bool:
        """Log why a run did not begin or broke off; say whether that is enough for stderr too."""
        level = logging.ERROR if self.is_json_log else logging.INFO
        _LOG.log(level, "%s", error, extra={"event": "not_run", "fields": {"exit": int(error.exit_code)}})
        self._say_cautions(getattr(error, "__notes__", ()))
        return self.is_json_log

    def note(self, text: str) -> None:
        """Tell something a person may want to know."""
        _LOG.warning("%s", text, extra={"event": "warned", "fields": {"reason": text}})

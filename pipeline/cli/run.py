"""The verbs that spend (run, retry, redo), and how a run is shown: progress and logs while it lasts, its summary.

stderr carries sentences and progress; with `--log-format json` JSON lines and nothing else. With `-q` a run that ends
well is silent, and one that does not prints one paragraph. A log file gets every event in each case.
"""

import gc
import os
import select
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from pipeline.cli import flags as f
from pipeline.cli.terminal import dropping_unread, print_json
from pipeline.errors import Exit, ImgpipeError
from pipeline.text import clipped
from pipeline.view.console import is_redrawable, open_console, say

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from pipeline.app.context import Setup
    from pipeline.app.redo import Release
    from pipeline.engine.events import Event, Gauge, Listener, RunStarted, RunSummary
    from pipeline.view.progress import Mode


POLL_S: Final = 0.2
SAMPLES: Final = 3  # tasks named in the summary of a quiet run


@f.verb(f.manifest, f.selecting, f.deciding, f.running, f.as_json)
def run(**flags: Any) -> int:
    """Make the images of the manifest FILE that are missing or changed. The same command again continues.

    Every request is recorded before it is sent. An image that exists is never bought again; what an interrupted run
    had paid for is found and published by the next one. Ctrl-C once: nothing new is sent, requests in flight are
    awaited and their images saved. Twice: the run ends at once, and requests in flight become unknown, with their
    price.

    Before it spends more than $5 it asks on a terminal; elsewhere it needs --yes, --budget or a budget in the manifest.

    Exit code 0: everything asked for exists. 3: some tasks failed or were refused. 8, 10: a budget or --max-duration
    was reached, the rest is pending. 75: try later. 7: a person must act on key, credit or address.

    \b
    imgpipe run jobs/demo.yaml
    imgpipe run jobs/demo.yaml --simulate                              a rehearsal, for play money
    imgpipe run jobs/catalogue.yaml --select 'tag:summer' --first 3    three images first
    imgpipe run jobs/nightly.yaml -q --budget 20 --max-duration 50m    from cron
    """
    return _run(**flags)


@f.verb(f.manifest, f.selecting, f.deciding, f.running, f.as_json)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@f.switch("--failed", help="Tasks that failed.")
@f.switch("--refused", help="Tasks that the provider refused.")
@f.switch("--unknown", help="Tasks that may have been billed already: this may buy them twice.")
def retry(*, ids: tuple[str, ...], failed: bool, refused: bool, unknown: bool, **flags: Any) -> int:
    """Make tasks of FILE due again, then run them: by state, by id, or both.

    \b
    imgpipe retry jobs/demo.yaml --failed
    imgpipe retry jobs/demo.yaml posters/lisbon
    """
    from pipeline.app.redo import Release
    from pipeline.model import TaskState

    states = {TaskState.FAILED: failed, TaskState.REFUSED: refused, TaskState.UNKNOWN: unknown}
    named = frozenset(state for state, is_named in states.items() if is_named)
    if not named and not ids:
        raise click.UsageError("nothing to retry was named; write --failed, --refused, --unknown or task ids")
    return _run(retry=Release(states=named or frozenset(states), ids=ids), **flags)


@f.verb(f.manifest, f.picks, f.selecting, f.deciding, f.running, f.as_json)
@f.switch("--rejected", help="Images rejected on the contact sheet.")
@f.switch("--flagged", help="Images that a check flagged (`checks:`).")
def redo(*, rejected: bool, flagged: bool, picks: Path | None, **flags: Any) -> int:
    """Buy new images in place of rejected or flagged ones, and nothing else. Reject with `judge` or on the static page.

    A note that begins with + is added to the prompt of the new image: "+ the handle on the left".

    A new image replaces the old one, which moves to superseded/ in the state directory. If none comes, the old one
    stays. Each is a purchase like any other: it asks, counts against every budget and can be interrupted; the same
    command continues. An image that was replaced since it was rejected is not bought again.

    \b
    imgpipe judge jobs/demo.yaml                mark with r
    imgpipe redo jobs/demo.yaml --rejected
    imgpipe redo jobs/demo.yaml --rejected --picks ~/Downloads/picks.json
    """
    if rejected is flagged:
        raise click.UsageError("name what to redo; write --rejected or --flagged")

    def change(setup: "Setup", note: Callable[[str], None]) -> "Setup":
        from pipeline.app.redo import redo, redo_flagged

        changed, notes = redo_flagged(setup) if flagged else redo(setup, picks)
        for text in notes:
            note(text)
        return changed

    return _run(change=change, **flags)


def _run(
    *,
    file: Path | None,
    is_json: bool,
    quiet: bool,
    retry: "Release | None" = None,
    change: "Callable[[Setup, Callable[[str], None]], Setup]" = lambda setup, _note: setup,
    **flags: Any,
) -> int:
    from pipeline.app.locking import early_lock
    from pipeline.view import run as run_view

    if flags["workers"] is not None and flags["ray"] is None:
        raise click.UsageError("--workers needs a cluster; write --ray local, --ray auto or --ray HOST:PORT too")
    path, profile = f.file_and_profile(file, flags.pop("simulate"))
    display = RunDisplay(mode=flags.pop("progress"), is_quiet=quiet, is_json_log=flags.pop("log_format") == "json")
    display.set_up_log(is_verbose=flags.pop("verbose"), file=flags.pop("log_file"))
    confirm = _ask if sys.stdin and sys.stdin.isatty() and sys.stderr.isatty() else None
    gc.disable()  # until the run begins: what is made before stays, and to look through it again and again takes 30 ms
    try:
        with early_lock(path, simulate=profile is not None, wait_lock_s=flags["wait_lock_s"]) as lock:
            from pipeline.app import context  # the lock comes before what takes long to import
            from pipeline.app import run as app

            composed = f.compose_flags(profile=profile, is_counted=display.is_redrawn, **flags)
            setup = change(context.prepare(path, composed), display.note)
            summary = _driven(app.run(setup, watch=display, confirm=confirm, retry=retry, lock=lock))
    except ImgpipeError as error:
        display.log_not_run(error)
        if is_json:
            print_json(run_view.unrun_json(error))
        if not display.is_json_log:  # else the log has it
            raise
        return error.exit_code
    finally:
        gc.enable()
    display.show_summary(summary, setup)
    if is_json:
        print_json(run_view.run_json(summary))
    return summary.exit


def _driven(run: "Coroutine[Any, Any, RunSummary]") -> "RunSummary":
    """Run it on an event loop of its own.

    When the run is over, everything that lasts is written: a thread that still waits for a name server is not joined.
    """
    import asyncio

    from pipeline.pools import Threads

    with dropping_unread(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.get_loop().set_default_executor(Threads(thread_name_prefix="asyncio"))
        return runner.run(run)


def new_event_loop() -> "AbstractEventLoop":
    """Return an event loop of uvloop that looks up names in its executor.

    libuv's own threads are joined when a loop closes: with a name server that is silent, 20 s after the run was over.
    """
    import socket
    from functools import partial

    import uvloop  # 15 ms, which only who spends waits for

    class Loop(uvloop.Loop):
        async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> Any:
            return await self.run_in_executor(None, partial(socket.getaddrinfo, host, port, **how))

    return Loop()


def _ask(question: str) -> bool:
    """Ask on the terminal; only a yes is one.

    It polls: a signal between the question and the read would otherwise wait for a key.
    """
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    while not select.select([sys.stdin], [], [], POLL_S)[0]:
        pass
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# -- how a run is shown -------------------------------------------------------------------------------------------


def _log(level: Literal["error", "warning", "info"], event: str, text: str, **fields: object) -> None:
    import logging  # 10 ms, which `run --help` does not wait for

    from pipeline.view.logs import LOGGER

    getattr(logging.getLogger(LOGGER), level)("%s", text, extra={"event": event, "fields": fields})


@dataclass(slots=True, kw_only=True)
class RunDisplay:
    """What a person asked to see of a run."""

    mode: 'Literal["auto"] | Mode'
    is_quiet: bool
    is_json_log: bool
    samples: list[str] = field(default_factory=list)  # the first tasks that ended without an image

    def set_up_log(self, *, is_verbose: bool, file: Path | None) -> None:
        """Send the log where it belongs. Raises InputError when the file cannot be opened."""
        import logging

        from pipeline.view import logs  # late, as all views here: `run --help` shows none

        least = logging.INFO if self.is_json_log else logging.WARNING
        if is_verbose:
            least = logging.DEBUG
        elif self.is_quiet:
            least = logging.ERROR
        logs.set_up(level=least, style="json" if self.is_json_log else "text", file=file)

    @contextmanager
    def __call__(self, started: "RunStarted", gauge: "Callable[[], Gauge]") -> "Iterator[Listener]":
        """Show one run; from here on the garbage collector works, on what is made from here on."""
        from pipeline.view import logs
        from pipeline.view.progress import progress

        gc.freeze()
        gc.enable()
        console, journal = open_console(is_stderr=True), logs.Journal()
        if not (self.is_quiet or self.is_json_log):
            say(logs.resume_line(started), console)
        mode = self._mode(is_idle=not started.due)
        with progress(mode, total=started.due, gauge=gauge, console=console) as view:

            def listen(event: "Event") -> None:
                journal(event)
                view(event)
                self._remember(event)

            yield listen

    @property
    def is_redrawn(self) -> bool:
        """Whether lines of a terminal may be drawn over."""
        return self._mode(is_idle=False) == "rich"

    def _mode(self, *, is_idle: bool) -> "Mode":
        if self.is_quiet or is_idle or (self.is_json_log and self.mode == "auto"):
            return "none"
        if self.mode != "auto":
            return self.mode
        return "rich" if is_redrawable() else "plain"

    def _remember(self, event: "Event") -> None:
        from pipeline.engine.events import TaskEnded
        from pipeline.model import TaskState

        if not isinstance(event, TaskEnded) or event.state in (TaskState.DONE, TaskState.PENDING):
            return
        if len(self.samples) < SAMPLES:
            self.samples.append(f"  {clipped(event.task_id, 100)} {event.state}: {clipped(event.reason, 200)}")

    def show_summary(self, summary: "RunSummary", setup: "Setup") -> None:
        """Say what the run did, and what to do now."""
        from pipeline.view.run import paragraph

        is_well = summary.exit is Exit.OK
        place = setup.manifest.output_dir
        text = paragraph(
            summary,
            manifest=setup.command,
            selected=setup.command_of_selection,
            output_dir="" if self.is_quiet else os.path.relpath(place) if isinstance(place, Path) else str(place),
        )
        if self.is_json_log:
            if not is_well:
                _log("error", "last_word", text, exit=int(summary.exit))
            self._log_cautions(summary.cautions)
            return
        if self.is_quiet:
            text = "\n".join([text, *self.samples, *(clipped(caution, 400) for caution in summary.cautions)])
        if not self.is_quiet or not is_well or summary.cautions:
            say(text, open_console(is_stderr=True))

    def _log_cautions(self, cautions: "Iterable[str]") -> None:
        """Log what a quiet run must say all the same; others have logged it as it came."""
        for caution in cautions if self.is_quiet else ():
            _log("error", "caution", caution)

    def log_not_run(self, error: ImgpipeError) -> None:
        """Log why a run did not begin or broke off."""
        _log("error" if self.is_json_log else "info", "not_run", str(error), exit=int(error.exit_code))
        self._log_cautions(getattr(error, "__notes__", ()))

    def note(self, text: str) -> None:
        """Log a note for the person at the terminal."""
        _log("warning", "warned", text, reason=text)

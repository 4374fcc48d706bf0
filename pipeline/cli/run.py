"""The verbs that spend: run, retry, redo."""

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import flags as f
from pipeline.cli.pages import verb
from pipeline.errors import Exit

if TYPE_CHECKING:
    from pipeline.compose import Release, Setup
    from pipeline.engine.events import Event, Gauge, Listener, RunStarted, RunSummary


@verb
@f.manifest
@f.selecting
@f.deciding
@f.running
@f.as_json
def run(**flags: Any) -> int:
    """Make the images of the manifest FILE that are missing or changed. The same command again continues.

    Every request is written down before it is sent. An image that is there is never bought again; what an interrupted
    run had paid for is found and published by the next one. Ctrl-C once: nothing new is sent, what is in flight is
    awaited and saved. Twice: it leaves at once, and what was in flight is shown as unknown, with its price.

    Spending above $5 asks on a terminal; elsewhere it needs --yes, --budget or a budget in the manifest.

    Exit code 0: everything asked for exists. 3: some tasks failed or were refused. 8, 10: a budget or --max-duration
    was reached, the rest is pending. 75: try later. 7: a person must act on key, credit or address.

    \b
    imgpipe run jobs/demo.yaml
    imgpipe run jobs/demo.yaml --simulate                              a rehearsal, for play money
    imgpipe run jobs/catalogue.yaml --select 'tag:summer' --first 3    a first taste
    imgpipe run jobs/nightly.yaml -q --budget 20 --max-duration 50m    from cron
    """
    return _run(**flags)


@verb
@f.manifest
@click.argument("ids", nargs=-1)
@click.option("--failed", is_flag=True, help="Tasks that failed.")
@click.option("--refused", is_flag=True, help="Tasks the provider refused.")
@click.option("--unknown", is_flag=True, help="Tasks that may have been billed already: this may buy them twice.")
@f.selecting
@f.deciding
@f.running
@f.as_json
def retry(*, ids: tuple[str, ...], failed: bool, refused: bool, unknown: bool, **flags: Any) -> int:
    """Make tasks of FILE due again, then run them: by state, by id, or both.

    \b
    imgpipe retry jobs/demo.yaml --failed
    imgpipe retry jobs/demo.yaml posters/lisbon
    """
    from pipeline.compose import Release
    from pipeline.model import TaskState

    states = {TaskState.FAILED: failed, TaskState.REFUSED: refused, TaskState.UNKNOWN: unknown}
    named = frozenset(state for state, is_named in states.items() if is_named)
    if not named and not ids:
        raise click.UsageError("nothing to retry was named; write --failed, --refused, --unknown or task ids")
    return _run(retry=Release(states=named or frozenset(states), ids=ids), **flags)


@verb
@f.manifest
@click.option("--rejected", is_flag=True, help="The images rejected on the contact sheet.")
@f.picks
@f.selecting
@f.deciding
@f.running
@f.as_json
def redo(*, rejected: bool, picks: Path | None, **flags: Any) -> int:
    """Buy new images in place of those that were rejected on the contact sheet, and nothing else.

    A new image takes the place of the rejected one, which moves to superseded/ in the state directory. If none comes,
    the old one stays. Each is a purchase like any other: it asks, counts against every budget and can be interrupted;
    the same command continues. An image that was made anew already is not bought a third time.

    \b
    imgpipe report jobs/demo.yaml --open        mark with r, then Save picks
    imgpipe redo jobs/demo.yaml --rejected --picks ~/Downloads/picks.json
    """
    if not rejected:
        raise click.UsageError("nothing to redo was named; write --rejected")
    return _run(change=lambda setup: _redone(setup, picks), **flags)


def _redone(setup: "Setup", picks: Path | None) -> "Setup":
    from pipeline import compose

    redo = compose.redo(setup, picks)
    for note in redo.notes:
        print(f"note: {note}", file=sys.stderr)
    return redo.setup


def _same(setup: "Setup") -> "Setup":
    return setup


def _run(
    *,
    file: Path | None,
    is_json: bool,
    quiet: bool,
    retry: "Release | None" = None,
    change: "Callable[[Setup], Setup]" = _same,
    **flags: Any,
) -> int:
    from pipeline import compose, report

    path, profile = f.file_and_profile(file, flags.pop("simulate"))
    look = _Look(mode=flags.pop("progress"), is_quiet=quiet, is_json_log=flags["log_format"] == "json")
    _set_up_log(look, is_verbose=flags.pop("verbose"), style=flags.pop("log_format"), file=flags.pop("log_file"))
    setup = change(compose.prepare(path, f.compose_flags(profile=profile, **flags)))
    confirm = _ask if sys.stdin.isatty() and sys.stderr.isatty() else None
    summary = _driven(compose.run(setup, watch=look, confirm=confirm, retry=retry))
    if not (quiet and summary.exit is Exit.OK):
        print(report.paragraph(summary, manifest=str(path)), file=sys.stderr)
    if is_json:
        f.print_json(report.run_json(summary))
    return summary.exit


def _driven(run: "Coroutine[Any, Any, RunSummary]") -> "RunSummary":
    """Run on uvloop where it is installed (the extra `fast`), else on Python's own event loop."""
    import asyncio

    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run)


def _set_up_log(look: "_Look", *, is_verbose: bool, style: Any, file: Path | None) -> None:
    import logging

    from pipeline import report

    quiet_or_events = logging.INFO if look.is_json_log and not look.is_quiet else logging.WARNING
    report.set_up(level=logging.DEBUG if is_verbose else quiet_or_events, style=style, file=file)


def _ask(question: str) -> bool:
    return bool(click.confirm(question, err=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """How a run is shown: progress on stderr, and every event to the log."""

    mode: Any
    is_quiet: bool
    is_json_log: bool

    @contextmanager
    def __call__(self, started: "RunStarted", gauge: "Callable[[], Gauge]") -> "Iterator[Listener]":
        from rich.console import Console

        from pipeline import report

        mode: report.Mode = "none" if self.is_json_log and self.mode == "auto" else self.mode
        journal = report.Journal()
        if not (self.is_quiet or self.is_json_log):
            print(report.resume_line(started), file=sys.stderr)
        view = report.progress(
            mode, total=started.due, gauge=gauge, console=Console(stderr=True), is_quiet=self.is_quiet
        )

        def listen(event: "Event") -> None:
            journal(event)
            view(event)

        with view:
            yield listen

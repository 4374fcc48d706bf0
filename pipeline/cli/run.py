"""The verbs that spend: run, retry, redo."""

import gc
import select
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.cli import flags as f
from pipeline.cli.flags import verb
from pipeline.errors import ImgpipeError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from pipeline.app.context import Setup
    from pipeline.app.redo import Release
    from pipeline.cli.display import RunDisplay
    from pipeline.engine.events import Gauge, Listener, RunStarted, RunSummary


TURN_S: Final = 0.2


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
    from pipeline.app.redo import Release
    from pipeline.model import TaskState

    states = {TaskState.FAILED: failed, TaskState.REFUSED: refused, TaskState.UNKNOWN: unknown}
    named = frozenset(state for state, is_named in states.items() if is_named)
    if not named and not ids:
        raise click.UsageError("nothing to retry was named; write --failed, --refused, --unknown or task ids")
    return _run(retry=Release(states=named or frozenset(states), ids=ids), **flags)


@verb
@f.manifest
@click.option("--rejected", is_flag=True, help="The images rejected on the contact sheet.")
@click.option("--flagged", is_flag=True, help="The images in which a check found something (`checks:`).")
@f.picks
@f.selecting
@f.deciding
@f.running
@f.as_json
def redo(*, rejected: bool, flagged: bool, picks: Path | None, **flags: Any) -> int:
    """Buy new images in place of those that were rejected with `judge` or on the static page, and nothing else.

    A note that begins with + is added to the prompt of the new image: "+ the handle on the left".

    A new image takes the place of the rejected one, which moves to superseded/ in the state directory. If none comes,
    the old one stays. Each is a purchase like any other: it asks, counts against every budget and can be interrupted;
    the same command continues. An image that was made anew already is not bought a third time.

    \b
    imgpipe judge jobs/demo.yaml                mark with r
    imgpipe redo jobs/demo.yaml --rejected
    imgpipe redo jobs/demo.yaml --rejected --picks ~/Downloads/picks.json
    """
    if rejected is flagged:
        raise click.UsageError("name what to redo; write --rejected or --flagged")

    def change(setup: "Setup", note: Callable[[str], None]) -> "Setup":
        from pipeline.app import redo as app_redo

        redo = app_redo.redo_flagged(setup) if flagged else app_redo.redo(setup, picks)
        for text in redo.notes:
            note(text)
        return redo.setup

    return _run(change=change, **flags)


def _same(setup: "Setup", _note: Callable[[str], None]) -> "Setup":
    return setup


def _run(
    *,
    file: Path | None,
    is_json: bool,
    quiet: bool,
    retry: "Release | None" = None,
    change: "Callable[[Setup, Callable[[str], None]], Setup]" = _same,
    **flags: Any,
) -> int:
    from pipeline.app.locking import early_lock
    from pipeline.cli.display import RunDisplay
    from pipeline.view import run as view

    if flags["workers"] is not None and flags["ray"] is None:
        raise click.UsageError("--workers are those of a cluster; write --ray local, --ray auto or --ray HOST:PORT too")
    path, profile = f.file_and_profile(file, flags.pop("simulate"))
    display = RunDisplay(mode=flags.pop("progress"), is_quiet=quiet, is_json_log=flags.pop("log_format") == "json")
    display.set_up_log(is_verbose=flags.pop("verbose"), file=flags.pop("log_file"))
    confirm = _ask if sys.stdin and sys.stdin.isatty() and sys.stderr.isatty() else None
    gc.disable()  # until the run begins: what is made before stays, and to look through it again and again takes 30 ms
    try:
        with early_lock(path, simulate=profile is not None, wait_lock_s=flags["wait_lock"]) as lock:
            from pipeline.app import context  # the lock comes before what takes long to import
            from pipeline.app import run as app

            setup = change(context.prepare(path, f.compose_flags(profile=profile, **flags)), display.note)
            summary = _driven(app.run(setup, watch=partial(_begun, display), confirm=confirm, retry=retry, lock=lock))
    except ImgpipeError as error:
        is_told = display.not_begun(error)
        if is_json:
            f.print_json(view.unrun_json(error))
        if not is_told:
            raise
        return error.exit_code
    finally:
        gc.enable()
    display.last_word(summary, setup)
    if is_json:
        f.print_json(view.run_json(summary))
    return summary.exit


@contextmanager
def _begun(display: "RunDisplay", started: "RunStarted", gauge: "Callable[[], Gauge]") -> "Iterator[Listener]":
    """Show the run; the garbage collector is let loose on what comes from here on, and on nothing older."""
    gc.freeze()
    gc.enable()
    with display(started, gauge) as listen:
        yield listen


def _driven(run: "Coroutine[Any, Any, RunSummary]") -> "RunSummary":
    """Run it on an event loop of its own.

    When the run is over, everything that lasts is written: a thread that still asks a name server is not waited for.
    """
    import asyncio

    from pipeline.pools import Threads

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.get_loop().set_default_executor(Threads(thread_name_prefix="asyncio"))
        return runner.run(run)


def new_event_loop() -> "AbstractEventLoop":
    """Return an event loop of uvloop; on Windows, where there is none, of Python."""
    if sys.platform == "win32":
        import asyncio

        return asyncio.new_event_loop()
    import os

    os.environ.setdefault("UV_THREADPOOL_SIZE", "2")  # libuv looks up names in them; each reserves 8 MB of stack
    import uvloop  # 15 ms, which only who spends waits for

    return uvloop.new_event_loop()


def _ask(question: str) -> bool:
    """Ask on the terminal; only a yes is one.

    It waits in turns: a signal that comes between the question and the read would else wait for a key.
    """
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    while not select.select([sys.stdin], [], [], TURN_S)[0]:
        pass
    return sys.stdin.readline().strip().lower() in ("y", "yes")

"""Entry point: finds the verb, calls it, turns every ending into an exit code.

Expected errors print `imgpipe: ...` with the next step and no traceback. Anything else is a bug: it keeps its
traceback, and says that what was paid is safe. Verbs are imported when they are called, so that `imgpipe --help`
starts in the time of click alone.
"""

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import click
from click.exceptions import Exit as ClickExit

from pipeline import __version__
from pipeline.cli import terminal
from pipeline.cli.flags import WIDTH, Context, Page
from pipeline.cli.terminal import flush_results, has_reader_left, mute, repair_streams
from pipeline.errors import Exit, ImgpipeError
from pipeline.text import nearest, visible

OF_THE_DISK: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOTCONN, errno.ESTALE, errno.EMFILE, errno.ENFILE}
)
BUG: Final = (
    f"This is a bug in imgpipe {__version__}; the traceback says where. Nothing that was paid is lost: every request"
    " is in the ledger of the state directory, and the same command continues from there."
)


def exit_code(command: Callable[[], Any], args: Sequence[str]) -> int:
    """Run a command and return its exit code; whatever it raises is printed on stderr."""
    try:
        _make_printable()
        _check_text(args)
        return int(command() or 0)
    except ClickExit as stop:
        return int(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except click.ClickException as error:
        _show_usage(error)
        return Exit.USAGE
    except ImgpipeError as error:
        _say(str(error))
        return error.exit_code
    except SystemExit as stop:  # of click, for a broken pipe: `imgpipe --help | true`
        if not has_reader_left():
            return int(stop.code or 0)
        mute(sys.stdout)
        return Exit.OK
    except OSError as error:
        name = None if isinstance(error.filename, int) else error.filename  # the number of an open file
        if name is None and error.errno not in OF_THE_DISK:
            return _bug()
        where = "" if name is None else f"{os.fsdecode(name)}: "
        _say(f"{where}{error.strerror}; fix that, then run the same command")
        return Exit.STORAGE
    except Exception:  # seen by the person at the terminal, with its traceback
        return _bug()


def _make_printable() -> None:
    """Let names be printed that are no text in this locale, as the bytes they are or as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            is_utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if is_utf8 and stream is sys.stdout else "backslashreplace")


def _check_text(args: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8, unless they name a file: names are bytes, everything else is text."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            if not os.path.lexists(arg):
                shown = arg.encode("utf-8", "backslashreplace").decode()
                raise click.UsageError(f"the argument {shown} is not UTF-8; write it in UTF-8") from None


def _show_usage(error: click.ClickException) -> None:
    """Print a mistake in the command itself, below its usage."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        click.echo(context.get_usage(), file=sys.stderr, color=context.color)
        print(f"Try '{context.command_path} --help'.\n", file=sys.stderr)
    if isinstance(error, click.NoSuchOption) and error.option_name == "--dry-run":
        _say("No such option '--dry-run'; imgpipe plan FILE shows what a run would do, and for how much")
        return
    _say(error.format_message().expandtabs(2))  # click sets choices in with tabs


def _say(text: str) -> None:
    print("imgpipe: " + "\n".join(map(visible, text.splitlines())), file=sys.stderr)


def _bug() -> int:
    import traceback

    traceback.print_exc()
    print(f"imgpipe: {BUG}", file=sys.stderr)
    return Exit.BUG


TOPICS: Final = {  # in the order people meet them; verb -> (module, what it does)
    "Write": {
        "init": ("author", "Write a commented manifest to start from."),
        "validate": ("author", "Check manifests; list every problem with its place."),
    },
    "Make": {
        "plan": ("inspect", "Show what a run would do, why, and for how much."),
        "run": ("run", "Make the images that are missing or changed."),
        "retry": ("run", "Retry failed, refused or unknown tasks."),
        "redo": ("run", "Buy new images in place of rejected or flagged ones."),
    },
    "Inspect": {
        "status": ("inspect", "Show tasks by state, money spent, unknowns."),
        "report": ("inspect", "Write the contact sheet: one static page."),
        "judge": ("inspect", "Pick, reject and annotate images in a browser."),
        "explain": ("inspect", "Show where an image comes from."),
        "cost": ("inspect", "Sum costs by job, model or day."),
        "export": ("inspect", "Copy the images that were picked."),
    },
    "Maintain": {
        "verify": ("maintenance", "Hash every image and compare it with the ledger."),
        "rebuild": ("maintenance", "Rebuild the ledger from the files on disk."),
        "rejected": ("maintenance", "List answers that could not be published; parse them again."),
        "settle": ("maintenance", "Record unknown requests as billed or free."),
        "prune": ("maintenance", "List files that are no longer needed; remove them with -y."),
    },
    "Tools": {
        "doctor": ("maintenance", "Check Python, key, address, disk and clock."),
        "simulate": ("author", "Serve a simulator of the API on this machine."),
        "schema": ("author", "Print the manifest's JSON Schema."),
        "completion": ("author", "Print the completion script for a shell."),
    },
}
VERBS: Final = {name: verb for verbs in TOPICS.values() for name, verb in verbs.items()}
EXAMPLES: Final = (
    "imgpipe init jobs/first.yaml             a manifest to start from",
    "imgpipe plan jobs/first.yaml             what a run would do, and for how much",
    "imgpipe run jobs/first.yaml --simulate   a rehearsal, for play money",
    "imgpipe run jobs/first.yaml              the same command again continues",
)
EXITS: Final = (
    "0 everything asked for exists    2 fix the manifest or the command    3 some tasks failed",
    "5 disk or ledger    7 key, credit or address    8 budget reached    10 time is over",
    "75 try later    130, 143 stopped by a signal    1 a bug",
)


class Verbs(click.Group):
    """A group that imports a verb's module when it is called, and suggests the nearest name for a mistyped one."""

    context_class = Context
    is_listing = False  # for completion: names and one-line helps only

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's form
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's form
        if cmd_name not in VERBS:
            return None
        module, text = VERBS[cmd_name]
        if self.is_listing:
            return click.Command(cmd_name, help=text, short_help=text)
        command: click.Command = getattr(importlib.import_module(f"pipeline.cli.{module}"), cmd_name)
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by topic, then what is the same for all of them."""
        width = max(map(len, VERBS))
        for topic, verbs in TOPICS.items():
            with formatter.section(topic):
                formatter.write_dl([(f"{name:<{width}}", text) for name, (_, text) in verbs.items()])
        records = [record for param in self.get_params(ctx) if (record := param.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl([("VERB --help", "What a verb does, its options, examples."), *records])
        if isinstance(formatter, Page):
            formatter.write_lines("Getting started", EXAMPLES)
            formatter.write_lines("Exit codes", EXITS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[click.shell_completion.CompletionItem]":
        self.is_listing = True
        return super().shell_complete(ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Call a verb; a reader that has left is no failure of it (click would call it one, rich exits)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            if not has_reader_left():
                raise
            mute(sys.stdout)
            return Exit.OK
        except SystemExit:  # rich has muted stdout; nothing else here raises it
            return Exit.OK

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for a mistyped one the error names the nearest."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = nearest(args[0], VERBS)
            advice = f"did you mean {near!r}?" if near else f"the verbs are {', '.join(VERBS)}"
            ctx.fail(f"No such verb {args[0]!r}; {advice}")
        return super().resolve_command(ctx, args)


@click.command(
    cls=Verbs,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
)
@click.version_option(__version__, "--version", prog_name="imgpipe", message="%(prog)s %(version)s")
def cli() -> None:
    """Make images in bulk through a paid API: nothing paid is lost, nothing is bought twice knowingly."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with one of `Exit`."""
    if args is None:
        terminal.ensure_utf8()
    repair_streams()
    given = sys.argv[1:] if args is None else list(args)
    # https://no-color.org; None: pages and errors are coloured on a terminal
    color = False if os.environ.get("NO_COLOR") else True if os.environ.get("FORCE_COLOR") else None

    def call() -> Any:
        if args is None:
            terminal.handle_interrupts()
        return cli.main(args=given, prog_name="imgpipe", standalone_mode=False, color=color)

    code = exit_code(call, given)
    if args is not None:
        sys.exit(flush_results(code))
    terminal.end_on_next_signal(code)
    terminal.end_process(flush_results(code))

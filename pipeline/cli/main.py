"""The door: finds the verb, calls it, turns every ending into an exit code.

Verbs are imported when they are called, so `imgpipe --help` starts in the time of click alone.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from pipeline import __version__
from pipeline.cli import interrupts, utf8
from pipeline.cli.endings import exit_code
from pipeline.cli.pages import WIDTH, Context, Page
from pipeline.cli.streams import has_reader_left, leave, mute, settle
from pipeline.errors import Exit

VERBS: Final = {  # verb -> (module, what it does)
    "init": ("author", "Write a commented manifest to start from."),
    "validate": ("author", "Check manifests; list every problem with its place."),
    "plan": ("plan", "Show what a run would do, why, and for how much."),
    "run": ("run", "Make the images that are missing or changed."),
    "retry": ("run", "Ask again for what failed, was refused or is unknown."),
    "redo": ("run", "Buy new images in place of rejected ones."),
    "status": ("look", "Show tasks by state, money spent, unknowns."),
    "report": ("look", "Write the contact sheet: one static page."),
    "judge": ("look", "Pick, reject and annotate images in a browser."),
    "explain": ("look", "Tell where an image comes from."),
    "cost": ("look", "Sum up money by job, model or day."),
    "export": ("look", "Copy the images that were picked."),
    "verify": ("upkeep", "Hash every image again and compare."),
    "rebuild": ("upkeep", "Make a ledger from the files on disk."),
    "rejected": ("upkeep", "List answers that could not be published; read them again."),
    "settle": ("upkeep", "Write down what the provider said of unknown requests."),
    "doctor": ("upkeep", "Check Python, key, address, disk and clock."),
    "simulate": ("simulate", "Serve the API on this machine, for rehearsal."),
    "schema": ("author", "Print the manifest's JSON Schema."),
    "completion": ("author", "Print the completion script for a shell."),
}
TOPICS: Final = {  # in the order people meet them
    "Write": ("init", "validate"),
    "Make": ("plan", "run", "retry", "redo"),
    "Look": ("status", "report", "judge", "explain", "cost", "export"),
    "Keep": ("verify", "rebuild", "rejected", "settle"),
    "Around": ("doctor", "simulate", "schema", "completion"),
}
EXAMPLES: Final = (
    "imgpipe init jobs/first.yaml             a manifest to start from",
    "imgpipe plan jobs/first.yaml             what a run would do, and for how much",
    "imgpipe run jobs/first.yaml --simulate   a rehearsal, for play money",
    "imgpipe run jobs/first.yaml              the same command again continues",
)
EXITS: Final = (
    "0 everything asked for exists    2 mend the manifest or the command    3 some tasks failed",
    "5 disk or ledger    7 key, credit or address    8 budget reached    10 time is over",
    "75 try later    130, 143 stopped by a signal    1 a bug",
)


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is called, and knows the nearest name of a mistyped one."""

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
        for topic, names in TOPICS.items():
            with formatter.section(topic):
                formatter.write_dl([(f"{name:<{width}}", VERBS[name][1]) for name in names])
        records = [record for param in self.get_params(ctx) if (record := param.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl([("VERB --help", "What a verb does, its options, examples."), *records])
        if isinstance(formatter, Page):
            formatter.write_lines("Begin with", EXAMPLES)
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
        """Find the verb; a mistyped one is told which is nearest."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}"
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
        utf8.ensure()
        interrupts.settle()
    settle()
    given = sys.argv[1:] if args is None else list(args)
    code = exit_code(lambda: cli.main(args=given, prog_name="imgpipe", standalone_mode=False, color=_color()), given)
    if args is not None:
        sys.exit(leave(code))
    interrupts.hasten(code)
    interrupts.leave(leave(code))


def _color() -> bool | None:
    """Return whether pages and errors are coloured; None: on a terminal (https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None

"""The door: finds the verb, calls it, turns every ending into an exit code.

Verbs are imported when they are called, so `imgpipe --help` starts in the time of click alone.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import rich_click as click
from click.exceptions import Exit as ClickExit

from pipeline import __version__
from pipeline.errors import Exit, ImgpipeError

VERBS: Final = {  # verb -> (module, what it does); in the order people meet them
    "init": ("author", "Write a commented manifest to start from."),
    "validate": ("author", "Check manifests; list every problem with its place."),
    "plan": ("plan", "Show what a run would do, why, and for how much."),
    "run": ("run", "Make the images that are missing or changed."),
    "status": ("look", "Show tasks by state, money spent, unknowns."),
    "retry": ("run", "Make failed, refused or unknown tasks due again and run them."),
    "redo": ("run", "Make new variants of the images that were rejected."),
    "report": ("look", "Write the contact sheet: one static page."),
    "export": ("look", "Copy the images that were picked."),
    "explain": ("look", "Tell where an image comes from."),
    "cost": ("look", "Sum up money by job, model or day."),
    "verify": ("upkeep", "Hash every image again and compare."),
    "rebuild": ("upkeep", "Make a ledger from the files on disk."),
    "rejected": ("upkeep", "List answers that could not be published; try again to read them."),
    "simulate": ("simulate", "Serve the API on this machine, for rehearsal."),
    "schema": ("author", "Print the manifest's JSON Schema."),
    "doctor": ("upkeep", "Check Python, key, address, disk and clock."),
    "completion": ("author", "Print the completion script for a shell."),
}


class Verbs(click.RichGroup):
    """A group that imports a verb's module when the verb is called, and knows the nearest name of a mistyped one."""

    is_listing = False  # the help page needs names and one-line helps only

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.is_listing = True
        super().format_help(ctx, formatter)  # type: ignore[arg-type] # rich-click narrows its own formatter

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in VERBS:
            return None
        if self.is_listing:
            return click.Command(name, help=VERBS[name][1])
        module = importlib.import_module(f"pipeline.cli.{VERBS[name][0]}")
        command: click.Command = getattr(module, name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}"
            ctx.fail(f"No such verb {args[0]!r}; {advice}")
        return super().resolve_command(ctx, args)


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="imgpipe")
def cli() -> None:
    """Make images in bulk through a paid API: nothing paid is lost, nothing is bought twice knowingly.

    Start with `imgpipe init jobs/first.yaml`, then `imgpipe plan jobs/first.yaml` and `imgpipe run jobs/first.yaml`.
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with one of `Exit`."""
    sys.exit(_exit_code(args))


def _exit_code(args: Sequence[str] | None) -> int:
    try:
        result = cli.main(args=args, prog_name="imgpipe", standalone_mode=False)
    except ClickExit as stop:
        return int(stop.exit_code)
    except click.Abort:
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except ImgpipeError as error:
        print(f"imgpipe: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has left: `imgpipe status | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    return int(result or 0)

r"""The flags that verbs share, their conversion to settings, and the layout of help pages.

A verb's docstring is its help page: paragraphs, and after a line with `\b` examples, kept as they are written. Drawn by
click alone: with rich, a page took five times as long to appear.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from pipeline.text import parse_duration, parse_usd

if TYPE_CHECKING:
    from pipeline.app.context import Flags, Setup


EXAMPLES: Final = "\b"
WIDTH: Final = 100
TOPICS: Final = {  # options by topic, in the order of a page; what is in none comes first
    "Which tasks": ("select", "exclude", "is_strict_select", "first", "sample", "seed"),
    "Which images are made again": ("force", "repair", "accept"),
    "Budget, rate and time": (
        "pilot",
        "budget_microusd",
        "is_yes",
        "concurrency",
        "rpm",
        "max_duration_s",
        "drain_s",
        "wait_lock_s",
        "is_now",
    ),
    "Many machines": ("ray", "workers"),
    "Output and logs": ("quiet", "verbose", "progress", "log_format", "log_file", "is_json"),
    "The manifest": ("variables", "allow_env", "simulate"),
}


class Page(click.HelpFormatter):
    """A formatter whose headings stand out on a terminal."""

    def write_heading(self, heading: str) -> None:
        super().write_heading(click.style(heading, bold=True))

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, prefix or click.style("Usage: ", bold=True))

    def write_lines(self, heading: str, lines: Iterable[str]) -> None:
        """Write lines as they are under a heading; one that is too long is left to the terminal."""
        with self.section(heading):
            for line in lines:
                self.write(f"{'':>{self.current_indent}}{line}\n")


class Context(click.Context):
    """A context whose help is a `Page`."""

    formatter_class = Page


class Verb(click.Command):
    """A command whose page ends in examples."""

    context_class = Context

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        text, _, examples = (self.help or "").partition(EXAMPLES)
        self.help = text.strip()
        self.examples = [line.strip() for line in examples.strip().splitlines()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section for each topic."""
        topic_of = {name: topic for topic, names in TOPICS.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], **{topic: [] for topic in TOPICS}}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections[topic_of.get(param.name or "", "Options")].append(record)
        if len(sections["Options"]) == 1 and any(sections[topic] for topic in TOPICS):  # the help option alone
            last = next(topic for topic in reversed(TOPICS) if sections[topic])
            sections[last] += sections.pop("Options")
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's form
        if self.examples and isinstance(formatter, Page):
            formatter.write_lines("Examples", self.examples)


Command = TypeVar("Command", bound=Callable[..., Any])


class LocalPath(click.Path):
    """A path on this machine; the address of a bucket would silently become a folder named `s3:`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pipeline.manifest.location import is_address  # late: `imgpipe --version` reads no manifest

        if is_address(os.fspath(value)):
            self.fail("this is an address: name a path on this machine", param, ctx)
        return super().convert(value, param, ctx)


FILE: Final = LocalPath(path_type=Path)


class Location(click.ParamType[Path | str]):
    """A path on this machine, or the address of an object."""

    name = "location"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        from pipeline.manifest.location import is_address  # late: as above

        return str(value) if is_address(os.fspath(value)) else cast("Path", FILE.convert(value, param, ctx))


class Duration(click.ParamType[float]):
    """Seconds, or text such as `90s`, `50m`, `1h30m`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        seconds = parse_duration(text)
        if seconds is None:
            self.fail(f"{value!r} is not a duration; write seconds (90) or a unit (90s, 50m, 1h30m)", param, ctx)
        return seconds


class Dollars(click.ParamType[int]):
    """A sum in US dollars; becomes integer micro-dollars."""

    name = "usd"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_usd(str(value).removeprefix("$"))
        except ValueError as error:
            self.fail("; ".join(error.args), param, ctx)


def _apply(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def wrap(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return wrap


def verb(*shared: Callable[[Any], Any]) -> Callable[[Callable[..., int]], click.Command]:
    """Make a verb of a function: its name, its docstring, the exit code it returns; shared options beside its own."""
    return lambda function: click.command(cls=Verb)(_apply(*shared)(function))


ACCEPTED: Final = ("prompt", "inputs", "params", "model", "edited", "absent", "refused")


def _accepted(_context: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> frozenset[str]:
    """Split `--accept edited,absent`."""
    words = [word.strip() for value in values for word in value.split(",")]
    for word in words:
        if word not in ACCEPTED:
            raise click.UsageError(f"--accept {word!r} is not known; write any of {', '.join(ACCEPTED)}")
    return frozenset(words)


def _variables(_context: click.Context, _param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """Split `K=V` pairs."""
    for pair in pairs:
        if "=" not in pair:
            raise click.UsageError(f"--var {pair} has no value; write --var {pair}=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


# An option's parameter has the name of the field of `app.context.Flags` or `plan.selection.Selection` that it sets.
COUNT: Final = click.IntRange(min=1)
MANY: Final = click.IntRange(1, 10_000)
PORT: Final = click.IntRange(0, 65_535)
switch: Final = partial(click.option, is_flag=True)
repeated: Final = partial(click.option, multiple=True)
number: Final = partial(click.option, type=COUNT, metavar="N")
span: Final = partial(click.option, type=Duration(), metavar="TIME")

manifest = click.argument("file", type=FILE, required=False, metavar="FILE")  # see `file_and_profile`
wait_lock = span("--wait-lock", "wait_lock_s", default=0.0, help="Wait up to this long for another run to end.")
as_json = switch("--json", "is_json", help="Print the result as JSON on stdout.")
picks = click.option(
    "--picks",
    type=FILE,
    metavar="FILE",
    help="Picks file, merged with the marks of judge; default: report/picks.json beside the images.",
)
variables = _apply(
    repeated("--var", "variables", metavar="K=V", callback=_variables, help="Set vars.K; may be repeated."),
    repeated(
        "--allow-env",
        metavar="NAME",
        callback=lambda _context, _param, names: frozenset(names),
        help="Let vars read this environment variable although its name looks like that of a secret.",
    ),
)
locating = _apply(
    variables,
    click.option(
        "--simulate",
        is_flag=False,
        flag_value="",
        default=None,
        metavar="[PROFILE]",
        help="Rehearse on the built-in simulator: play money, directories of its own (-simulated). PROFILE: a file,"
        " or busy, calm, quick or stormy.",
    ),
)
selecting = _apply(
    repeated(
        "--select",
        metavar="PATTERN",
        help="Only tasks that match: an id or a pattern such as 'mugs/*', job:NAME, tag:NAME, state:NAME (also"
        " missing, orphaned), flag:NAME, mark:picked (or rejected, none). May be repeated.",
    ),
    repeated("--exclude", metavar="PATTERN", help="Leave out tasks that match."),
    switch("--strict-select", "is_strict_select", help="A pattern that matches nothing is an error."),
    number("--first", help="Only the first N selected tasks."),
    number("--sample", help="N of the selected tasks, chosen at random."),
    click.option("--seed", type=int, default=0, metavar="S", help="Seed of --sample: the same seed, the same tasks."),
    locating,
)
deciding = _apply(
    switch("--force", help="Replace edited images too; the edited files move to superseded/."),
    switch("--repair", help="Buy images again that are missing or were changed."),
    repeated(
        "--accept",
        callback=_accepted,
        metavar="WHAT",
        help="Accept a difference instead of buying again: a changed prompt, inputs, params or model; images that a"
        " person edited or removed (edited, absent); refusals (refused). Several with commas. plan shows the effect,"
        " run records it.",
    ),
    click.option(
        "--budget",
        "budget_microusd",
        type=Dollars(),
        metavar="USD",
        help="Spend at most this in the run, such as 20 or 0.50.",
    ),
    number("-j", "--concurrency", type=MANY, help="At most N requests in flight."),
    number("--rpm", type=click.FloatRange(min=0, min_open=True), help="At most N requests in any minute."),
)
cluster = click.option(
    "--ray", metavar="ADDRESS", help="Send from a Ray cluster: auto or HOST:PORT; local starts Ray on this machine."
)
running = _apply(
    number(
        "--pilot",
        help="Buy N tasks spread over jobs and axes, say what the rest will cost and take, and end with exit code 8.",
    ),
    switch("--now", "is_now", help="Send although the provider asked to wait (status shows why)."),
    span("--max-duration", "max_duration_s", help="Send nothing new after this time (50m); exit code 10."),
    span(
        "--drain",
        "drain_s",
        default=25.0,
        help="After SIGTERM, wait up to this long for requests in flight (default 25s).",
    ),
    switch("-y", "--yes", "is_yes", help="Do not ask before spending more than $5."),
    wait_lock,
    cluster,
    number("--workers", type=MANY, help="Number of sender processes (default: one per node; local: one per core)."),
    switch("-q", "--quiet", help="Print nothing when all is well: for cron."),
    switch("-v", "--verbose", help="Log every attempt."),
    click.option(
        "--progress",
        type=click.Choice(["auto", "rich", "plain", "none"]),
        default="auto",
        help="auto: a live view on a terminal, a line every 10 s elsewhere.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="text: lines for people; json: every event as an object, for programs.",
    ),
    click.option("--log-file", type=FILE, metavar="FILE", help="Append the log to FILE too."),
)


def file_and_profile(file: Path | None, simulate: str | None) -> tuple[Path, str | None]:
    """Distinguish FILE from the optional value of `--simulate`: in `run --simulate jobs/a.yaml` the word is FILE."""
    if file is None and simulate and Path(simulate).is_file():
        return Path(simulate), ""
    if file is None:
        raise click.UsageError("Missing argument 'FILE'; name a manifest, such as jobs/demo.yaml")
    return file, simulate


def compose_flags(
    *,
    profile: str | None = None,
    select: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    first: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    force: bool = False,
    repair: bool = False,
    accept: frozenset[str] = frozenset(),
    is_counted: bool = True,
    **others: Any,
) -> "Flags":
    """Return the flags as `app` takes them; `profile` is the value of `--simulate`, None when it was not given.

    `is_counted`: a terminal may show how many tasks were read.
    """
    from pipeline.app.context import Flags
    from pipeline.model import Aspect, Edit
    from pipeline.plan.decide import Rules
    from pipeline.plan.selection import Selection
    from pipeline.view.console import counted, is_redrawable

    return Flags(
        selection=Selection(select=select, exclude=exclude, first=first, sample=sample, seed=seed),
        rules=Rules(
            force=force,
            repair=repair,
            accept=frozenset(aspect for aspect in Aspect if aspect in accept),
            edits=frozenset(edit for edit in Edit if edit in accept),
            accept_refused="refused" in accept,
        ),
        simulate=profile is not None,
        profile=profile or None,
        counted=partial(counted, file=sys.stderr) if is_counted and is_redrawable() else iter,
        **others,
    )


def prepare(file: Path | None, *, simulate: str | None, **flags: Any) -> "Setup":
    """Load the manifest FILE with the flags of a verb. Raises InputError with every problem of it."""
    from pipeline.app import context

    path, profile = file_and_profile(file, simulate)
    return context.prepare(path, compose_flags(profile=profile, **flags))

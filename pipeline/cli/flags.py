r"""The flags that verbs share, their conversion to settings, and the layout of help pages.

A verb's docstring is its help page: paragraphs, and after a line with `\b` examples, kept as they are written. Drawn by
click alone: with rich, a page took five times as long to appear.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from pipeline.text import parse_duration, parse_usd

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from pipeline.app.context import Flags, Setup


EXAMPLES: Final = "\b"
WIDTH: Final = 100
TOPICS: Final = {  # options by topic, in the order of a page; what is in none comes first
    "Which tasks": ("select", "exclude", "is_strict_select", "first", "sample", "seed"),
    "Which images are made again": ("force", "repair", "accept"),
    "Budget, rate and time": (
        "pilot",
        "budget",
        "is_yes",
        "concurrency",
        "rpm",
        "max_duration",
        "drain",
        "wait_lock",
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
    """A context whose pages are ours."""

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
        """Write the examples."""
        if self.examples and isinstance(formatter, Page):
            formatter.write_lines("Examples", self.examples)


def verb(function: Callable[..., int]) -> click.Command:
    """Make a verb of a function: its name, its docstring, the exit code it returns."""
    return click.command(cls=Verb)(function)


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
        """Return seconds."""
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
        """Return micro-dollars."""
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


manifest = click.argument("file", type=FILE, required=False, metavar="FILE")  # see `file_and_profile`
wait_lock = click.option(
    "--wait-lock", type=Duration(), default=0.0, metavar="TIME", help="Wait this long for another run to end."
)
as_json = click.option("--json", "is_json", is_flag=True, help="One JSON document on stdout, for programs.")
picks = click.option(
    "--picks",
    type=FILE,
    metavar="FILE",
    help="Picks file, merged with the marks of judge; default: report/picks.json beside the images.",
)
variables = _apply(
    click.option("--var", "variables", multiple=True, metavar="K=V", help="Set vars.K; repeat it for more than one."),
    click.option(
        "--allow-env",
        multiple=True,
        metavar="NAME",
        help="Let `vars` read this environment variable although its name looks like a secret's.",
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
        help="Use the built-in simulator, play money, and directories of its own (-simulated). PROFILE: a file or a"
        " built-in name.",
    ),
)
selecting = _apply(
    click.option(
        "--select",
        multiple=True,
        metavar="PATTERN",
        help="Only tasks that match: an id such as 'mugs/*', job:NAME, tag:NAME, state:NAME (also"
        " missing, orphaned), mark:picked (or rejected,"
        " none). Repeat it for more.",
    ),
    click.option("--exclude", multiple=True, metavar="PATTERN", help="All tasks but those that match."),
    click.option(
        "--strict-select", "is_strict_select", is_flag=True, help="A pattern that matches nothing is an error."
    ),
    click.option("--first", type=click.IntRange(min=1), metavar="N", help="Only the first N of them."),
    click.option("--sample", type=click.IntRange(min=1), metavar="N", help="N of them, chosen at random."),
    click.option(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="Seed of the random choice: the same seed chooses the same tasks.",
    ),
    locating,
)
deciding = _apply(
    click.option(
        "--force", is_flag=True, help="Replace images that were edited since; the edited ones go to superseded/."
    ),
    click.option("--repair", is_flag=True, help="Buy images again that are missing or were changed."),
    click.option(
        "--accept",
        multiple=True,
        callback=lambda _context, _param, values: accepted_words(values),
        metavar="WHAT",
        help="Take present images as good although prompt, inputs, params or model changed; images that a person"
        " changed (edited) or removed (absent), and refusals (refused), as they are. Several with commas; nothing is"
        " paid. plan only shows it, run remembers.",
    ),
    click.option("--budget", type=Dollars(), metavar="USD", help="Spend at most this in the run, such as 20 or 0.50."),
    click.option(
        "-j", "--concurrency", type=click.IntRange(1, 10_000), metavar="N", help="At most N requests in flight."
    ),
    click.option(
        "--rpm", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most N requests in any minute."
    ),
)
cluster = click.option(
    "--ray",
    metavar="ADDRESS",
    help="Send from the machines of a Ray cluster: auto or HOST:PORT, or local for one on this machine alone.",
)
running = _apply(
    click.option(
        "--pilot",
        type=click.IntRange(min=1),
        metavar="N",
        help="Buy N tasks spread over jobs and axes, say what the rest will cost and take, and end with exit code 8.",
    ),
    click.option("--now", "is_now", is_flag=True, help="Send although the provider asked to wait (`status` says why)."),
    click.option(
        "--max-duration", type=Duration(), metavar="TIME", help="Send nothing new after this (50m); exit code 10."
    ),
    click.option(
        "--drain",
        type=Duration(),
        default=25.0,
        metavar="TIME",
        help="On TERM, wait this long for what is in flight (default 25s).",
    ),
    click.option("-y", "--yes", "is_yes", is_flag=True, help="Agree to spending above $5 without being asked."),
    wait_lock,
    cluster,
    click.option(
        "--workers",
        type=click.IntRange(1, 10_000),
        metavar="N",
        help="Sender processes on it (default: one a node; local: one a core).",
    ),
    click.option("-q", "--quiet", is_flag=True, help="No output when all is well: for cron."),
    click.option("-v", "--verbose", is_flag=True, help="Log every attempt."),
    click.option(
        "--progress",
        type=click.Choice(["auto", "rich", "plain", "none"]),
        default="auto",
        help="auto: a live view on a terminal, a line now and then elsewhere.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Log lines for people or, every event as an object, for programs.",
    ),
    click.option("--log-file", type=FILE, metavar="FILE", help="Append the log to FILE too."),
)


ACCEPTED: Final = ("prompt", "inputs", "params", "model", "edited", "absent", "refused")


def accepted_words(values: tuple[str, ...]) -> tuple[str, ...]:
    """Split `--accept edited,absent`."""
    words = [word.strip() for value in values for word in value.split(",")]
    for word in words:
        if word not in ACCEPTED:
            raise click.UsageError(f"--accept {word!r} is not known; write any of {', '.join(ACCEPTED)}")
    return tuple(words)


def file_and_profile(file: Path | None, simulate: str | None) -> tuple[Path, str | None]:
    """Tell FILE from the optional value of `--simulate`: in `run --simulate jobs/a.yaml` the word is FILE."""
    if file is None and simulate and Path(simulate).is_file():
        return Path(simulate), ""
    if file is None:
        raise click.UsageError("Missing argument 'FILE'; name a manifest, such as jobs/demo.yaml")
    return file, simulate


def variables_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Split `K=V` pairs."""
    for pair in pairs:
        if "=" not in pair:
            raise click.UsageError(f"--var {pair} has no value; write --var {pair}=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def compose_flags(
    *,
    variables: tuple[str, ...],
    allow_env: tuple[str, ...] = (),
    profile: str | None,
    select: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    first: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    rpm: float | None = None,
    budget: int | None = None,
    force: bool = False,
    repair: bool = False,
    accept: tuple[str, ...] = (),
    max_duration: float | None = None,
    drain: float = 25.0,
    wait_lock: float = 0.0,
    **others: Any,
) -> "Flags":
    """Return the flags as `app` takes them; `profile` is the value of `--simulate`, None when it was not given."""
    from pipeline.app.context import Flags
    from pipeline.model import Aspect, Edit
    from pipeline.plan.decide import Rules
    from pipeline.plan.selection import Selection

    return Flags(
        variables=variables_of(variables),
        allow_env=frozenset(allow_env),
        selection=Selection(select=select, exclude=exclude, first=first, sample=sample, seed=seed),
        rpm=rpm,
        budget_microusd=budget,
        rules=Rules(
            force=force,
            repair=repair,
            accept=frozenset(aspect for aspect in Aspect if aspect in accept),
            edits=frozenset(edit for edit in Edit if edit in accept),
            accept_refused="refused" in accept,
        ),
        max_duration_s=max_duration,
        drain_s=drain,
        wait_lock_s=wait_lock,
        simulate=profile is not None,
        profile=profile or None,
        **others,
    )


def prepare(file: Path | None, *, simulate: str | None, **flags: Any) -> "Setup":
    """Load the manifest FILE with the flags of a verb. Raises InputError with every problem of it."""
    from pipeline.app import context

    path, profile = file_and_profile(file, simulate)
    return context.prepare(path, compose_flags(profile=profile, **flags))


def print_json(document: object) -> None:
    """Write one JSON document on one line to stdout."""
    import msgspec

    try:
        text = msgspec.json.encode(document).decode()
    except UnicodeEncodeError:  # a file name that is not UTF-8: escaped, as JSON may
        import json

        text = json.dumps(document, default=msgspec.to_builtins, separators=(",", ":"))
    print(text)


def plain(noun: Any) -> dict[str, object]:
    """Return the fields of a dataclass, for JSON."""
    import dataclasses

    return dataclasses.asdict(noun)


def groups(text: str, known: tuple[str, ...]) -> list[str]:
    """Split `--by job,day`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise click.UsageError(f"--by {name!r} is not known; write any of {', '.join(known)}")
    return list(dict.fromkeys(names)) or [known[0]]


def moment_option(text: str | None, zone: "tzinfo") -> "datetime | None":
    """Read `--since`: a date, which begins where its zone says, or an age such as 30d."""
    if text is None:
        return None
    from datetime import UTC, datetime, timedelta

    age_s = parse_duration(text)
    if age_s is not None:
        return datetime.now(UTC) - timedelta(seconds=age_s)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"--since {text!r} is not a date; write a date (2026-11-01) or an age (30d, 12h)"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=zone)

"""Help pages: what a verb does, its options by topic, then examples as they are typed.

A verb's docstring is its page: paragraphs, and after a line with `\\b` examples, kept as they are written. Drawn by
click alone: with rich in it, a page took five times as long to appear.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import click

EXAMPLES: Final = "\b"
WIDTH: Final = 100
TOPICS: Final = {  # options by topic, in the order of a page; what is in none comes first
    "Which tasks": ("select", "exclude", "first", "sample", "seed"),
    "What is asked again": ("force", "repair", "accept"),
    "Money, pace and time": ("budget", "is_yes", "concurrency", "rpm", "max_duration", "drain", "wait_lock"),
    "What is said": ("quiet", "verbose", "progress", "log_format", "log_file", "is_json"),
    "The manifest": ("variables", "simulate"),
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

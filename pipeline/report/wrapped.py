"""Sentences on a terminal: words stay whole, and so does a command that is meant to be copied.

In: text. Out: the same text with line breaks for a width. Where there is no terminal, nothing is broken.
"""

import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_COMMAND = re.compile(r"imgpipe (?:[^\s),;`]+ ?)+")  # up to the sign that ends its part of the sentence
_GLUE = "\0"  # no text on a terminal has one: `visible` writes it out


def wrapped(text: str, width: int) -> str:
    """Return `text` in lines of at most `width`, the second and later ones of a paragraph indented.

    What is longer than a line and may not be broken (a command, a path) is left to the terminal.
    """
    glued = _COMMAND.sub(lambda match: match[0].rstrip().replace(" ", _GLUE) + match[0][len(match[0].rstrip()) :], text)
    lines = [
        line
        for paragraph in glued.splitlines()
        for line in textwrap.wrap(
            paragraph, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        or [""]
    ]
    return "\n".join(lines).replace(_GLUE, " ")


def say(text: str, console: "Console") -> None:
    """Print text as sentences; files and pipes get each paragraph on one line."""
    shown = wrapped(text, console.width) if console.is_terminal else text
    console.print(shown, highlight=False, markup=False, soft_wrap=True)

"""One row of a job: what tables, folders and other jobs have in common once they are read.

A source yields rows and, between them, the problems of rows that cannot be used; so one bad line hides no other.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.manifest.budget import Names, text_of


@dataclass(slots=True)
class Row:
    """One row: its name in ids, what templates see of it, and where it stands for a person."""

    key: str
    data: Names | None = None  # `row`
    file: Names | None = None  # `file`
    place: str = ""  # `data/products.csv:8`
    line: int | None = None
    is_upstream: bool = False  # its image is another task's output
    fields: dict[str, str] = field(default_factory=dict)
    matrix: Mapping[str, str] | None = None  # that of the task whose image it takes; a job's own axes win
    texts: Mapping[str, str] = field(default_factory=dict)  # what the names in `matrix` stand for in prompts


def fields_of(values: Names) -> dict[str, str]:
    """Return a row's own cells as text, for reports and selections."""
    return {key: value if value.__class__ is str else str(text_of(value)) for key, value in values.items()}


def printable(text: str) -> str:
    """Return `text` as it may stand in an id: controls and bytes that are not UTF-8 are written out as escapes."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") else ascii(c)[1:-1] for c in text)

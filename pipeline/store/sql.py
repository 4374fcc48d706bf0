"""The two .sql files of this room -> migrations in order, and statements by name. It opens no database."""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

APPLICATION_ID: Final = 0x696D6770  # "imgp", at byte 68 of the ledger


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _blocks(text: str, heading: str) -> dict[str, str]:
    """Split `-- <heading> <name>` blocks; comment lines stay, SQLite skips them."""
    parts = re.split(rf"^-- {heading} ([^:\n]+)(?::.*)?$", text, flags=re.MULTILINE)
    return {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _bare(statement: str) -> str:
    return "\n".join(line for line in statement.splitlines() if not line.startswith("--"))


MIGRATIONS: Final[tuple[str, ...]] = tuple(_blocks(_read("schema.sql"), "migration").values())
_QUERIES: Final[Mapping[str, str]] = {
    name: _bare(body) for name, body in _blocks(_read("queries.sql"), "name:").items()
}


def query(name: str) -> str:
    """Return the statement called `name` in queries.sql."""
    return _QUERIES[name]

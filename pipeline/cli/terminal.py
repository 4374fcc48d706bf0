"""Where people read: stdout or stderr as rich sees them, without a single escape code where none is wanted."""

import os
import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console


def console(*, is_stderr: bool = False) -> "Console":
    """Return a console. NO_COLOR (https://no-color.org) takes bold and dim away too, not only colours."""
    from rich.console import Console

    color_system: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    if is_stderr:
        return Console(stderr=True, color_system=color_system)
    return Console(file=sys.stdout, color_system=color_system)


def is_lively() -> bool:
    """Say whether lines may be drawn over on stderr: a terminal, not a pipe that FORCE_COLOR takes for one."""
    return sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")

"""imgpipe: images in bulk through a paid API, each bought once.

In data-flow order:
  errors, model, settings   what can go wrong; the nouns that cross rooms; what a person may set
  manifest   YAML to tasks          plan      tasks + ledger: what is due, why, for how much
  engine     many attempts          provider  one attempt
  store      what must last         report    what people see
  simulator  the API, rehearsed     compose   wires one run
  cli        verbs and flags        api       the same from Python
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import (
        AttemptEnded,
        AttemptStarted,
        Event,
        Generated,
        Halted,
        Paused,
        RetryScheduled,
        RunEnded,
        RunFailed,
        RunStarted,
        RunSummary,
        StagePlanned,
        TaskEnded,
        Warned,
        explain,
        generate,
        plan_manifest,
        run_manifest,
    )


__version__ = "0.1.0"
__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "Event",
    "Generated",
    "Halted",
    "Paused",
    "RetryScheduled",
    "RunEnded",
    "RunFailed",
    "RunStarted",
    "RunSummary",
    "StagePlanned",
    "TaskEnded",
    "Warned",
    "__version__",
    "explain",
    "generate",
    "plan_manifest",
    "run_manifest",
]


def __getattr__(name: str) -> Any:
    """Import the Python API when it is asked for: the command line starts without it."""
    if name in __all__:
        from pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

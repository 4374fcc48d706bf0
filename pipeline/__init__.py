"""imgpipe: images in bulk through a paid API, each bought once.

In data-flow order:
  errors, model, settings   errors by what to do next; types shared by packages; settings, their defaults, budget days
  text                      numbers, escaping and name matching
  pools, failpoint          thread and process pools; where tests stop the process
  buckets                   objects in S3, Google Cloud Storage and Azure
  imaging    image bytes            manifest  YAML to tasks
  plan       what is due, and why   provider  one request over the wire
  engine     many attempts          store     the ledger and the images
  senders    who performs attempts  report    the contact sheet
  view       what a terminal shows  app       the use cases, one module a verb
  cli        flags and exit codes   simulator the API, rehearsed
  api        the same from Python
"""

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than all of this: Ctrl-C meanwhile has a traceback
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


def __getattr__(name: str) -> object:
    """Import the Python API when it is asked for: the command line starts without it."""
    if name in __all__:
        from pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What one run did, in numbers. Alone in its module, so that a run which does nothing imports nothing else."""

from dataclasses import dataclass

from pipeline.errors import Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What one run did, which is nothing if nothing else is said; its JSON form is written by `report.summary`."""

    run: int | None  # None: nothing was due and no run was opened
    exit: Exit
    total: int = 0
    done: int = 0  # made by this run
    skipped: int = 0  # done before it, and tasks not selected for sending
    failed: int = 0
    refused: int = 0
    unknown: int = 0
    pending: int = 0
    conflict: int = 0
    missing: int = 0  # of those skipped: their file is gone or was changed since
    attempts: int = 0
    images: int = 0
    bytes: int = 0
    seconds: float = 0.0
    spent_microusd: int = 0
    unknown_microusd: int = 0
    overrun_microusd: int = 0  # what answers cost more than was reserved for them
    budget_left_microusd: int | None = None
    not_before: str | None = None  # RFC 3339, UTC
    is_play_money: bool = False
    reasons: tuple[str, ...] = ()  # why it stopped early, most severe first
    cautions: tuple[str, ...] = ()  # what a person must hear although all is well, and also with -q

"""What the report knows of one task, and of all of them together: plain rows, filled in by whoever reads the ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.model import Mark, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An image that the task had before: superseded, never deleted."""

    path: str  # relative to the report's folder, or absolute
    sha256: str
    made_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One task. Paths are relative to the report's folder, or absolute; None where there is nothing."""

    id: str
    job: str
    row: str
    variant: int
    state: TaskState
    prompt: str
    model: str
    tags: tuple[str, ...] = ()
    matrix: Mapping[str, str] = field(default_factory=dict)  # axis -> the chosen value's name
    image: str | None = None
    input_image: str | None = None  # the first input: what stands before
    width: int | None = None
    height: int | None = None
    mime: str | None = None
    size_bytes: int | None = None
    price_microusd: int = 0  # what all attempts of the task cost
    seconds: float | None = None  # the attempt that brought the image
    attempts: int = 0
    reason: str = ""
    finished_at: datetime | None = None
    sha256: str | None = None  # of the image, hex
    fingerprint: str = ""
    is_signed: bool = False  # C2PA, inside the image
    fields: Mapping[str, str] = field(default_factory=dict)  # the row's own cells
    folder: str = ""  # of the output name
    mark: Mark | None = None  # None: there is none of the image that stands there
    versions: tuple[Version, ...] = ()  # newest first
    redo_microusd: int | None = None  # what a new image would cost; None: its price is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTotals:
    """Money and requests of the whole life of a manifest; tasks are counted from the rows."""

    spent_microusd: int
    unknown_microusd: int = 0
    attempts: int = 0

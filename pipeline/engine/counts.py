"""What a run has done so far, in numbers."""

from dataclasses import dataclass, field

from pipeline.model import TaskState


@dataclass(slots=True, kw_only=True)
class Counts:
    """Tasks by the state they ended in, and what was sent and saved."""

    states: dict[TaskState, int] = field(default_factory=lambda: dict.fromkeys(TaskState, 0))
    attempts: int = 0
    images: int = 0
    bytes: int = 0

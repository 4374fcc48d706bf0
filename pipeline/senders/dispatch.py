"""Picks the worker for the next attempt and counts the processes that died: decisions only, no Ray, no clock.

Apart from its neighbours because both use it: `cluster` makes the workers, `remote` gives them attempts.
A worker is given attempts between `ready` and `lost`. Its generation tells one process of it from the next, so that an
error of a dead process that is heard late takes nothing from the one that came after.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """One sender process, and those that replace it."""

    number: int  # from 1
    node: str = ""  # where its present process is
    generation: int = 0
    is_ready: bool = False
    in_flight: set[int] = field(default_factory=set)  # numbers of attempts that its present process was given

    def __str__(self) -> str:
        return f"{self.number}@{self.node}" if self.node else str(self.number)


@dataclass(slots=True, kw_only=True)
class Dispatch:
    """The workers of one run."""

    workers: Sequence[Worker]
    lost: int = 0  # processes that died, each counted once

    def __repr__(self) -> str:
        loads = ", ".join(f"{worker}: {len(worker.in_flight)}" for worker in self.workers if worker.is_ready)
        return f"<Dispatch {self.ready_now} of {len(self.workers)} ready ({loads}), {self.lost} lost>"

    @property
    def ready_now(self) -> int:
        return sum(worker.is_ready for worker in self.workers)

    def pick(self) -> Worker | None:
        """Return the worker with the fewest attempts in flight; None: none is ready."""
        return min((each for each in self.workers if each.is_ready), key=lambda each: len(each.in_flight), default=None)

    def ready(self, worker: Worker, node: str) -> None:
        """Give a new process of a worker attempts from here on; what an earlier one had is not its own."""
        worker.generation += 1
        worker.node = node
        worker.in_flight = set()
        worker.is_ready = True

    def lose(self, worker: Worker, generation: int) -> bool:
        """Give a process of a worker nothing more, because it died; say whether this is heard for the first time."""
        if worker.generation != generation or not worker.is_ready:
            return False
        worker.is_ready = False
        self.lost += 1
        return True

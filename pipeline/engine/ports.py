"""What the engine needs of the rooms beside it, written by the engine. It imports none of them."""

from collections.abc import Collection
from typing import Protocol

from pipeline.model import Answer, Artifact, Failure, Reply, Task, TaskState, Usage


class Provider(Protocol):
    """One attempt over the wire."""

    async def send(self, task: Task) -> Reply | Failure:
        """Send one request and read its whole answer (B1 to B2). Cancelled: the outcome is unknown."""
        ...

    def read(self, reply: Reply, task: Task) -> Answer | Failure:
        """Judge an answer. Pure CPU work, safe in any thread."""
        ...


class Intent(Protocol):
    """An attempt that is written down (B0)."""

    @property
    def attempt(self) -> int: ...  # the ledger's number
    @property
    def number(self) -> int: ...  # of the task, counted from 1


class Store(Protocol):
    """What must last."""

    async def intend(self, task: Task, *, run: int, reserved_microusd: int | None) -> Intent:
        """Write an attempt down as sent, before it is."""
        ...

    async def publish(
        self, task: Task, attempt: int, answer: Answer, *, cost_microusd: int, seconds: float
    ) -> Artifact:
        """Put an image durably under its final name (B3 to B5). Cancellation does not stop it.

        Raises Conflict for this task alone; StorageError for the run. The image is kept in both cases.
        """
        ...

    async def close(
        self,
        attempt: int,
        failure: Failure,
        *,
        state: TaskState,
        cost_microusd: int,
        unknown_microusd: int,
        seconds: float,
    ) -> None:
        """Write down an attempt that brought no image; keeps its body in rejected/ first."""
        ...

    async def release(self, states: Collection[TaskState], ids: Collection[str]) -> int:
        """Make these tasks due again where they are in one of these states; return how many. Their history stays."""
        ...

    async def free_bytes(self) -> int:
        """Return what can still be written."""
        ...


class Prices(Protocol):
    """What one attempt costs."""

    def price(self, model: str, size: str | None) -> int | None:
        """Return the list price of one image in micro-dollars; None: not known."""
        ...

    def settle(self, model: str, size: str | None, usage: Usage | None) -> int | None:
        """Return the price of an answer from its tokens; None: it cannot be told, the list price stands."""
        ...

"""What the engine needs from other packages, as protocols. The engine imports none of the implementations.

Not part of `attempt`, because implementations import it and must not import the engine with it.
"""

from collections.abc import Collection
from typing import Protocol

from pipeline.model import Artifact, Attempt, Failure, Task, TaskState, Usage


class AttemptSender(Protocol):
    """Performs attempts: builds the request, sends it, judges the answer, writes the image durably (B1 to B4)."""

    async def send(self, attempt: Attempt) -> Artifact | Failure:
        """Send one request and keep what it brings.

        Returns a few hundred bytes, never the image. Everything that can be expected is a `Failure`; only bugs raise.
        Not to be cancelled: `abandon` ends the wait and keeps what has arrived.
        """
        ...

    def abandon(self) -> None:
        """Stop waiting for answers: what has arrived is kept, what is in flight ends as maybe billed."""
        ...


class AttemptLedger(Protocol):
    """Records attempts durably, before and after they are sent."""

    async def begin(self, task: Task, *, run: int, reserved_microusd: int | None) -> Attempt:
        """Record an attempt as sent, before it is (B0)."""
        ...

    async def finish(self, attempt: Attempt, artifact: Artifact, *, cost_microusd: int, seconds: float) -> None:
        """Record an attempt whose image stands under its final name (B5)."""
        ...

    async def close(
        self,
        attempt: Attempt,
        failure: Failure,
        *,
        state: TaskState,
        cost_microusd: int,
        unknown_microusd: int,
        seconds: float,
    ) -> None:
        """Record an attempt that left no image under a final name; `state` is that of its task from now on."""
        ...

    async def fail(self, ids: Collection[str]) -> int:
        """Record these tasks as failed where they are pending; return how many."""
        ...

    async def free_bytes(self) -> int:
        """Return what can still be written."""
        ...


class Prices(Protocol):
    """What one attempt costs."""

    def reserve(self, task: Task) -> int | None:
        """Return the most that one attempt can cost, in micro-dollars; None: not known. It may rise during a run."""
        ...

    def settle(self, task: Task, usage: Usage | None) -> int | None:
        """Return what an answer cost, from its tokens; None: unknown, what was reserved stands."""
        ...

"""The threads beside a run's event loop: when the loop ends, nobody waits for them.

In: blocking calls of the run (planning, reading inputs, name servers). What must be finished is awaited by the run
itself; what is left at its end only looks something up, and may hang for minutes.
"""

from concurrent.futures import ThreadPoolExecutor


class Threads(ThreadPoolExecutor):
    """A default executor for asyncio, whose close waits without an end for `getaddrinfo`."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Tell the threads to end after their present work."""
        super().shutdown(wait=False, cancel_futures=True)

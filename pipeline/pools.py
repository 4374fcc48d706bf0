"""Thread pools with a controlled start and end.

A pool that starts all its threads before it has work: a system that grants no more threads is short of memory, and
that is reported before anything is sent. A pool whose threads are not joined at exit. Not part of a neighbour, because
packages that must not import each other use it: it imports none of them.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

NO_THREAD: Final = ("can't start new thread",)  # Python's own words, in a RuntimeError


class Threads(ThreadPoolExecutor):
    """A default executor for asyncio, whose close waits without an end for `getaddrinfo`.

    It makes blocking calls of the run (planning, reading inputs, name servers). What must be finished is awaited by the
    run itself; what is left at its end only looks something up, and may hang for minutes.
    """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Tell the threads to end after their present work."""
        super().shutdown(wait=False, cancel_futures=True)


def whole_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Return an executor all of whose threads have begun: a paid answer in hand must not wait for one that cannot.

    Raises MemoryError.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    meeting = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(meeting.wait)
    except RuntimeError as error:
        meeting.abort()
        pool.shutdown()
        if is_short_of_memory(error):
            raise MemoryError(f"no thread for {name}") from error
        raise
    meeting.wait()
    return pool


def is_short_of_memory(error: BaseException) -> bool:
    """Say whether the system granted no memory: none at all, none for a thread, none for a library."""
    match error:
        case MemoryError():
            return True
        case RuntimeError():
            return error.args == NO_THREAD
        case ImportError():
            return "failed to map segment" in str(error)
    return False

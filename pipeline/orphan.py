"""A child process that leaves with its parent.

In: the parent of this process. Out: the end of it, when the parent ends in whatever way. A pool's children wait for
work on a pipe whose other end they hold too, so a parent that is killed would leave them waiting for ever.
"""

import multiprocessing
import os
import threading


def leave_with_parent() -> None:
    """End this process as soon as the one that started it is gone. Call it in a child; elsewhere it does nothing."""
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_watch, name="parent", daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

"""Signals while nobody listens to them: when the command comes up, and when it leaves.

In: Ctrl-C before a run has its own handlers, any signal after it. Out: an end without a traceback, and never one in the
middle of what must not be broken off: modules that are being imported (the C code of some swallows an exception, or
makes another one of it), and Python's own end, which takes threads apart that still work. It knows no command.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Final, NoReturn

from pipeline.errors import Exit

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPORTS: Final = "<frozen importlib._bootstrap>"
PATIENCE_S: Final = 0.5


def settle() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, except while something is imported: then it ends the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTS:
            os._exit(Exit.INTERRUPTED)  # nothing was sent: a run has handlers of its own by then
        frame = frame.f_back
    raise KeyboardInterrupt


def hasten(code: int) -> None:
    """From here on a signal ends the process with `code`, at once: only the last words are left, which may be stuck.

    A signal that the parent had ignored stays ignored.
    """
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(code))


def leave(code: int) -> NoReturn:
    """End the process, without Python's own end: it takes 6 ms, and a thread that still works would crash in it.

    By now everything that lasts is written. Threads that are on their way out get `PATIENCE_S`; one that waits for a
    name server may take minutes, and one that a signal kept from beginning never ends.
    """
    deadline = time.monotonic() + PATIENCE_S
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.is_alive() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
    sys.stderr.flush()
    os._exit(code)

"""The process, made fit for many large images: what lives for the whole run, and how memory is given back.

It changes the process it runs in, so it is called once, when something is going to be sent.
"""

import ctypes
import gc
from typing import Final

# glibc's malloc.h; https://sourceware.org/glibc/manual/latest/html_node/Malloc-Tunable-Parameters.html
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8


def fit_for_images() -> None:
    """Spare the garbage collector and the allocator what they would do again for every image."""
    _spare_the_collector()
    _settle_the_allocator()


def _spare_the_collector() -> None:
    """Take what is loaded by now, which stays to the end, out of the garbage collector's sight.

    Measured with tiny answers: 10 % less CPU an image, and the longest delay of the event loop fell from 52 to 20 ms.
    """
    gc.freeze()


def _settle_the_allocator() -> None:
    """Keep the memory of one image for the next: as it is, glibc gives it back and fetches it again page by page.

    An answer is read in one thread, decoded in another and dropped in a third; each has an arena of its own by default,
    and none of them sees what the others have to spare. Measured with answers of 0.4 and 2.7 MB, 32 in flight: 7 to
    15 % less CPU an image and 5 to 18 % more images a second, with no more memory. Other C libraries have no such
    options, and nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in ((M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 32 * 2**20), (M_TRIM_THRESHOLD, 64 * 2**20)):
        mallopt(option, value)

"""Runs the command line, as `imgpipe` and as `python -m pipeline`: Python asks for a module of this name.

Importing the command line takes 40 ms and more. Ctrl-C in that time ends the process without a traceback.
"""

import os
from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found] # as fast as can be

if getsignal(SIGINT) is default_int_handler:  # else the parent has it ignored
    signal(SIGINT, lambda *_: os._exit(130))

from pipeline.cli.main import main

if __name__ == "__main__":
    main()

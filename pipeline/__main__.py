"""Runs the command line, as `imgpipe` and as `python -m pipeline`: Python asks for a module of this name.

Importing the command line takes 40 ms and more. Ctrl-C in that time ends the process without a traceback. As process 1
of a container it gets no signal that it has no handler for (pid_namespaces(7)), so it has one for TERM from the start:
a run that began all the same would buy until it is killed.
"""

import os
from _signal import SIG_DFL, SIGINT, SIGTERM, default_int_handler, getsignal, signal  # type: ignore[import-not-found] # fast

if getsignal(SIGINT) is default_int_handler:  # else the parent has it ignored
    signal(SIGINT, lambda *_: os._exit(130))
if os.getpid() == 1 and getsignal(SIGTERM) == SIG_DFL:
    signal(SIGTERM, lambda *_: os._exit(143))

from pipeline.cli.main import main

if __name__ == "__main__":
    main()

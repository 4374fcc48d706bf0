"""The command in a process of its own, without its start: forked from a server that has imported what a run needs.

To import it takes 0.6 s of CPU, and where a death or a signal strikes a run at work that proves nothing. The process
does what the installed command does from `main` on, with an environment, streams and signals of its own. What is
about the start, or about streams that are closed, needs the installed command.
"""

import fcntl
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn

PRELOADED = [
    "pipeline.cli.run",
    "pipeline.app.run",
    "pipeline.app.sending",
    "pipeline.simulator.server",
    "rich.console",
    "uvloop",
    "obstore.store",
]

LOCK = threading.Lock()  # an exit code is read once, by whoever asks first: `start` asks for those of all processes


def run_command(args: list[str], env: dict[str, str], streams: list[Connection]) -> NoReturn:
    """Be the installed command; in the forked process."""
    from pipeline import failpoint
    from pipeline.cli.main import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir("/")
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    if os.isatty(0):
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    importlib.reload(failpoint)  # which reads the environment when it is imported
    sys.argv = ["imgpipe", *args]
    main()


@dataclass
class Process:
    """What tests use of `subprocess.Popen`."""

    command: ForkServerProcess
    files: Sequence[Path] = ()  # where its output is
    returncode: int | None = field(default=None)

    @property
    def pid(self) -> int:
        assert self.command.pid is not None
        return self.command.pid

    def poll(self) -> int | None:
        with LOCK:
            self.returncode = self.command.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        wait([self.command.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("imgpipe", timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> list[str]:
        self.wait(timeout)
        return [path.read_text(encoding="utf-8") for path in self.files]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(args: Sequence[str | Path], env: Mapping[str, str], streams: Sequence[int]) -> ForkServerProcess:
    """Start the command with these three descriptors as its standard streams; a terminal becomes its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    lent = [Connection(os.dup(number)) for number in streams]
    process = context.Process(target=run_command, args=([*map(str, args)], dict(env), lent), name="imgpipe")
    with LOCK:
        process.start()
    for each in lent:
        each.close()
    return process

"""The command in a process of its own, without its start: forked from a server that has imported what a run needs.

To import it takes 0.6 s of CPU, and where a death or a signal strikes a run at work that proves nothing. The process
does what the installed command does from `main` on, with an environment, an output and signals of its own. What is
about the start, about streams that are closed or about a terminal needs `Imgpipe`.
"""

import importlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn

PRELOADED = ["pipeline.cli.run", "pipeline.app.run", "pipeline.app.sending", "rich.console", "uvloop", "obstore.store"]

NUMBERS = itertools.count()
LOCK = threading.Lock()  # an exit code is read once, by whoever asks first: `start` asks for those of all processes


def run_command(args: list[str], env: dict[str, str], out: Path, err: Path) -> NoReturn:
    """Be the installed command; in the forked process."""
    from pipeline import failpoint
    from pipeline.cli.main import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir("/")
    for number, path in enumerate((Path(os.devnull), out, err)):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    importlib.reload(failpoint)  # which reads the environment when it is imported
    sys.argv = ["imgpipe", *args]
    main()


@dataclass
class Process:
    """What tests use of `subprocess.Popen`."""

    command: ForkServerProcess
    out: Path
    err: Path
    returncode: int | None = field(default=None)

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

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.out.read_text(encoding="utf-8"), self.err.read_text(encoding="utf-8")

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self.command.pid is not None:
            os.kill(self.command.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(folder: Path, args: list[str], env: Mapping[str, str]) -> Process:
    """Start the command; what it says is written into `folder`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    folder.mkdir(exist_ok=True)
    number = next(NUMBERS)
    out, err = folder / f"{number}.out", folder / f"{number}.err"
    for path in (out, err):
        path.touch()
    process = context.Process(target=run_command, args=(args, dict(env), out, err), name="imgpipe")
    with LOCK:
        process.start()
    return Process(process, out, err)

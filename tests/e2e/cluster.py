"""The processes of Ray on this machine, found by their names and their parents, to be killed or stopped."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.e2e.conftest import BARE, wait_until

SENDER = "ray::Sender"  # as Ray names the process of an actor, by its class


def children(pid: int) -> Iterator[int]:
    """Yield the processes below one, however deep."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.parent.name))
    waiting = [pid]
    while waiting:
        found = parents.get(waiting.pop(), [])
        yield from found
        waiting += found


def named(name: str, *, below: int) -> list[int]:
    """Return the processes below one whose command line begins with, or is a program called `name`."""
    found = []
    for pid in children(below):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            program = command.split("\0")[0]
            if program.startswith(name) or Path(program).name == name:
                found.append(pid)
    return sorted(found)


def senders(below: int) -> list[int]:
    """Return the processes of workers."""
    return named(SENDER, below=below)


def temporary_folder(below: int) -> Path:
    """Return where a Ray that a run started keeps its logs and sockets."""
    (raylet, *_) = named("raylet", below=below)
    words = Path(f"/proc/{raylet}/cmdline").read_bytes().decode().split("\0")
    session = next(word for word in words if word.startswith(("--session-dir=", "--session_dir=")))
    return Path(session.partition("=")[2]).parent


class Nodes:
    """A cluster whose nodes are all on this machine, each with its own raylet; nodes can die, freeze and come back."""

    HEALTH = (
        '{"health_check_initial_delay_ms": 500, "health_check_period_ms": 500,'
        ' "health_check_timeout_ms": 1000, "health_check_failure_threshold": 4}'
    )

    def __init__(self, folder: Path, *, port: int, cpus: int = 2) -> None:
        """`folder`: short, for Ray's sockets have long names."""
        self.folder = folder
        self.address = f"{socket.gethostbyname(socket.gethostname())}:{port}"
        self._port = port
        self._cpus = cpus
        self.env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *, before: Sequence[str | Path] = (), **env: str) -> int:
        """Start a node, the head first; return its number. `before`: what starts it."""
        place = (
            ("--head", f"--port={self._port}", f"--temp-dir={self.folder}", "--include-dashboard=false",
             f"--system-config={self.HEALTH}")
            if not self.processes
            else (f"--address={self.address}",)
        )  # fmt: skip
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *place, f"--num-cpus={self._cpus}"]
        process = subprocess.Popen(
            [*map(str, before), *command, "--object-store-memory=80000000", "--block"],
            env={**BARE, **self.env, **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        number = len(self.processes) - 1
        wait_until(lambda: self.raylets(number) and self._is_listening(), timeout=60)
        return number

    def raylets(self, node: int) -> list[int]:
        return named("raylet", below=self.processes[node].pid)

    def senders(self, node: int | None = None) -> list[int]:
        nodes = range(len(self.processes)) if node is None else [node]
        return [pid for each in nodes for pid in senders(self.processes[each].pid)]

    def signal(self, node: int, number: int) -> None:
        """Send a signal to a raylet and to everything below it: the whole node stops, goes on or dies."""
        (raylet,) = self.raylets(node)
        for pid in [raylet, *children(raylet)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _is_listening(self) -> bool:
        with suppress(OSError), socket.create_connection(tuple(self.address.split(":")), timeout=1):
            return True
        return False

    def end(self, node: int) -> None:
        """Kill a node and all its processes."""
        process = self.processes[node]
        for pid in [*children(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=30)

    def stop(self) -> None:
        """End every process that was started."""
        for node in reversed(range(len(self.processes))):
            self.end(node)
        shutil.rmtree(self.folder, ignore_errors=True)

"""The processes of Ray on this machine, found by their names and their parents, to be killed or stopped."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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

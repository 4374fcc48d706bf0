"""Which file system a path lies on: locks and write-ahead logs are not safe on network file systems. Linux only."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.errors import InputError

NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "fuse.ceph"})
MOUNTINFO: Final = Path("/proc/self/mountinfo")


def read_mountinfo() -> str:
    """Return the kernel's table, empty where there is none."""
    try:
        return MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def file_system_of(path: Path, mountinfo: str) -> str:
    """Return the type of the innermost mount that holds `path`, "" when the table does not say (proc(5), mountinfo)."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(_unescaped(fields[4]))
        depth = len(point.parts)
        if depth >= best and path.is_relative_to(point):
            best, kind = depth, after.split()[0]
    return kind


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def refuse_network(state_dir: Path, *, mountinfo: Callable[[], str] = read_mountinfo) -> None:
    """Raise InputError where a ledger would not be safe."""
    kind = file_system_of(Path(os.path.realpath(state_dir)), mountinfo())
    if kind in NETWORK:
        raise InputError(
            f"state_dir {state_dir} lies on a network file system ({kind}), where a ledger can be damaged;"
            " name a local `state_dir` (images may stay where they are)"
        )

"""One child process: start it, wait for it, and the operating system's own account of what it used.

In: arguments of the interpreter. Out: `Used`: its last line as JSON, its CPU, its peak, the wall clock.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What one process used, from exec to exit."""

    exit: int
    seconds: float
    cpu_s: float
    peak_mb: float
    said: dict[str, Any] = field(default_factory=dict)
    errors: str = ""


def run(*arguments: str, scratch: Path, timeout_s: float = 600.0, environ: Mapping[str, str] | None = None) -> Used:
    """Run the interpreter with `arguments`; byte code is cached in `scratch`, as an installed program's is."""
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ours |= {"PYTHONPYCACHEPREFIX": str(scratch / "bytecode"), "BENCH_KEY": "bench", **(environ or {})}
    out, err = scratch / "stdout", scratch / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, *arguments], stdout=stdout, stderr=stderr, env=ours)
        used = _reaped(process, began + timeout_s)
        seconds = time.monotonic() - began
    lines = out.read_text(errors="replace").splitlines()
    said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Used(
        exit=process.returncode,
        seconds=seconds,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / 1024,
        said=said,
        errors=err.read_text(errors="replace")[-2000:],
    )


def _reaped(process: subprocess.Popen[bytes], deadline: float) -> Any:
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return used
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.005)

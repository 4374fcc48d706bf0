"""One, two and four workers of a cluster on this machine beside the sender of one process: images a second, and CPU.

The time is that from the first answer to the last, without the start of Ray. CPU is that of the controlling process
from its start, and of all workers; read while the run goes on, so a little of the end is missing.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from tests.bench.contenders import Work, manifest
from tests.bench.figures import Figure
from tests.e2e.cluster import senders

IN_FLIGHT: Final = 32
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
LOOK_S: Final = 0.2


def measured(url: str, scratch: Path, *, items: int, is_quick: bool) -> Iterator[Figure]:
    """Run each number of workers once, for large and for tiny answers."""
    for model, count in (("2.7MB", items), ("tiny", items * 5)):
        alone = None
        for workers in (0, 2) if is_quick else (0, 1, 2, 4):
            per_s, control_ms, workers_ms = _one(url, scratch, model, workers, count)
            alone = alone or per_s
            name = f"{model}, {f'{workers} workers' if workers else 'in one process'}"
            yield Figure(f"{name}: images a second", per_s, "a second")
            yield Figure(f"{name}: against one process", per_s / alone, "x")
            yield Figure(f"{name}: CPU of control", control_ms, "ms an image")
            yield Figure(f"{name}: CPU of workers", workers_ms, "ms an image")


def _one(url: str, scratch: Path, model: str, workers: int, items: int) -> tuple[float, float, float]:
    """Return images a second and milliseconds of CPU an image, of control and of workers."""
    folder = scratch / "cluster-bench"
    shutil.rmtree(folder, ignore_errors=True)
    path = manifest(Work(url=url, model=model, items=items, in_flight=IN_FLIGHT, folder=folder))
    log = folder / "log.jsonl"
    command = [sys.executable, "-m", "pipeline", "run", str(path), "-y", "-q", "--json", "--log-file", str(log)]
    command += ["--log-format", "json", *(["--ray", "local", "--workers", str(workers)] if workers else [])]
    environ = {**os.environ, "BENCH_KEY": "bench"}
    run = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    used: dict[int, float] = {}
    while run.poll() is None:
        for pid in (run.pid, *senders(run.pid)):
            used[pid] = _cpu_s(pid) or used.get(pid, 0.0)
        time.sleep(LOOK_S)
    out, err = run.communicate()
    if run.returncode != 0 or json.loads(out)["images"] != items:
        raise RuntimeError(f"{workers} workers, {model}: exit {run.returncode}\n{err.decode()[-2000:]}")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    times = [datetime.fromisoformat(each["time"]) for each in events if each["event"] == "attempt_ended"]
    shutil.rmtree(folder, ignore_errors=True)
    control = used.pop(run.pid)
    seconds = (times[-1] - times[0]).total_seconds()
    return (items - 1) / seconds, control / items * 1000, sum(used.values()) / items * 1000


def _cpu_s(pid: int) -> float:
    """Return what a process has used; 0: it is gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S
    return 0.0

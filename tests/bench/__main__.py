"""`python -m tests.bench [--quick] [--only PART,...]`: measure, print tables, write outputs/bench/<when>.json.

Parts: versus, limited, bucket, cluster, bookkeeping, startup, memory, growth. All runs on this machine, and nothing
leaves it. The first table is printed once more as that of the README.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from tests.bench import bookkeeping, bucket, child, cluster, growth, limited, memory, startup, versus
from tests.bench.figures import Figure
from tests.bench.server import Serving, serving

PARTS = ("versus", "limited", "bucket", "cluster", "bookkeeping", "startup", "memory", "growth")


def main() -> None:
    """Measure what was asked for."""
    asked = _arguments()
    memory_dir = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    found: dict[str, Any] = {"when": when, "machine": _machine(), "quick": asked.quick}
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=memory_dir))
    disk = Path(tempfile.mkdtemp(prefix="bench-", dir=asked.disk))
    scratch.chmod(0o755)  # the server's worker reads the bodies
    try:
        bodies = {name.replace(" ", ""): size for name, size in versus.SIZES.items()}
        bodies |= {"tiny": 3000, "40MB": 40_000_000}
        named = [f"{name}={size}" for name, size in bodies.items()]
        child.run("-m", "tests.bench.answers", str(scratch / "bodies"), *named, scratch=scratch)
        with serving(scratch / "bodies", scratch) as server:
            found["server"] = server.name
            os.environ["SSL_CERT_FILE"] = str(server.trusted)  # for everybody who asks it
            print(f"{found['machine']}; the server is {server.name}")
            for part in asked.only:
                found[part] = _PARTS[part](server, scratch, disk, asked)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)
        for manifests in Path(tempfile.gettempdir()).glob(f"{scratch.name}-*"):
            shutil.rmtree(manifests, ignore_errors=True)
    path = asked.out / f"{when}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{path}")


def _versus(server: Serving, scratch: Path, disk: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    told = []
    for case in islice(versus.cases(scratch, disk, is_quick=asked.quick), asked.cases):
        rows = versus.compare(case, server, scratch)
        told.append({"case": str(case), "rows": [asdict(row) for row in rows]})
        print(f"\n{case}, medians of {case.rounds}; x: imgpipe against it, pair by pair, CPU of whole processes")
        print(
            "                images/s   CPU ms  whole process  peak MB  late p99    max  busy p99   x images/s  x CPU"
        )
        for row in rows:
            print(
                f"  {row.name:<13} {row.images_per_s:8.1f} {row.cpu_ms:8.2f} {row.process_cpu_ms:14.2f}"
                f" {row.peak_mb:8.0f} {row.late_p99_ms:9.1f} {row.late_max_ms:6.1f} {row.busy_p99_ms:9.1f}"
                f" {row.ratio_images_per_s:12.2f}"
                f" {row.ratio_cpu:6.2f}"
            )
    print("\n| imgpipe against | images/s | CPU an image |\n|---|---|---|")
    for compared in told:
        for row in compared["rows"]:
            if row["name"] != "imgpipe":
                ratios = f"{row['ratio_images_per_s']:.2f} x | {row['ratio_cpu']:.2f} x"
                print(f"| {row['name']}: {compared['case']} | {ratios} |")
    return told


def _limited(_server: Serving, _scratch: Path, disk: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    print("\nA server that limits and does not tell")
    reached = []
    for one in limited.measured(disk, seconds=20 if asked.quick else 120):
        print(one, flush=True)
        reached.append(one)
    picture = asked.out / "limited.png"
    if limited.draw(reached, picture):
        print(f"  {picture}")
    return [asdict(one) for one in reached]


def _figures(title: str, figures: Iterator[Figure]) -> list[dict[str, Any]]:
    print(f"\n{title}")
    told = []
    for figure in figures:
        print(figure, flush=True)
        told.append(asdict(figure))
    return told


def _bucket(server: Serving, scratch: Path, _disk: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    items, rounds = (150, 1) if asked.quick else (400, 5)
    return _figures("Buckets", bucket.measured(server.url, scratch, items=items, rounds=rounds))


def _cluster(server: Serving, _scratch: Path, disk: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    items = 60 if asked.quick else 400
    return _figures("Many workers", cluster.measured(server.url, disk, items=items, is_quick=asked.quick))


def _bookkeeping(_server: Serving, scratch: Path, disk: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    return _figures("Bookkeeping", bookkeeping.measured(scratch, disk, tasks=3000 if asked.quick else 20_000))


def _startup(server: Serving, scratch: Path, _disk: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = 2 if asked.quick else 9
    return _figures("Start-up", startup.startup(server.url, scratch / "start", scratch, rounds=rounds))


def _memory(server: Serving, scratch: Path, _disk: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    if asked.quick:
        return _figures("Memory", memory.many(server.url, scratch / "many", scratch, rows=20_000))
    figures = [
        memory.large(server.url, scratch / "large", scratch),
        memory.many(server.url, scratch / "many", scratch, rows=10**6),
    ]
    return _figures("Memory", (figure for group in figures for figure in group))


def _growth(server: Serving, scratch: Path, _disk: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    points = list(growth.grow(server.url, scratch / "grow", scratch, is_quick=asked.quick))
    print("\nGrowth")
    for point in points:
        print(f"  {point.at:>9,g} {point.axis:<10} {point.cpu_ms:8.2f} ms CPU an image {point.peak_mb:6.0f} MB")
    picture = asked.out / "growth.png"
    if growth.draw(points, picture):
        print(f"  {picture}")
    return [asdict(point) for point in points]


_PARTS = {
    "versus": _versus,
    "limited": _limited,
    "bucket": _bucket,
    "cluster": _cluster,
    "bookkeeping": _bookkeeping,
    "startup": _startup,
    "memory": _memory,
    "growth": _growth,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, under two minutes")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), metavar="PART,...")
    parser.add_argument(
        "--cases", type=int, metavar="N", help="of versus, only the first N; the goal case is the first"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"), help="where the figures go")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a real disk")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.only) - set(PARTS)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return asked


def _machine() -> str:
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} x {model or platform.machine()}, Python {platform.python_version()}, load {load:.1f}"


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)

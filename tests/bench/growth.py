"""Does an image cost the same among many, and a large one in proportion? CPU and memory against tasks and size.

In: a server and a scratch folder. Out: points; with matplotlib (extra `bench`) also a picture. A line that bends
upwards is a bug to find.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import child
from tests.bench.contenders import Work, manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run."""

    axis: str  # tasks | megabytes
    at: float
    cpu_ms: float  # an image
    peak_mb: float


def grow(url: str, folder: Path, scratch: Path, *, is_quick: bool) -> Iterator[Point]:
    """Run 100 to 100,000 tiny tasks, then answers of growing size; `memory` has the plan of a million."""
    count = 100
    while count <= (1000 if is_quick else 100_000):
        yield _point("tasks", count, Work(url=url, model="tiny", items=count, in_flight=32, folder=folder), scratch)
        count *= 10
    sizes = (("0.4MB", 0.4, 200), ("2.7MB", 2.7, 120), ("14MB", 14.0, 40), ("40MB", 40.0, 16))
    for model, megabytes, items in sizes[: 2 if is_quick else 4]:
        work = Work(url=url, model=model, items=items, in_flight=8, folder=folder)
        yield _point("megabytes", megabytes, work, scratch)


def _point(axis: str, at: float, work: Work, scratch: Path) -> Point:
    shutil.rmtree(work.folder, ignore_errors=True)
    manifest(work)
    arguments = ["imgpipe", work.url, work.model, str(work.items), str(work.in_flight), str(work.folder)]
    used = child.run("-m", "tests.bench.contenders", *arguments, scratch=scratch)
    shutil.rmtree(work.folder, ignore_errors=True)
    assert used.said.get("images") == work.items, used.errors
    return Point(axis=axis, at=at, cpu_ms=used.said["cpu_s"] / work.items * 1000, peak_mb=used.peak_mb)


def draw(points: Sequence[Point], path: Path) -> bool:
    """Draw the points; False where there is no matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for column, axis in enumerate(("tasks", "megabytes")):
        ours = [point for point in points if point.axis == axis]
        for row, (name, label) in enumerate((("cpu_ms", "CPU ms an image"), ("peak_mb", "resident, MB"))):
            place = axes[row][column]
            place.plot([point.at for point in ours], [getattr(point, name) for point in ours], "o-", color="#2a6f97")
            place.set_xlabel("tiny tasks in one run" if axis == "tasks" else "megabytes of one answer")
            place.set_ylabel(label)
            place.set_ylim(0, 1.2 * max(getattr(point, name) for point in ours))
            place.grid(alpha=0.3)
            if axis == "tasks":
                place.set_xscale("log")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True

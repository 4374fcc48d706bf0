"""How much is resident: large answers, many in flight, and a manifest of a million rows.

In: a server and a scratch folder. Out: rows of figure and goal; nothing here judges.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import child
from tests.bench.contenders import Work, manifest, manifest_path
from tests.bench.figures import Figure


def large(url: str, folder: Path, scratch: Path) -> Iterator[Figure]:
    """Measure 100 answers of 40 MB at once, and 1,000 of 2.7 MB at 256 in flight."""
    for model, items, in_flight, goal_mb in (("40MB", 100, 100, 900), ("2.7MB", 1000, 256, 500)):
        work = _work(url, model, items, in_flight, folder)
        used = child.run(
            "-m",
            "tests.bench.contenders",
            "imgpipe",
            url,
            model,
            str(items),
            str(in_flight),
            str(folder),
            scratch=scratch,
        )
        assert used.said.get("images") == items, used.errors
        yield Figure(f"{items} answers of {model}, {work.in_flight} in flight: resident", used.peak_mb, "MB", goal_mb)
    shutil.rmtree(folder, ignore_errors=True)


def many(url: str, folder: Path, scratch: Path, *, rows: int) -> Iterator[Figure]:
    """Measure a plan of `rows` tasks, and a run of the same manifest that is stopped after its first images."""
    work = _work(url, "tiny", rows, 32, folder)
    path = str(manifest_path(folder))
    plan = child.run("-m", "pipeline", "plan", path, "--json", scratch=scratch)
    assert plan.said.get("due") == work.items, plan.errors
    label = f"{rows:,} rows"
    yield Figure(f"plan of {label}: resident", plan.peak_mb, "MB", 300)
    yield Figure(f"plan of {label}: CPU", plan.cpu_s, "s", 45)
    first = _First(folder / "out")
    with first:
        run = child.run("-m", "pipeline", "run", path, "--budget", "40", "-q", "--json", scratch=scratch)
    assert run.said.get("exit") == 8, run.errors
    yield Figure(f"run of {label}, stopped after {run.said['images']:,} images: resident", run.peak_mb, "MB", 400)
    yield Figure(f"run of {label}: first image after the time of a plan", first.seconds - plan.seconds, "s", 5)
    shutil.rmtree(folder, ignore_errors=True)


def _work(url: str, model: str, items: int, in_flight: int, folder: Path) -> Work:
    shutil.rmtree(folder, ignore_errors=True)
    work = Work(url=url, model=model, items=items, in_flight=in_flight, folder=folder)
    manifest(work)
    return work


class _First:
    """Notes when the first image stands in a folder."""

    def __init__(self, folder: Path) -> None:
        self.seconds = 0.0
        self._folder = folder
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        began = time.monotonic()
        while not self._is_over.wait(0.05):
            if self._folder.is_dir() and any(entry.name != ".pipeline" for entry in self._folder.iterdir()):
                self.seconds = time.monotonic() - began
                return

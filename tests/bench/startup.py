"""How long until something happens: CPU of whole processes, the median of several, byte code cached."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench import child
from tests.bench.contenders import Work, manifest, manifest_path
from tests.bench.figures import Figure


def startup(url: str, folder: Path, scratch: Path, *, rounds: int) -> Iterator[Figure]:
    """Measure an empty interpreter, the help page, a plan and a run of one task."""
    commands = {
        "empty Python": ("-c", "pass"),
        "imgpipe --help": ("-m", "pipeline", "--help"),
        "imgpipe plan, one task": ("-m", "pipeline", "plan", str(manifest_path(folder))),
        "imgpipe run, one task": ("-m", "pipeline", "run", str(manifest_path(folder)), "--yes", "-q"),
    }
    seen: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):  # the first fills the caches
        for name, arguments in commands.items():
            shutil.rmtree(folder, ignore_errors=True)
            manifest(Work(url=url, model="tiny", items=1, in_flight=1, folder=folder))
            used = child.run(*arguments, scratch=scratch)
            assert used.exit == 0, used.errors
            if number:
                seen[name].append(used.cpu_s * 1000)
    empty = median(seen["empty Python"])
    goals = {"imgpipe --help": empty + 100, "imgpipe run, one task": 450}
    for name, values in seen.items():
        yield Figure(f"{name}: CPU of the process", median(values), "ms", goals.get(name))
    shutil.rmtree(folder, ignore_errors=True)

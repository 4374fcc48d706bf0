"""The contenders beside each other: rounds in alternating order, medians, and ratios pair by pair within a round.

In: a case (size, in flight, items, where). Out: a row a contender. Only ratios of one run mean anything on a machine
that does other things as well.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from tests.bench import child
from tests.bench.contenders import Work, manifest
from tests.bench.server import SLOW_S, Serving

SIZES = {"0.4 MB": 400_000, "2.7 MB": 2_700_000, "14 MB": 14_000_000}
ALL = ("imgpipe", "genai", "genai-aiohttp", "plain", "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is compared."""

    size: str
    in_flight: int
    items: int
    folder: Path  # on the file system that is measured
    where: str  # its name in the table
    rounds: int
    names: Sequence[str] = ALL
    is_slow: bool = False  # each answer takes 2 to 8 s

    def __str__(self) -> str:
        wait = f", {SLOW_S[0]:g} to {SLOW_S[1]:g} s each" if self.is_slow else ""
        return f"TLS, {self.size}, {self.in_flight} in flight, {self.items} images, {self.where}{wait}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender's medians; ratios are imgpipe's figure over this one's, pair by pair."""

    name: str
    images_per_s: float
    cpu_ms: float  # an image, imports not counted
    process_cpu_ms: float  # an image, the whole process
    peak_mb: float
    late_p99_ms: float
    late_max_ms: float
    busy_p99_ms: float
    ratio_images_per_s: float = 0.0
    ratio_cpu: float = 0.0  # of whole processes


def compare(case: Case, server: Serving, scratch: Path) -> list[Row]:
    """Run every contender `case.rounds` times."""
    seen: dict[str, list[Row]] = {name: [] for name in case.names}
    if case.rounds < 3:  # a median of fewer does not leave out the run that compiled the byte code
        for name in case.names:
            _one(replace(case, items=1, is_slow=False), name, server.url, scratch)
    for number in range(case.rounds):
        for name in case.names if number % 2 == 0 else reversed(case.names):
            seen[name].append(_one(case, name, server.slow_url if case.is_slow else server.url, scratch))
    return [_median(rows, seen.get("imgpipe", rows)) for rows in seen.values()]


def _one(case: Case, name: str, url: str, scratch: Path) -> Row:
    folder = case.folder / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    work = Work(url=url, model=case.size.replace(" ", ""), items=case.items, in_flight=case.in_flight, folder=folder)
    if name == "imgpipe":
        manifest(work)
    arguments = [name, url, work.model, str(case.items), str(case.in_flight), str(folder)]
    used = child.run("-m", "tests.bench.contenders", *arguments, scratch=scratch)
    shutil.rmtree(folder, ignore_errors=True)
    if used.exit != 0 or used.said["images"] != case.items:
        raise RuntimeError(f"{name} ({case}): exit {used.exit}, {used.said}\n{used.errors}")
    said = used.said
    return Row(
        name=name,
        images_per_s=case.items / said["seconds"],
        cpu_ms=said["cpu_s"] / case.items * 1000,
        process_cpu_ms=used.cpu_s / case.items * 1000,
        peak_mb=used.peak_mb,
        late_p99_ms=said["late_ms"]["p99"],
        late_max_ms=said["late_ms"]["max"],
        busy_p99_ms=said["late_ms"]["busy_p99"],
    )


def _median(rows: list[Row], ours: list[Row]) -> Row:
    figures = {name: median(asdict(row)[name] for row in rows) for name in asdict(rows[0]) if name != "name"}
    pairs = list(zip(ours, rows, strict=True))
    figures["ratio_images_per_s"] = median(a.images_per_s / b.images_per_s for a, b in pairs)
    figures["ratio_cpu"] = median(a.process_cpu_ms / b.process_cpu_ms for a, b in pairs)
    return Row(name=rows[0].name, **figures)


def cases(memory: Path, disk: Path, *, is_quick: bool) -> Iterator[Case]:
    """Yield the goal case first, then other sizes, then answers that take as long as a model does, then a real disk."""
    if is_quick:
        yield Case(size="2.7 MB", in_flight=32, items=150, folder=memory, where="memory", rounds=1)
        return
    yield Case(size="2.7 MB", in_flight=32, items=400, folder=memory, where="memory", rounds=5)
    for size, items in (("0.4 MB", 1000), ("14 MB", 150)):
        yield Case(size=size, in_flight=32, items=items, folder=memory, where="memory", rounds=3, names=ALL[:3])
    for in_flight, items, names in ((256, 600, ALL[:3]), (1000, 3000, ALL[:1])):
        yield Case(
            size="2.7 MB",
            in_flight=in_flight,
            items=items,
            folder=memory,
            where="memory",
            rounds=3,
            names=names,
            is_slow=True,
        )
    yield Case(size="2.7 MB", in_flight=32, items=400, folder=disk, where="disk", rounds=2, names=ALL[:3])

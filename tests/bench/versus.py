"""The contenders beside each other: rounds in alternating order, medians, and ratios pair by pair within a round.

In: a case (size, in flight, items, where). Out: a row a contender. Only ratios of one run mean anything on a machine
that does other things as well.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.bench import child
from tests.bench.contenders import Work, manifest

SIZES = {"0.4 MB": 400_000, "2.7 MB": 2_700_000, "14 MB": 14_000_000}
ALL = ("imgpipe", "genai", "genai-aiohttp", "plain", "bytes", "bytes-fresh")


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
    loop: str = ""

    def __str__(self) -> str:
        loop = f", {self.loop}" if self.loop else ""
        return f"{self.size}, {self.in_flight} in flight, {self.items} images, {self.where}{loop}"


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
    ratio_images_per_s: float = 0.0
    ratio_cpu: float = 0.0


def compare(case: Case, url: str, scratch: Path) -> list[Row]:
    """Run every contender `case.rounds` times."""
    seen: dict[str, list[Row]] = {name: [] for name in case.names}
    for number in range(case.rounds):
        for name in case.names if number % 2 == 0 else reversed(case.names):
            seen[name].append(_one(case, name, url, scratch))
    return [_median(rows, seen.get("imgpipe", rows)) for rows in seen.values()]


def _one(case: Case, name: str, url: str, scratch: Path) -> Row:
    folder = case.folder / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    work = Work(url=url, model=case.size.replace(" ", ""), items=case.items, in_flight=case.in_flight, folder=folder)
    if name == "imgpipe":
        manifest(work)
    arguments = [name, url, work.model, str(case.items), str(case.in_flight), str(folder), case.loop]
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
    )


def _median(rows: list[Row], ours: list[Row]) -> Row:
    figures = {name: median(asdict(row)[name] for row in rows) for name in asdict(rows[0]) if name != "name"}
    pairs = list(zip(ours, rows, strict=True))
    figures["ratio_images_per_s"] = median(a.images_per_s / b.images_per_s for a, b in pairs)
    figures["ratio_cpu"] = median(a.cpu_ms / b.cpu_ms for a, b in pairs)
    return Row(name=rows[0].name, **figures)


def cases(memory: Path, disk: Path, *, is_quick: bool) -> Iterator[Case]:
    """Yield the goal cases first (CPU and speed; how late the loop is), then every size, number in flight and where."""
    if is_quick:
        yield Case(size="2.7 MB", in_flight=32, items=150, folder=memory, where="memory", rounds=1)
        return
    yield Case(size="2.7 MB", in_flight=32, items=400, folder=memory, where="memory", rounds=5)
    names = ("imgpipe", "bytes-fresh")
    yield Case(size="14 MB", in_flight=32, items=300, folder=memory, where="memory", rounds=5, names=names)
    yield Case(size="2.7 MB", in_flight=32, items=400, folder=memory, where="memory", rounds=3, loop="uvloop")
    for size, items in (("0.4 MB", 600), ("2.7 MB", 300), ("14 MB", 64)):
        for in_flight in (8, 32, 256):
            for where, folder in (("memory", memory), ("disk", disk)):
                names = tuple(name for name in ALL if name not in ("genai-aiohttp", "bytes-fresh"))
                yield Case(
                    size=size,
                    in_flight=in_flight,
                    items=max(items, in_flight),
                    folder=folder,
                    where=where,
                    rounds=2,
                    names=names,
                )

"""What can be seen of a job from outside: the bill, the ledger, the files.

In: directories and a bill. Out: `Scene`, a plain record of one moment in which no run is alive. It shares nothing with
the program it looks at: files, plain `sqlite3` on a copy of the ledger, and the bill log of the simulator.
"""

import hashlib
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.whole import SUFFIXES

PART = re.compile(r"\.part-[0-9a-f]{8}-(\d+)-([0-9a-f]{64})")
CANARY = "canary"  # prompts of the checker's own requests begin with it
STATE = ".pipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """One line of the bill that costs money."""

    request: int
    prompt: str
    price_microusd: int
    sha256: str | None = None  # of the image that was sent; None: there was none
    fault: str | None = None  # how the simulator spoilt the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row of the ledger."""

    attempt: int
    task: str
    state: str
    reserved_microusd: int
    cost_microusd: int
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task as the ledger has it."""

    state: str
    path: str | None
    sha256: str | None
    unknowns: int
    cost_microusd: int
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file that has not got its final name."""

    path: str
    attempt: int
    promised: str  # the hash in its name
    sha256: str  # the hash of its bytes

    @property
    def is_whole(self) -> bool:
        return self.promised == self.sha256


@dataclass(slots=True, kw_only=True)
class Scene:
    """One moment."""

    sales: list[Sale] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    tasks: dict[str, TaskRow] = field(default_factory=dict)
    finals: dict[str, bytes] = field(default_factory=dict)  # path relative to the output directory -> bytes
    parts: list[Part] = field(default_factory=list)
    aside: set[str] = field(default_factory=set)  # hashes of what lies in superseded/ and rejected/

    @property
    def open_attempts(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.state == "sent"]

    @property
    def hashes(self) -> dict[str, str]:
        """Path of each image under a final name -> SHA-256."""
        return {path: sha256(data) for path, data in self.finals.items()}

    @property
    def kept(self) -> set[str]:
        """Every whole image that is on disk, wherever."""
        return {*self.hashes.values(), *(part.sha256 for part in self.parts if part.is_whole), *self.aside}

    @property
    def last_attempt(self) -> int:
        return max((attempt.attempt for attempt in self.attempts), default=0)

    @property
    def billed_microusd(self) -> int:
        return sum(sale.price_microusd for sale in self.sales)

    @property
    def reported_microusd(self) -> int:
        """What the ledger says may have been spent."""
        return sum(
            attempt.cost_microusd if attempt.state in ("ok", "paid") else attempt.reserved_microusd
            for attempt in self.attempts
            if attempt.state != "free"
        )


def sha256(data: bytes) -> str:
    """Return the hex hash."""
    return hashlib.sha256(data).hexdigest()


def task_of(path: str, prompts: Mapping[str, str]) -> str | None:
    """Return the id of the task whose file this is: `mugs/row7.png` is of `mugs/row7`."""
    task_id = path.rpartition(".")[0]
    return task_id if task_id in prompts else None


def look(output: Path, bill: Path) -> Scene:
    """Record this moment. No run may be alive."""
    scene = Scene(sales=read_bill(bill))
    _read_ledger(output / STATE, scene)
    for path in sorted(output.rglob("*")):
        relative = path.relative_to(output)
        if not path.is_file():
            continue
        if relative.parts[0] == STATE:
            if len(relative.parts) > 2 and relative.parts[1] in ("superseded", "rejected"):
                scene.aside.add(sha256(path.read_bytes()))
        elif match := PART.fullmatch(path.name):
            found = sha256(path.read_bytes())
            scene.parts.append(Part(path=relative.as_posix(), attempt=int(match[1]), promised=match[2], sha256=found))
        elif path.suffix in SUFFIXES:
            scene.finals[relative.as_posix()] = path.read_bytes()
        elif not path.name.startswith(".imgpipe-probe"):
            scene.finals[relative.as_posix()] = b""  # no file of another kind has a place here: not whole
    return scene


def lines_of(bill: Path) -> list[dict[str, Any]]:
    """Return the lines of the bill that are complete; the last one may be in the making."""
    if not bill.exists():
        return []
    return [json.loads(line) for line in bill.read_bytes().split(b"\n")[:-1]]


def read_bill(bill: Path) -> list[Sale]:
    """Return what was sold, the checker's own requests left out."""
    return [
        Sale(
            request=line["request"],
            prompt=line["prompt"],
            price_microusd=line["price_microusd"],
            sha256=line["image_sha256"][-1] if line["image_sha256"] else None,
            fault=line["fault"],
        )
        for line in lines_of(bill)
        if line["billed"] and not line["prompt"].startswith(CANARY)
    ]


def _read_ledger(state: Path, scene: Scene) -> None:
    """Read a copy: looking must not change what the next start finds."""
    if not (state / "ledger.sqlite").exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ledger.sqlite", "ledger.sqlite-wal"):
            if (state / name).exists():
                shutil.copy(state / name, folder)
        with closing(sqlite3.connect(Path(folder) / "ledger.sqlite")) as connection:
            for row in connection.execute(
                "SELECT attempt.attempt, task.id, attempt.state, reserved_microusd, attempt.cost_microusd,"
                " attempt.fingerprint FROM attempt JOIN task USING (task) ORDER BY attempt.attempt"
            ):
                names = ("attempt", "task", "state", "reserved_microusd", "cost_microusd", "fingerprint")
                scene.attempts.append(Attempt(**dict(zip(names, row, strict=True))))
            for task, *row in connection.execute(
                "SELECT id, state, path, sha256, unknowns, cost_microusd, fingerprint FROM task"
            ):
                names = ("state", "path", "sha256", "unknowns", "cost_microusd", "fingerprint")
                scene.tasks[task] = TaskRow(**dict(zip(names, row, strict=True)))

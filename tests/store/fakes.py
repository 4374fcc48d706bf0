"""Tasks, images and a disk that can fail."""

import errno
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from pipeline.errors import Conflict, StorageError
from pipeline.model import Answer, Artifact, Attempt, Digests, Failure, Fault, Image, Task, TaskState
from pipeline.store.files import Disk
from pipeline.store.integrity import verify_images
from pipeline.store.parts import Recovery
from pipeline.store.reader import LedgerReader
from pipeline.store.recovery import Recoverer
from pipeline.store.resources import StoreSettings, open_resources
from pipeline.store.store import Store

PRICE = 39_000
SHA = "0" * 64
FORMATS = {".png": ("PNG", "image/png"), ".jpg": ("JPEG", "image/jpeg"), ".webp": ("WEBP", "image/webp")}


@cache
def image(number: int = 0, suffix: str = ".png") -> Image:
    """Return a small whole image, another one for every number."""
    name, mime = FORMATS[suffix]
    buffer = io.BytesIO()
    Pillow.new("RGB", (16, 12), (number % 256, number // 256 % 256, 77)).save(buffer, name)
    data = buffer.getvalue()
    return Image(data=data, sha256=hashlib.sha256(data).hexdigest(), mime=mime, suffix=suffix, width=16, height=12)


def answer(number: int = 0, suffix: str = ".png") -> Answer:
    return Answer(image=image(number, suffix), request_id=f"req-{number}")


def task(number: int = 0, *, prompt: str = "a cat", **changes: Any) -> Task:
    """Return a task; another prompt is another fingerprint."""
    fields: dict[str, Any] = {
        "id": f"cats/{number}",
        "job": "cats",
        "row": str(number),
        "variant": 1,
        "prompt": prompt,
        "model": "gemini",
        "name": f"cats/{number}",
        "fingerprint": hashlib.sha256(f"{number} {prompt}".encode()).hexdigest(),
        "digests": Digests(prompt=prompt[:16], inputs="", params="", model="gemini"),
    }
    return Task(**fields | changes)


async def publish(
    store: Store, attempt: Attempt, answer: Answer, *, cost_microusd: int = PRICE, seconds: float = 1.0
) -> Artifact:
    """Put an image and record it, as a sender and the engine do together; raise what the engine would stop with."""
    result = await store.images.put(attempt, answer)
    if isinstance(result, Artifact):
        await store.finish(attempt, result, cost_microusd=cost_microusd, seconds=seconds)
        return result
    state = TaskState.CONFLICT if result.fault is Fault.CONFLICT else TaskState.PENDING
    await close(store, attempt, result, state=state, cost_microusd=cost_microusd, seconds=seconds)
    raise Conflict(result.reason, kept=result.kept or "")


async def close(
    store: Store,
    attempt: Attempt,
    failure: Failure,
    *,
    state: TaskState,
    cost_microusd: int = 0,
    unknown_microusd: int = 0,
    seconds: float = 1.0,
) -> None:
    """Record an attempt without an image; its body is kept first."""
    if failure.body is not None:
        failure = await store.images.keep_body(attempt, failure)
    await store.close(
        attempt, failure, state=state, cost_microusd=cost_microusd, unknown_microusd=unknown_microusd, seconds=seconds
    )
    if failure.storage_error is not None:
        raise StorageError(failure.storage_error)


def settings(root: Path, **changes: Any) -> StoreSettings:
    """Return settings for a store in `root`: images in `out`, state in `state`; no ballast unless asked for."""
    fields: dict[str, Any] = {
        "output_dir": root / "out",
        "state_dir": root / "state",
        "manifest": "m",
        "is_play_money": False,
        "reserve_bytes": 0,
        "warn": lambda _: None,
        "mountinfo": lambda: "",
    }
    return StoreSettings(**fields | changes)


def recover(root: Path, **changes: Any) -> Recovery:
    """Open, recover and close, as a start does."""
    chosen = settings(root, **changes)
    resources = open_resources(chosen)
    try:
        return Recoverer(resources).run()
    finally:
        resources.close()


def states(reader: LedgerReader) -> Counter[TaskState]:
    """Count the manifest's tasks by state."""
    return Counter(known.state for known in reader.all_known())


def done(root: Path) -> int:
    """Count the tasks that the ledger has as done."""
    with LedgerReader(root / "state", manifest="m") as reader:
        return states(reader)[TaskState.DONE]


def verified(root: Path) -> tuple[list[str], list[str]]:
    """Return the missing and the changed images, as a quick look finds them."""
    found = verify_images(output_dir=root / "out", state_dir=root / "state", manifest="m", is_quick=True)
    return found.missing, found.changed


def files(root: Path) -> dict[str, bytes]:
    """Return every file below a directory by its relative path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def place_of(fd: int) -> Path:
    """Return where an open descriptor lies."""
    return Path(str(Path(f"/proc/self/fd/{fd}").readlink()).removesuffix(" (deleted)"))


CALLS = ("open_dir", "mkdir", "create", "open", "write", "read", "fsync", "fsync_dir", "link", "unlink", "stat")
CALLS += ("rename", "rename_exclusive", "allocate", "statvfs")


@dataclass
class FaultyDisk(Disk):
    """A real disk on which chosen calls fail. `decide(call, place)` returns an errno or None."""

    decide: Callable[[str, Path], int | None] = lambda _call, _place: None
    calls: list[tuple[str, Path]] = field(default_factory=list)

    def _pass(self, call: str, fd: int | None) -> None:
        place = Path() if fd is None else place_of(fd)
        self.calls.append((call, place))
        code = self.decide(call, place)
        if code is not None:
            raise OSError(code, os.strerror(code))

    def open_dir(self, name: str | Path, *, dir_fd: int | None = None) -> int:
        self._pass("open_dir", dir_fd)
        return super().open_dir(name, dir_fd=dir_fd)

    def mkdir(self, name: str, *, dir_fd: int, mode: int = 0o777) -> None:
        self._pass("mkdir", dir_fd)
        super().mkdir(name, dir_fd=dir_fd, mode=mode)

    def create(self, name: str, *, dir_fd: int, mode: int = 0o666) -> int:
        self._pass("create", dir_fd)
        return super().create(name, dir_fd=dir_fd, mode=mode)

    def open(self, name: str, *, dir_fd: int) -> int:
        self._pass("open", dir_fd)
        return super().open(name, dir_fd=dir_fd)

    def write(self, fd: int, data: memoryview) -> int:
        self._pass("write", fd)
        return super().write(fd, data)

    def read(self, fd: int, size_bytes: int) -> bytes:
        self._pass("read", fd)
        return super().read(fd, size_bytes)

    def fsync(self, fd: int) -> None:
        self._pass("fsync", fd)
        super().fsync(fd)

    def fsync_dir(self, fd: int) -> None:
        self._pass("fsync_dir", fd)
        super().fsync_dir(fd)

    def link(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        self._pass("link", new_dir_fd)
        super().link(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)

    def rename(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        self._pass("rename", new_dir_fd)
        super().rename(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)

    def rename_exclusive(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        self._pass("rename_exclusive", new_dir_fd)
        super().rename_exclusive(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        self._pass("unlink", dir_fd)
        super().unlink(name, dir_fd=dir_fd)

    def stat(self, name: str, *, dir_fd: int) -> os.stat_result:
        self._pass("stat", dir_fd)
        return super().stat(name, dir_fd=dir_fd)

    def statvfs(self, fd: int) -> os.statvfs_result:
        self._pass("statvfs", fd)
        return super().statvfs(fd)

    def allocate(self, fd: int, size_bytes: int) -> None:
        self._pass("allocate", fd)
        super().allocate(fd, size_bytes)


class CaselessDisk(Disk):
    """A disk that keeps the case of names and ignores it when they are looked for, as those of macOS do."""

    def _there(self, name: str, dir_fd: int) -> str:
        return next((there for there in os.listdir(dir_fd) if there.casefold() == name.casefold()), name)

    def open_dir(self, name: str | Path, *, dir_fd: int | None = None) -> int:
        return super().open_dir(name if dir_fd is None else self._there(str(name), dir_fd), dir_fd=dir_fd)

    def open(self, name: str, *, dir_fd: int) -> int:
        return super().open(self._there(name, dir_fd), dir_fd=dir_fd)

    def stat(self, name: str, *, dir_fd: int) -> os.stat_result:
        return super().stat(self._there(name, dir_fd), dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        super().unlink(self._there(name, dir_fd), dir_fd=dir_fd)

    def link(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        there = self._there(new_name, new_dir_fd)
        super().link(self._there(name, dir_fd), there, dir_fd=dir_fd, new_dir_fd=new_dir_fd)

    def rename(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        super().rename(self._there(name, dir_fd), new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)


def without_links(call: str, _place: Path) -> int | None:
    """A file system like exFAT: no hard links."""
    return errno.EPERM if call == "link" else None

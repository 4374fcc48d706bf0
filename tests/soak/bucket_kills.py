"""Runs over a bucket that are killed at chosen points: what is bought is kept, what is kept is never bought again."""

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Imgpipe, Served
from tests.s3 import ENVIRON, SECRET

PUTTING = ("intent", "connect", "body", "decode", "put", "link", "done", "unlink")
SUPERSEDING = ("kept", "superseded")  # only where an earlier image makes way
KILLED = -9
ITEMS = 6


@dataclass
class BucketLoop:
    """One manifest over one prefix; every version of it has other prompts, so that earlier images make way."""

    imgpipe: Imgpipe  # what is killed
    called: Imgpipe  # what comes to its end
    server: Served
    folder: Path
    endpoint: str
    store: Any  # the prefix, seen without the program
    prefix: str
    version: int = 0
    seen: set[str] = field(default_factory=set)
    deaths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for command in (self.imgpipe, self.called):
            command.env |= {**ENVIRON, "AWS_ENDPOINT_URL": self.endpoint}
        self.change()

    @property
    def manifest(self) -> Path:
        return self.folder / "shop.yaml"

    def change(self) -> None:
        """Ask for other images."""
        self.version += 1
        rows = "\n".join(f"      row{n}: A red mug number {n}, version {self.version}" for n in range(ITEMS))
        self.manifest.write_text(
            f"version: 1\nprovider: {{kind: cometapi, base_url: '{self.server.base_url}'}}\n"
            f"output_dir: s3://bucket/{self.prefix}\nretry: {{unknown: 9, wait: {{initial: 10ms, max: 50ms}}}}\n"
            f"prices: {{gemini-nano-banana-2.1: 0.039}}\njobs:\n  mugs:\n    items:\n{rows}\n"
        )

    def run(self, points: Sequence[str]) -> None:
        """Die once at each point; after each death, and at the end, nothing is lost."""
        for point in points:
            if point in SUPERSEDING:
                self.complete()
                self.change()
            self.die(point)
            self.check()
        self.complete()
        self.check()

    def die(self, point: str) -> None:
        env = {"FAILPOINT": f"{point}:1:kill"}
        done = self.imgpipe("run", self.manifest, env=env)
        if done.returncode == 0:  # everything was there
            self.change()
            done = self.imgpipe("run", self.manifest, env=env)
        assert done.returncode == KILLED, (point, done.returncode, done.stderr)
        self.deaths.append(point)

    def complete(self) -> None:
        done = self.called("run", self.manifest)
        assert done.returncode == 0, done.stderr
        assert self.called.json("run", self.manifest)["attempts"] == 0

    def objects(self) -> dict[str, str]:
        """Return the hash of every object by path; each is whole, and what its metadata says."""
        found = {}
        for page in self.store.list():
            for meta in page:
                got = self.store.get(meta["path"])
                found[meta["path"]] = hashlib.sha256(bytes(got.bytes())).hexdigest()
                if ".imgpipe-probe-" not in meta["path"]:
                    assert got.attributes["sha256"] == found[meta["path"]]
        return found

    def check(self) -> None:
        """Every image that was ever seen is there; every one that the ledger calls done is under its name."""
        objects = self.objects()
        state = self.folder / ".pipeline/shop"
        kept = {path.name.split("-")[2].partition(".")[0] for path in (state / "rejected").glob("*.???*")}
        assert self.seen <= {*objects.values(), *kept}, self.deaths
        self.seen |= {*objects.values()}
        with closing(sqlite3.connect(state / "ledger.sqlite")) as ledger:
            done = dict(ledger.execute("SELECT path, sha256 FROM task WHERE state = 'done'"))
            states = [state for (state,) in ledger.execute("SELECT state FROM attempt")]
        assert {path: objects.get(path) for path in done} == done, self.deaths
        assert len(self.server.billed) <= len(states)
        assert not [path for path in state.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
        assert not any(SECRET in ended.stdout + ended.stderr for ended in self.imgpipe.ended + self.called.ended)

    def lost(self) -> int:
        """Return how many requests nobody knows the outcome of."""
        with closing(sqlite3.connect(self.folder / ".pipeline/shop/ledger.sqlite")) as ledger:
            (number,) = ledger.execute("SELECT count(*) FROM attempt WHERE state = 'unknown'").fetchone()
        return int(number)

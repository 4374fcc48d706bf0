"""Twenty nights of a shop: a table that changes, a budget for the day, refusals, outages and kills, and its bill.

The clock is not moved: between two nights everything that the ledger remembers becomes a day older, which is the same.
"""

import contextlib
import hashlib
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Imgpipe, Served, Servers, images, wait_until

NIGHTS = 20
DAY_US = 86_400_000_000
BUDGET_MICROUSD = 400_000
STATE_BYTES = 4 * 2**20  # of the state directory at the end; 2 MiB of it are the disk reserve
TIMES = {
    "attempt": ("sent_at", "ended_at"),
    "run": ("started_at", "ended_at"),
    "task": ("updated_at",),
    "hold": ("set_at", "not_before"),
    "meta": ("created_at",),
}
PROFILE = """
picture: tiny
latency: 40ms
faults:
  - {name: image_safety, every: 17}
  - {name: text_only, every: 11}
  - {name: server_error, every: 7}
  - {name: disconnect, every: 23}
  - {name: broken_json, every: 29}
"""
MANIFEST = """
version: 1
name: shop
provider: {{kind: cometapi, base_url: '{url}'}}
output_dir: out
retry: {{wait: {{initial: 10ms, max: 50ms}}}}
limits: {{concurrency: 4, budget: {{day: 0.40}}}}
jobs:
  mugs: {{each: {{csv: mugs.csv}}, prompt: 'A {{{{ row.colour }}}} mug'}}
"""


class Shop:
    """A folder with a manifest, its table, and the server that bills it."""

    def __init__(self, folder: Path, served: Served, dice: random.Random) -> None:
        self.folder = folder
        self.served = served
        self.dice = dice
        self.rows: dict[str, str] = {}
        self.manifest = folder / "shop.yaml"
        self.manifest.write_text(MANIFEST.format(url=served.base_url))
        self.command = Imgpipe(folder)

    @property
    def state(self) -> Path:
        return self.folder / "out" / ".pipeline"

    def change_table(self, night: int) -> None:
        for number in range(self.dice.randint(1, 5)):
            self.rows[f"n{night}-{number}"] = f"{self.dice.choice(['red', 'navy', 'gold'])} {night}.{number}"
        if night % 3 == 2:
            self.rows[self.dice.choice(sorted(self.rows))] += " shiny"
        if night % 4 == 3:
            del self.rows[self.dice.choice(sorted(self.rows))]
        lines = [f"{row},{colour}" for row, colour in self.rows.items()]
        (self.folder / "mugs.csv").write_text("\n".join(["id,colour", *lines]) + "\n")

    def run(self) -> int:
        return self.command("run", self.manifest, "-q", "-y").returncode

    def run_and_kill(self) -> None:
        """Kill a run in the midst of its requests, if it comes so far."""
        before, wanted = len(self.served.bill), self.dice.randint(1, 4)
        process = self.command.start("run", self.manifest, "-q", "-y")
        wait_until(lambda: process.poll() is not None or len(self.served.bill) >= before + wanted)
        process.kill()
        process.communicate()

    def grow_older(self) -> None:
        with contextlib.closing(sqlite3.connect(self.state / "ledger.sqlite")) as ledger, ledger:
            for table, columns in TIMES.items():
                ledger.execute(f"UPDATE {table} SET " + ", ".join(f"{c} = {c} - {DAY_US}" for c in columns))

    def unknowns(self) -> int:
        with contextlib.closing(sqlite3.connect(self.state / "ledger.sqlite")) as ledger:
            return int(ledger.execute("SELECT count(*) FROM attempt WHERE state = 'unknown'").fetchone()[0])

    def check_images(self) -> None:
        """Every image is one that was billed for its own prompt, byte for byte."""
        sold: dict[str, set[str]] = {}
        for line in self.served.billed:
            sold.setdefault(line["prompt"], set()).update(line["image_sha256"])
        told = self.command("status", self.manifest, "--tasks", "--json").stdout.splitlines()[1:]
        done = {task["id"]: task["sha256"] for task in map(json.loads, told) if task["state"] == "done"}
        assert done
        for row, colour in self.rows.items():
            assert done.get(f"mugs/{row}") in {None, *sold.get(f"A {colour} mug", ())}, row
        every = set().union(*sold.values())
        assert all(hashlib.sha256(path.read_bytes()).hexdigest() in every for path in images(self.folder))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


@pytest.mark.parametrize("seed", [1])
def test_twenty_nights_agree_with_their_bill(tmp_path: Path, servers: Servers, seed: int) -> None:
    dice = random.Random(seed)
    print(f"seed {seed}")
    shop = Shop(tmp_path, servers.start(PROFILE), dice)
    for night in range(NIGHTS):
        before = len(shop.served.billed)
        shop.change_table(night)
        if night % 3 == 1:
            shop.run_and_kill()
        exit_code = shop.run()
        assert exit_code in (0, 3, 8, 75), (night, shop.command.ended[-1].stderr)
        billed = sum(line["price_microusd"] for line in shop.served.billed[before:])
        status = shop.command.json("status", shop.manifest)
        counted = status["cost_usd"]["day"] * 1e6
        assert billed <= BUDGET_MICROUSD, night
        with contextlib.closing(sqlite3.connect(shop.state / "ledger.sqlite")) as ledger:
            maybe = "SELECT coalesce(sum(reserved_microusd), 0) FROM attempt WHERE state = 'unknown' AND sent_at > ?"
            since = ledger.execute("SELECT max(started_at) FROM run").fetchone()[0] - DAY_US // 2
            counted += ledger.execute(maybe, (since,)).fetchone()[0]
        assert counted >= billed - 1, night
        shop.grow_older()
    for _ in range(10):  # the nights after the last change
        before = len(shop.served.bill)
        shop.run()
        shop.grow_older()
        if len(shop.served.bill) == before:
            break
    else:
        pytest.fail("ten nights without a change still sent requests")
    bought = Counter(line["prompt"] for line in shop.served.billed if line["fault"] is None and line["images"])
    assert sum(number - 1 for number in bought.values()) <= shop.unknowns()
    shop.check_images()
    assert shop.command("verify", shop.manifest).returncode == 0
    assert sum(path.stat().st_size for path in shop.state.rglob("*") if path.is_file()) < STATE_BYTES

"""Twenty nights of a shop under a clock of its own: changing tables and folders, a chain, budgets, outages and kills.

Each seed has a zone whose midnight comes twice in one of the nights. The bill is the simulator's; days are read off the
zone's own clock. `IMGPIPE_SOAK_SEED` makes other nights.
"""

import contextlib
import hashlib
import json
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.conftest import Imgpipe, Served, Servers, images, wait_until
from tests.engine.test_wallet import spend_a_year
from tests.provider.conftest import png
from tests.test_settings import unlike_zones

NIGHTS = 20
SEED = int(os.environ.get("IMGPIPE_SOAK_SEED") or random.randrange(10**6))
BUDGET_MICROUSD = 280_000
STATE_BYTES = 4 * 2**20  # of the state directory at the end; 2 MiB of it are the disk reserve
CLOCK = """
import datetime, os, time
real, ahead_s = time.time, float(os.environ["AHEAD_S"])
time.time = lambda: real() + ahead_s
class Moved(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
datetime.datetime = Moved
"""
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
limits: {{concurrency: 4, tz: {zone}, budget: {{day: 0.28}}}}
jobs:
  mugs: {{each: {{csv: mugs.csv}}, prompt: 'A {{{{ row.colour }}}} mug'}}
  tables: {{each: {{job: mugs}}, images: ['{{{{ file.path }}}}'], prompt: 'On a table, {{{{ row.colour }}}}'}}
  photos: {{each: {{files: 'photos/*.png'}}, images: ['{{{{ file.path }}}}'], prompt: 'Evening, {{{{ file.stem }}}}'}}
"""


class Shop:
    """A folder with a manifest, its table and photographs, the server that bills it, and a clock."""

    def __init__(self, folder: Path, served: Served, dice: random.Random, zone: str) -> None:
        self.folder = folder
        self.served = served
        self.dice = dice
        self.zone = ZoneInfo(zone)
        self.rows: dict[str, str] = {}
        self.billed: Counter[date] = Counter()  # by local day
        self.manifest = folder / "shop.yaml"
        self.manifest.write_text(MANIFEST.format(url=served.base_url, zone=zone))
        self.command = Imgpipe(folder)
        (folder / "photos").mkdir()
        (folder / "clock").mkdir()
        (folder / "clock" / "sitecustomize.py").write_text(CLOCK)

    @property
    def state(self) -> Path:
        return self.folder / "out" / ".pipeline"

    def be_at(self, moment: datetime) -> None:
        """Set the clock of the commands that follow."""
        ahead = (moment - datetime.now(UTC)).total_seconds()
        self.command.env |= {"PYTHONPATH": str(self.folder / "clock"), "AHEAD_S": str(ahead)}
        self.day = moment.astimezone(self.zone).date()

    def change(self, night: int) -> None:
        """Sell other things: rows and photographs come, some change, one goes."""
        for number in range(self.dice.randint(1, 4)):
            self.rows[f"n{night}-{number}"] = f"{self.dice.choice(['red', 'navy', 'gold'])} {night}.{number}"
        if night % 3 == 2:
            self.rows[self.dice.choice(sorted(self.rows))] += " shiny"
        if night % 4 == 3:
            del self.rows[self.dice.choice(sorted(self.rows))]
        lines = [f"{row},{colour}" for row, colour in self.rows.items()]
        (self.folder / "mugs.csv").write_text("\n".join(["id,colour", *lines]) + "\n")
        if night % 2 == 0:
            picture = png(rows=(b"\0" + bytes([night]) * 48) * 16)
            (self.folder / "photos" / f"p{night}.png").write_bytes(picture)

    def run(self, *, dies: bool = False) -> int:
        """Run, or kill a run in the midst of its requests if it comes so far; count what was billed meanwhile."""
        before, wanted = len(self.served.bill), self.dice.randint(1, 4)
        process = self.command.start("run", self.manifest, "-q", "-y")
        if dies:
            wait_until(lambda: process.poll() is not None or len(self.served.bill) >= before + wanted, timeout=60)
            process.kill()
        self.said = process.communicate()[1]
        self.billed[self.day] += sum(line["price_microusd"] for line in self.served.bill[before:] if line["billed"])
        return process.returncode

    def asked(self, query: str) -> list[tuple[int, ...]]:
        with contextlib.closing(sqlite3.connect(self.state / "ledger.sqlite")) as ledger:
            return ledger.execute(query).fetchall()

    def check_days(self) -> None:
        """No day of the zone has more on the bill than its budget, nor more than the ledger counts on it."""
        counted: Counter[date] = Counter()
        query = "SELECT sent_at, CASE state WHEN 'unknown' THEN reserved_microusd ELSE cost_microusd END FROM attempt"
        for sent_at, microusd in self.asked(query):
            counted[datetime.fromtimestamp(sent_at / 1e6, self.zone).date()] += microusd
        for day, microusd in self.billed.items():
            assert microusd <= BUDGET_MICROUSD, day
            assert microusd <= counted[day] + 1, day

    def check_images(self) -> None:
        """Every image is one that was billed for its own prompt, byte for byte."""
        sold: dict[str, set[str]] = {}
        for line in self.served.billed:
            sold.setdefault(line["prompt"], set()).update(line["image_sha256"])
        told = self.command("status", self.manifest, "--tasks", "--json").stdout.splitlines()[1:]
        done = {task["id"]: task["sha256"] for task in map(json.loads, told) if task["state"] == "done"}
        prompts = {f"mugs/{row}": f"A {colour} mug" for row, colour in self.rows.items()}
        prompts |= {f"tables/{row}": f"On a table, {colour}" for row, colour in self.rows.items()}
        prompts |= {f"photos/{path.stem}": f"Evening, {path.stem}" for path in (self.folder / "photos").glob("*.png")}
        assert {task_id.partition("/")[0] for task_id in done} == {"mugs", "tables", "photos"}
        for task_id, prompt in prompts.items():
            assert done.get(task_id) in {None, *sold.get(prompt, ())}, task_id
        every = set().union(*sold.values())
        assert all(hashlib.sha256(path.read_bytes()).hexdigest() in every for path in images(self.folder))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


def moments(day: date, zone: ZoneInfo) -> list[datetime]:
    """Return when a night's runs begin: a little after midnight, after its second one where it has two, and late."""
    early = (datetime.combine(day, time(0, 20, fold=fold), zone).astimezone(UTC) for fold in (0, 1))
    return sorted({*early, datetime.combine(day, time(22, 40), zone).astimezone(UTC)})


@pytest.mark.soak
@pytest.mark.parametrize(
    ("seed", "zone", "first", "is_ahead_once"),
    [
        (1, "America/Havana", date(2026, 10, 22), False),
        (2, "Atlantic/Azores", date(2026, 10, 15), True),
        (SEED, "Europe/Berlin", date(2026, 3, 15), True),
    ],
)
def test_twenty_nights_agree_with_their_bill(
    tmp_path: Path,
    servers: Servers,
    capsys: pytest.CaptureFixture[str],
    seed: int,
    zone: str,
    first: date,
    is_ahead_once: bool,
) -> None:
    with capsys.disabled():
        print(f"\nIMGPIPE_SOAK_SEED={seed} in {zone}", flush=True)
    shop = Shop(tmp_path, servers.start(PROFILE), random.Random(seed), zone)
    for night in range(NIGHTS):
        shop.change(night)
        for number, moment in enumerate(moments(first + timedelta(days=night), shop.zone)):
            shop.be_at(moment + timedelta(days=400 if is_ahead_once and night == NIGHTS // 2 else 0))
            if night % 3 == 1 and number == 0:
                shop.run(dies=True)
            assert shop.run() in (0, 3, 8, 75), (night, shop.said)
    for night in range(NIGHTS, NIGHTS + 10):  # those after the last change
        shop.be_at(moments(first + timedelta(days=night), shop.zone)[0])
        before = len(shop.served.bill)
        exit_code = shop.run()
        if len(shop.served.bill) == before:
            break
    else:
        pytest.fail("ten nights without a change still sent requests")
    assert (exit_code, bool(shop.said)) in ((0, is_ahead_once), (3, True))
    shop.check_days()
    bought = Counter(line["prompt"] for line in shop.served.billed if line["fault"] is None and line["images"])
    ((unknowns,),) = shop.asked("SELECT count(*) FROM attempt WHERE state = 'unknown'")
    assert sum(number - 1 for number in bought.values()) <= unknowns
    shop.check_images()
    assert shop.command("verify", shop.manifest).returncode == 0
    assert sum(path.stat().st_size for path in shop.state.rglob("*") if path.is_file()) < STATE_BYTES
    shop.command.end()


@pytest.mark.soak
@pytest.mark.parametrize("name", unlike_zones())
def test_a_year_of_hours_spends_each_day_once_in_every_zone(name: str) -> None:
    spend_a_year(name)

"""Workers, nodes and runs that die on a cluster of two nodes, judged from outside by the simulator's bill.

`IMGPIPE_SOAK_WORKERS` and `IMGPIPE_SOAK_NODES` are how many workers and raylets are killed.
"""

import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Nodes
from tests.e2e.conftest import Imgpipe, Served, Servers, images, imgpipe, servers, wait_until
from tests.soak.evidence import Scene
from tests.soak.kills import Job, make_job
from tests.soak.verdict import complaints, complaints_at_the_end

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.soak
__all__ = ["imgpipe", "servers"]
SEED = int(os.environ.get("IMGPIPE_SOAK_SEED") or random.randrange(10**6))
WORKERS = int(os.environ.get("IMGPIPE_SOAK_WORKERS", "30"))
NODES = int(os.environ.get("IMGPIPE_SOAK_NODES", "3"))
CONCURRENCY = 8


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    found = Nodes(Path(tempfile.mkdtemp(prefix="rn", dir="/tmp")), port=port)
    try:
        found.start()
        found.start()
        yield found
    finally:
        found.stop()


class Shop:
    """A job, its simulator, and runs of it on the cluster."""

    def __init__(self, imgpipe: Imgpipe, servers: Servers, nodes: Nodes, folder: Path, *, tasks: int) -> None:
        self.imgpipe, self.nodes = imgpipe, nodes
        self.job: Job = make_job(folder / "job", servers, random.Random(SEED), tasks=tasks, latencies=(100,))
        self.seen = Scene()
        self.runs = 0

    @property
    def made(self) -> int:
        return len(images(self.job.manifest.parent))

    def start(self, *flags: str) -> "subprocess.Popen[str]":
        self.runs += 1
        command = ("run", self.job.manifest, "-y", "-q", "--json", "-j", str(CONCURRENCY))
        return self.imgpipe.start(*command, "--ray", self.nodes.address, "--workers", "2", *flags, env=self.nodes.env)

    def wait_for(self, number: int, run: "subprocess.Popen[str]") -> None:
        """Wait until so many more images are there, or the run is over."""
        goal = self.made + number
        wait_until(lambda: self.made >= goal or run.poll() is not None, timeout=120)

    def check(self, deaths: int) -> None:
        """Say every money promise that the last run broke."""
        after = self.job.quiet_scene()
        crew = max(1, deaths) * (CONCURRENCY + 2)
        found = complaints(self.seen, after, prompts=self.job.prompts, crew=crew)
        assert found == [], f"seed {SEED}:\n" + "\n".join(found)
        self.seen = after

    def check_end(self, run: "subprocess.Popen[str]", deaths: int) -> dict[str, Any]:
        out, err = run.communicate(timeout=300)
        assert run.returncode == 0, f"seed {SEED}, exit {run.returncode}: {err}{out}"
        self.check(deaths)
        again = self.imgpipe.json("run", self.job.manifest, "-y")  # a worker may have died with a part half written
        assert (again["exit"], again["attempts"]) == (0, 0)
        self.check(deaths)
        found = complaints_at_the_end(self.seen, prompts=self.job.prompts)
        assert found == [], f"seed {SEED}:\n" + "\n".join(found)
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
        print(f"seed {SEED}: {len(self.seen.finals)} images kept, {len(self.seen.sales)} bought, {result['workers']}")
        return result


def kill_one(nodes: Nodes, dice: random.Random, node: int | None = None) -> None:
    """Kill a worker; wait for one where all are just dead."""
    wait_until(lambda: nodes.senders(node), timeout=60)
    os.kill(dice.choice(nodes.senders(node)), signal.SIGKILL)


def test_killed_workers(imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path) -> None:
    shop, dice = Shop(imgpipe, servers, nodes, tmp_path, tasks=WORKERS * 12), random.Random(SEED)
    run = shop.start()
    killed = 0
    for _ in range(WORKERS):
        shop.wait_for(dice.randrange(3, 10), run)
        if run.poll() is not None:
            break
        kill_one(nodes, dice)
        killed += 1
    result = shop.check_end(run, killed)
    assert killed == WORKERS
    assert result["workers"]["lost"] <= killed


def test_killed_nodes(imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path) -> None:
    shop = Shop(imgpipe, servers, nodes, tmp_path, tasks=NODES * 60)
    run, last = shop.start(), 1
    for _ in range(NODES):
        shop.wait_for(20, run)
        (raylet,) = nodes.raylets(last)
        os.kill(raylet, signal.SIGKILL)
        nodes.processes[last].wait(timeout=60)
        last = nodes.start()
    result = shop.check_end(run, NODES * 2)
    assert result["workers"]["started"] == 2


def test_a_frozen_node_that_wakes_up_harms_nothing(
    imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path
) -> None:
    shop = Shop(imgpipe, servers, nodes, tmp_path, tasks=300)
    log = tmp_path / "log.jsonl"
    run = shop.start("--log-format", "json", "--log-file", str(log))
    shop.wait_for(20, run)
    nodes.signal(1, signal.SIGSTOP)
    wait_until(lambda: "worker_lost" in log.read_text() or run.poll() is not None, timeout=120)
    shop.wait_for(20, run)
    nodes.signal(1, signal.SIGCONT)
    result = shop.check_end(run, 2)
    assert result["workers"]["lost"] == 1


def test_killed_runs_go_on_on_the_cluster_and_without_it(
    imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path
) -> None:
    shop = Shop(imgpipe, servers, nodes, tmp_path, tasks=150)
    for _ in range(3):
        run = shop.start()
        shop.wait_for(25, run)
        run.kill()
        run.communicate()
        wait_until(lambda: not nodes.senders(), timeout=60)
        shop.check(1)
    done = imgpipe.json("run", shop.job.manifest, "-y")
    assert done["exit"] == 0
    shop.check(1)
    assert complaints_at_the_end(shop.seen, prompts=shop.job.prompts) == []


def bought(server: Served) -> int:
    return len(server.billed)


def test_a_budget_is_exact_over_two_workers(imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path) -> None:
    shop = Shop(imgpipe, servers, nodes, tmp_path, tasks=80)
    run = shop.start("--budget", "1.17")
    out, err = run.communicate(timeout=120)
    assert run.returncode == 8, err
    spent = json.loads(out)["cost_usd"]["spent"]
    assert spent == pytest.approx(sum(line["price_microusd"] for line in shop.job.server.billed) / 1_000_000)
    assert 1.17 - 0.06 < spent <= 1.17  # the next image may have cost 5 cents
    assert shop.made == bought(shop.job.server)


def test_a_told_rate_is_exact_over_two_workers(
    imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path
) -> None:
    shop = Shop(imgpipe, servers, nodes, tmp_path, tasks=60)
    started = time.monotonic()
    run = shop.start("--rpm", "240")
    _, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert time.monotonic() - started >= 59 / 4  # one every 0.25 s
    times = sorted(line_time(line) for line in shop.job.server.bill)
    assert most_within(times, 5.0) <= 5 * 4 + 2


def line_time(line: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(line["time"]).timestamp()


def most_within(times: list[float], seconds: float) -> int:
    return max(sum(begin <= each < begin + seconds for each in times) for begin in times)


def has_requests(imgpipe: Imgpipe, shop: Shop) -> bool:
    running = imgpipe.json("status", shop.job.manifest)["running"]
    return running is not None and running["in_flight"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_drains_and_a_second_one_leaves_at_once(
    imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path, number: signal.Signals
) -> None:
    shop = Shop(imgpipe, servers, nodes, tmp_path, tasks=200)
    run = shop.start()
    shop.wait_for(20, run)
    run.send_signal(number)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 128 + number, err
    assert json.loads(out.splitlines()[-1])["tasks"]["unknown"] == 0
    shop.check(0)

    slow = servers.start("picture: tiny\nlatency: 30s\n")
    shop.job.manifest.write_text(shop.job.manifest.read_text().replace(shop.job.server.base_url, slow.base_url))
    run = shop.start()
    wait_until(lambda: run.poll() is not None or has_requests(imgpipe, shop), timeout=60)
    run.send_signal(number)
    time.sleep(1)  # two of a kind at once are one
    run.send_signal(number)
    started = time.monotonic()
    out, err = run.communicate(timeout=60)
    assert run.returncode == 128 + number, err
    assert json.loads(out.splitlines()[-1])["tasks"]["unknown"] > 0
    assert time.monotonic() - started < 15  # 2 s, and what Ray takes to stop


def test_before_anything_is_sent_every_worker_proves_that_it_can_send(
    imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path
) -> None:
    """A third node has no key, a fourth one another folder under the same path; each has room for all the others."""
    shop = Shop(imgpipe, servers, nodes, tmp_path, tasks=3)
    shop.job.output.mkdir()
    for env, before, told in (
        ({"COMETAPI_KEY": ""}, (), "no API key"),
        (
            {},
            ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', shop.job.output),
            "not seen here",
        ),
    ):
        nodes.start(before=before, **env)
        run = shop.start("--workers", "3")
        out, err = run.communicate(timeout=120)
        assert run.returncode == 2, err
        assert told in json.loads(out)["error"]
        assert socket.gethostname() in json.loads(out)["error"]
        nodes.end(len(nodes.processes) - 1)
    assert bought(shop.job.server) == 0


def test_a_worker_apart_keeps_what_it_cannot_publish_in_the_output(
    imgpipe: Imgpipe, servers: Servers, nodes: Nodes, tmp_path: Path
) -> None:
    """It sees another folder where the state directory is; it keeps bodies, and images in the place of others."""
    shop = Shop(imgpipe, servers, nodes, tmp_path, tasks=20)
    broken = servers.start("picture: tiny\nlatency: 50ms\nfaults: [{name: bad_base64, probability: 0.3}]\n")
    shop.job.manifest.write_text(shop.job.manifest.read_text().replace(shop.job.server.base_url, broken.base_url))
    state = shop.job.output / ".pipeline"
    state.mkdir(parents=True)
    nodes.end(1)
    nodes.start(before=("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', state))
    for _ in range(2):
        run = shop.start("--workers", "4")
        out, err = run.communicate(timeout=120)
        assert out, err
        assert json.loads(out.splitlines()[-1])["tasks"]["pending"] == 0, err
        shop.job.change_prompts()
    bodies = {path for path in (state / "rejected").iterdir() if not path.name.endswith(".facts.json")}
    spoilt = [line for line in broken.billed if line["fault"] == "bad_base64"]
    assert len(bodies) == len(spoilt) > 0
    assert len(list((state / "superseded").iterdir())) > 0
    assert not list(shop.job.output.glob(".kept-*"))
    assert imgpipe("verify", shop.job.manifest).returncode == 0

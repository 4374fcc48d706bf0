"""A run on Ray, the real one: two workers on this machine, of which one is killed."""

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.canary import leaks
from tests.e2e.cluster import senders, temporary_folder
from tests.e2e.conftest import CANARIES, Imgpipe, Servers, images, wait_until, write_manifest
from tests.soak.evidence import look
from tests.soak.verdict import complaints_at_the_end

# not imported to be collected: that takes each worker of the suite a second
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
ITEMS = 60
EXTRA = "prices: {gemini-nano-banana-2.1: 0.039}\nlimits: {concurrency: 8}\n"


@pytest.mark.timeout(180)
def test_a_killed_worker_loses_at_most_what_it_had_in_flight(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start("picture: tiny\nlatency: 150ms\n")
    manifest = write_manifest(tmp_path, server.base_url, items=ITEMS, extra=EXTRA)
    manifest.write_text(manifest.read_text().replace("retry: {", "retry: {unknown: 9, "))
    log = tmp_path / "log.jsonl"
    command = ("run", manifest, "-y", "-q", "--json", "--log-format", "json", "--log-file", log)
    stray = {"RAY_ADDRESS": "192.0.2.99:6379"}  # joined by the flag alone
    run = imgpipe.start(*command, "--ray", "local", "--workers", "2", env=stray)
    wait_until(lambda: len(images(tmp_path)) > 10 or run.poll() is not None, timeout=90)
    status = imgpipe.json("status", manifest)
    workers = senders(run.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    folder = temporary_folder(run.pid)
    assert leaks(CANARIES, folder) == []
    out, err = run.communicate(timeout=90)
    result = json.loads(out)
    assert (result["exit"], run.returncode, result["images"]) == (0, 0, ITEMS), err
    assert result["workers"] == {"started": 2, "lost": 1}
    assert not folder.exists()
    assert all(line.startswith("{") for line in err.splitlines()), "Ray wrote to stderr"
    assert status["running"]["workers"] == {"started": 2, "lost": 0}

    prompts = {f"mugs/row{n}": f"A red mug number {n}" for n in range(ITEMS)}
    scene = look(tmp_path / "out", server.bill_file)
    assert complaints_at_the_end(scene, prompts=prompts) == []
    assert len(scene.sales) - len(scene.finals) <= 8  # what was in flight at the death

    events = [json.loads(line) for line in log.read_text().splitlines()]
    (lost,) = [event for event in events if event["event"] == "worker_lost"]
    assert lost["in_flight"] > 0
    ended = [event for event in events if event["event"] == "attempt_ended"]
    assert len({event["worker"] for event in ended}) == 2

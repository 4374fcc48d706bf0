"""Runs that are killed: what is bought is kept, what is kept is never bought again, the ledger knows every request."""

import base64
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.conftest import Called, Forked, Imgpipe, Servers, images, wait_until, write_manifest
from tests.soak.bucket_kills import PUTTING, SUPERSEDING
from tests.soak.evidence import Scene, look
from tests.soak.kills import ALL_POINTS, KILLED, Loop
from tests.soak.verdict import complaints, complaints_at_the_end

SEED = int(os.environ.get("IMGPIPE_SOAK_SEED", "1"))
QUICK = "picture: tiny\nlatency: 5ms\n"
PRICES = "prices: {gemini-nano-banana-2.1: 0.039}\n"
PRICE = 39_000
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


@pytest.mark.timeout(240)
def test_R01_ten_kills_lose_no_image_and_buy_none_twice(
    imgpipe: Imgpipe, forked: Forked, servers: Servers, tmp_path: Path
) -> None:
    tally = Loop(imgpipe=imgpipe, at_work=forked, servers=servers, folder=tmp_path, seed=SEED, tasks=80).run(10)
    print(f"seed {SEED}: {tally}")
    assert tally.kills >= 10
    assert tally.images == 80 * tally.jobs


def test_every_failpoint_is_one_the_loops_kill_at() -> None:
    import pipeline

    source = "".join(path.read_text() for path in Path(pipeline.__file__).parent.rglob("*.py"))
    assert set(re.findall(r"\breach\(\"([^\"]+)\"\)", source)) == {*ALL_POINTS, *PUTTING, *SUPERSEDING}


def test_P3_a_task_that_kills_the_run_is_not_bought_for_ever(
    forked: Forked, called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start(QUICK)
    extra = PRICES.replace("prices", "limits: {concurrency: 1}\nprices")
    manifest = write_manifest(tmp_path, server.base_url, items=2, extra=extra)
    manifest.write_text(manifest.read_text().replace("retry: {", "retry: {unknown: 1, "))
    codes = [forked("run", manifest, env={"FAILPOINT": "body:1:kill"}).returncode for _ in range(4)]
    assert codes == [KILLED] * 4
    assert called("run", manifest).returncode == 3
    assert len(server.billed) == 4
    status = called.json("status", manifest)
    assert status["tasks"]["unknown"] == 2
    assert (status["cost_usd"]["unknown"], status["cost_usd"]["day"]) == (pytest.approx(4 * 0.039), 0)
    assert called.json("run", manifest)["attempts"] == 0
    assert called.json("retry", manifest, "--unknown")["images"] == 2


def test_P9_a_day_budget_holds_over_deaths(forked: Forked, called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start(QUICK)
    extra = PRICES + "limits: {concurrency: 8, budget: {day: 0.60, month: 0.50}}\n"
    manifest = write_manifest(tmp_path, server.base_url, items=40, extra=extra)
    for point in ("body:1:kill", "intent:0.2:kill", "decode:0.3:kill"):
        forked("run", manifest, env={"FAILPOINT": point})
    assert called("run", manifest).returncode == 8
    scene = look(tmp_path / "out", server.bill_file)
    assert scene.billed_microusd <= scene.reported_microusd <= 500_000
    assert scene.reported_microusd > 500_000 - PRICE
    cost = called.json("status", manifest)["cost_usd"]
    assert (cost["month"] + cost["unknown"]) * 1e6 == pytest.approx(scene.reported_microusd)
    assert cost["unknown"] > 0


@pytest.mark.parametrize(
    ("point", "outcome"),
    [
        ("intent", "unknown, not billed"), ("connect", "unknown, not billed"), ("body", "unknown"),
        ("mid-write", "unknown"), ("write", "recovered"), ("fsync", "recovered"), ("link", "recovered"),
        ("dirsync", "recovered"), ("done", "done"), ("unlink", "done"),
    ],
    ids=[
        "R02-intent", "R03-connect", "R04-body", "R06-mid-write", "R07-write", "R08-fsync", "R09-link", "R10-dirsync",
        "R11-done", "R12-unlink",
    ],
)  # fmt: skip
def test_a_death_at_a_boundary_is_told_for_what_it_is(
    forked: Forked, called: Called, servers: Servers, tmp_path: Path, point: str, outcome: str
) -> None:
    server = servers.start(QUICK)
    manifest = write_manifest(tmp_path, server.base_url, items=1, extra=PRICES)
    assert forked("run", manifest, env={"FAILPOINT": f"{point}:1:kill"}).returncode == KILLED
    died = look(tmp_path / "out", server.bill_file)
    assert [attempt.state for attempt in died.attempts] == ["ok" if outcome == "done" else "sent"]
    assert died.reported_microusd == PRICE
    assert len(died.sales) == (0 if "not billed" in outcome else 1)
    run = called("run", manifest)
    assert run.returncode == 0
    after = look(tmp_path / "out", server.bill_file)
    is_lost = outcome.startswith("unknown")
    assert [attempt.state for attempt in after.attempts] == (["unknown", "ok"] if is_lost else ["ok"])
    assert ("1 unknown" in run.stderr, "1 recovered" in run.stderr) == (is_lost, outcome == "recovered")
    assert len(after.sales) == len(died.sales) + is_lost
    assert not after.parts


def test_R13_a_recovery_that_dies_at_each_of_its_steps_sends_nothing(
    forked: Forked, called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start(QUICK)
    manifest = write_manifest(tmp_path, server.base_url, items=1, extra=PRICES)
    for point in ("fsync", "recover-part", "recover-link", "recover-done"):
        assert forked("run", manifest, env={"FAILPOINT": f"{point}:1:kill"}).returncode == KILLED
    assert called("run", manifest).returncode == 0
    after = look(tmp_path / "out", server.bill_file)
    assert len(after.finals) == len(after.sales) == len(after.attempts) == 1
    assert not after.parts


def test_R19_a_run_without_enough_memory_says_so_and_loses_only_what_was_in_flight(
    imgpipe: Imgpipe, called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start("picture: tiny\nlatency: 20ms\npicture_bytes: 20000000\n")
    manifest = write_manifest(tmp_path, server.base_url, items=7, extra=PRICES)
    prompts = {f"mugs/row{n}": f"A red mug number {n}" for n in range(7)}
    poor = imgpipe("run", manifest, "-y", "-j", "6", before=("prlimit", "--as=1000000000"))
    assert poor.returncode == 5
    assert "memory" in poor.stderr
    assert "bug" not in poor.stderr
    halfway = look(tmp_path / "out", server.bill_file)
    assert complaints(Scene(), halfway, prompts=prompts, crew=8) == []  # 6 in flight, 2 more are being recorded
    assert called("run", manifest, "-y", "-j", "4").returncode == 0
    scene = look(tmp_path / "out", server.bill_file)
    assert complaints(halfway, scene, prompts=prompts, crew=0) == []
    assert complaints_at_the_end(scene, prompts=prompts) == []


def test_R01_a_move_that_was_killed_half_way_goes_on(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start(QUICK)
    manifest = write_manifest(tmp_path, server.base_url, items=2, job_extra="    output: 'old/{{ id }}'\n")
    assert called("run", manifest).returncode == 0
    manifest.write_text(manifest.read_text().replace("old/", "new/"))
    (tmp_path / "out" / "new").mkdir()
    (old,) = (tmp_path / "out" / "old").glob("row0.*")
    (tmp_path / "out" / "new" / old.name).hardlink_to(old)  # the ledger lags behind
    assert called("run", manifest).returncode == 0
    names = [path.relative_to(tmp_path / "out").with_suffix("").as_posix() for path in images(tmp_path)]
    assert names == ["new/row0", "new/row1"]
    assert len(server.bill) == 2


def _with_mark(mark: str) -> list[int]:
    """List the processes in whose environment `mark` stands."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
    return found


def test_R01_a_killed_run_leaves_no_converter_behind(
    imgpipe: Imgpipe, called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start(QUICK)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.tiff")
    manifest = tmp_path / "relight.yaml"
    manifest.write_text(
        f"version: 1\nprovider: {{kind: cometapi, base_url: '{server.base_url}'}}\noutput_dir: out\njobs:\n  relit:\n"
        "    each: {files: in/*.tiff, root: in}\n    images: ['{{ file.path }}']\n    prompt: At dusk\n"
    )
    mark = f"IMGPIPE_TEST={tmp_path}"
    env = {"IMGPIPE_TEST": str(tmp_path), "FAILPOINT": "connect:1:kill"}
    assert imgpipe("run", manifest, env=env).returncode == KILLED
    wait_until(lambda: not _with_mark(mark), timeout=10)
    assert called("run", manifest).returncode == 0


class _Witness(ThreadingHTTPServer):
    """A server that looks into the ledger when a request arrives, before it reads its body."""

    def __init__(self, ledger: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Testimony)
        self.ledger = ledger
        self.lock = threading.Lock()
        self.arrived = 0
        self.seen: list[tuple[int, int]] = []  # requests that have arrived, attempts in the ledger by then


class _Testimony(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Witness)
        with server.lock:
            server.arrived += 1
            with closing(sqlite3.connect(f"file:{server.ledger}?mode=ro", uri=True)) as ledger:
                (attempts,) = ledger.execute("SELECT count(*) FROM attempt").fetchone()
            server.seen.append((server.arrived, attempts))
        self.rfile.read(int(self.headers["Content-Length"]))
        part = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PIXEL).decode()}}
        body = json.dumps({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[_Witness]:
    server = _Witness(tmp_path / "out" / ".pipeline" / "ledger.sqlite")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_B0_every_attempt_is_in_the_ledger_before_its_request_arrives(
    called: Called, witness: _Witness, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path, f"http://127.0.0.1:{witness.server_port}", items=40, extra=PRICES)
    assert called("run", manifest, "-j", "8").returncode == 0
    assert len(images(tmp_path)) == len(witness.seen) == 40
    assert all(attempts >= arrived for arrived, attempts in witness.seen), witness.seen


def test_R24_a_second_run_does_not_start_when_the_lock_file_was_removed(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start("picture: tiny\nlatency: 30s\n")
    manifest = write_manifest(tmp_path, server.base_url, items=2)
    first = imgpipe.start("run", manifest)
    lock = tmp_path / "out" / ".pipeline" / "lock"
    wait_until((lock.parent / "ledger.sqlite").exists)
    lock.unlink()
    second = imgpipe("run", manifest, timeout=10)
    first.kill()
    first.communicate()
    assert second.returncode == 75

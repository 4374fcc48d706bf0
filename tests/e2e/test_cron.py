"""The command as cron and systemd start it: nothing in the environment, no terminal, no input, nobody to ask."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.store.lock import StateLock
from tests.e2e.conftest import COMMAND, Called, Imgpipe, Servers, images, write_manifest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FAST = "picture: tiny\nlatency: 0s\n"
DRAIN_S = 25  # the default of --drain
BARE = "PATH=/usr/bin:/bin LANG=C"


def cron(line: str, *, environment: str = BARE, cwd: str = "/") -> "subprocess.CompletedProcess[str]":
    """Run a line as cron does, with next to no environment; standard input is closed, not empty."""
    return subprocess.run(
        ["env", "-i", *environment.split(), "sh", "-c", f"{line} <&-"],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


# -- a bare environment -------------------------------------------------------------------------------------------

UTF8 = """\
version: 1
provider: {{kind: cometapi, base_url: '{url}'}}
output_dir: øut
jobs:
  café:
    items:
      zürich: Ein Café in Zürich, 東京 🦊
      москва: {{prompt: Зима, output: "снег/{{{{ id }}}}"}}
"""


@pytest.mark.parametrize(
    "environment",
    [BARE, "PATH=/usr/bin:/bin LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"],
    ids=["R30-C", "R30-ascii"],
)
def test_names_and_prompts_survive_a_bare_environment(servers: Servers, tmp_path: Path, environment: str) -> None:
    server = servers.start(FAST)
    manifest = tmp_path / "ünï.yaml"
    manifest.write_text(UTF8.format(url=server.base_url), encoding="utf-8")
    (tmp_path / ".env").write_text("COMETAPI_KEY=sk-from-dotenv\n")
    run = cron(f"{COMMAND} run {manifest} --json", environment=environment)
    assert (run.returncode, json.loads(run.stdout)["images"]) == (0, 2), run.stderr
    assert [path.stem for path in (tmp_path / "øut" / "café").iterdir()] == ["zürich"]
    assert [path.stem for path in (tmp_path / "øut" / "снег").iterdir()] == ["москва"]
    assert sorted(line["prompt"] for line in server.bill) == ["Ein Café in Zürich, 東京 🦊", "Зима"]
    if environment != BARE:
        return
    for verb, expected in (("plan", "café       unchanged"), ("status --tasks", "café/zürich."), ("report", "øut")):
        done = cron(f"{COMMAND} {verb.replace(' ', f' {manifest} ', 1) if ' ' in verb else f'{verb} {manifest}'}")
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout
    assert "Ein Café in Zürich, 東京 🦊" in (tmp_path / "øut" / "report" / "tasks.csv").read_text(encoding="utf-8")
    assert len(server.bill) == 2


def test_nobody_is_asked_and_nothing_is_sent(servers: Servers, tmp_path: Path) -> None:
    server = servers.start(FAST)
    path = write_manifest(tmp_path, server.base_url, items=3, extra="prices: {gemini-nano-banana-2.1: 2.00}")
    done = cron(f"COMETAPI_KEY=sk-1 {COMMAND} run {path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert not server.bill


def test_closed_streams_change_nothing(servers: Servers, tmp_path: Path) -> None:
    server = servers.start(FAST)
    path = write_manifest(tmp_path, server.base_url, items=2)
    done = cron(f"COMETAPI_KEY=sk-1 {COMMAND} run {path} >&- 2>&-")
    assert (done.returncode, len(images(tmp_path))) == (0, 2)


# -- runs that overlap, end early, or must wait -------------------------------------------------------------------


def test_P7_R31_an_overlapping_run_leaves_with_75_and_a_waiting_one_follows(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start(FAST)
    path = write_manifest(tmp_path, server.base_url, items=3)
    state_dir = tmp_path / "out" / ".pipeline"
    state_dir.mkdir(parents=True)
    with StateLock(state_dir):  # another run, for as long as this test wants
        waiting = imgpipe.start("run", path, "--wait-lock", "20", "--json")
        overlapping = imgpipe("run", path, "-q")
        assert waiting.poll() is None
    assert (overlapping.returncode, overlapping.stdout) == (75, "")
    assert "another run" in overlapping.stderr
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, json.loads(out)["images"]) == (0, 3), err
    assert len(server.bill) == 3


def test_P7_R23_of_twenty_started_together_one_works_and_the_others_send_nothing(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start("picture: tiny\nlatency: 2s\n")
    path = write_manifest(tmp_path, server.base_url, items=3)
    runs = [imgpipe.start("run", path, "--json", "-q") for _ in range(20)]
    told = [json.loads(run.communicate(timeout=60)[0]) for run in runs]
    assert sorted(run.returncode for run in runs) == [0] + [75] * 19
    assert sorted(each["images"] for each in told) == [0] * 19 + [3]
    assert all("another run" in each["error"] for each in told if each["exit"] == 75)
    assert len(server.bill) == 3


def test_R23_an_overlapping_run_leaves_before_anything_large_is_imported(imgpipe: Imgpipe, tmp_path: Path) -> None:
    """Imports are what takes time: 0.06 s of CPU without them, 0.4 with them, and on 2 cores 19 runs share 2 a second.

    Without the look at the lock that comes first, `pydantic` is among them.
    """
    path = write_manifest(tmp_path, "http://127.0.0.1:1", items=3)
    with StateLock(tmp_path / "out" / ".pipeline"):
        run = imgpipe("run", path, "--json", env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time")}
    assert run.returncode == 75
    assert "pipeline.store.lock" in imported
    assert not imported & {"pydantic", "jinja2", "aiohttp", "rich", "PIL", "asyncio", "tenacity"}


def test_a_manifest_with_a_mistake_leaves_nothing_behind(called: Called, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "http://127.0.0.1:1", items=3, extra="limits: {concurency: 3}")
    run = called("run", path)
    assert run.returncode == 2
    assert "concurrency" in run.stderr
    assert not (tmp_path / "out").exists()


def test_max_duration_ends_with_10_and_the_next_run_goes_on(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start("picture: tiny\nlatency: 250ms\n")
    path = write_manifest(tmp_path, server.base_url, items=12)
    run = called.json("run", path, "-q", "-j", "1", "--max-duration", "1s")
    tasks = run["tasks"]
    assert run["exit"] == 10
    assert 0 < tasks["done"] < 12
    assert tasks["done"] + tasks["pending"] == 12
    assert tasks["unknown"] == tasks["failed"] == 0
    assert called.json("status", path)["tasks"]["done"] == tasks["done"] == len(server.billed)
    again = called.json("run", path, "-q")
    assert (again["exit"], again["images"]) == (0, 12 - tasks["done"])


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="no prlimit here")
def test_R26_few_open_files_lose_no_image_that_was_paid(imgpipe: Imgpipe, servers: Servers, tmp_path: Path) -> None:
    served = servers.start("picture: tiny\nlatency: 300ms\n")
    limits = "limits: {concurrency: {start: 100, max: 100}}"
    manifest = write_manifest(tmp_path, served.base_url, items=100, extra=limits)
    done = imgpipe("run", manifest, "-y", before=["prlimit", "--nofile=110:110"])
    assert (done.returncode, len(images(tmp_path)), len(served.bill)) == (0, 100, 100)
    assert "14 requests in flight at most: this process may not open more files" in done.stderr


def test_P11_a_used_up_quota_keeps_later_runs_from_sending(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start(f"{FAST}faults: [{{name: quota_per_day, at: [3]}}]\n")
    path = write_manifest(tmp_path, server.base_url, items=6)
    first = called.json("run", path, "-j", "1")
    assert (first["exit"], first["tasks"]["pending"]) == (75, 4)
    assert datetime.fromisoformat(first["not_before"]) > datetime.now(UTC)
    sent = len(server.bill)
    second = called("run", path, "-q", "--json")
    assert second.returncode == json.loads(second.stdout)["exit"] == 75
    assert "nothing was sent" in second.stderr
    moments = {first["not_before"], json.loads(second.stdout)["not_before"], called.json("status", path)["not_before"]}
    assert moments == {first["not_before"]}
    assert "ends with exit code 75" in called("plan", path).stdout
    assert len(server.bill) == sent


# -- what the README tells people to write ------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def crontab_lines() -> list[str]:
    """Every crontab line that README and the manifest of the night show, without its five times."""
    texts = [*blocks("cron"), (ROOT / "jobs" / "nightly.yaml").read_text(encoding="utf-8")]
    found = [
        match[1] for text in texts for match in re.finditer(r"^(?:#\s+)?(?:[\d*/,-]+ +){5}(.+)$", text, re.MULTILINE)
    ]
    assert len(found) == 2
    return found


@pytest.fixture
def shop(tmp_path: Path, servers: Servers) -> Path:
    """The folder of those lines: the manifest of the night, its table, a `.env`, and a virtual environment."""
    folder = tmp_path / "shop"
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    (folder / ".venv").symlink_to(sys.prefix)
    nightly = folder / "jobs" / "nightly.yaml"
    url = servers.start(FAST).base_url
    text = nightly.read_text().replace("kind: cometapi", f"kind: cometapi\n  base_url: {url}")
    nightly.write_text(text.replace("requests_per_minute: 100", "requests_per_minute: 6000"))
    table = folder / "jobs" / "data" / "products.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:4]))
    (folder / "jobs" / ".env").write_text("COMETAPI_KEY=sk-of-the-night\n")
    return folder


@pytest.mark.parametrize(("number", "nights"), [(0, 2), (1, 1)], ids=["README", "nightly.yaml"])
def test_the_crontab_lines_work_and_mail_nothing(shop: Path, number: int, nights: int) -> None:
    line = re.sub(r"/srv/\w+", str(shop), crontab_lines()[number])
    assert "%" not in line, "cron takes a percent sign for a line end"
    for _ in range(nights):
        done = cron(line)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    made = [path.suffix for path in (shop / "outputs" / "nightly").iterdir()]
    assert made.count(".png") + made.count(".jpg") == 9


def unit(name: str) -> str:
    (text,) = [text for text in blocks("ini") if text.startswith(f"# /etc/systemd/system/imgpipe.{name}")]
    return text


def test_the_service_gives_a_stopped_run_time_to_save_what_is_in_flight() -> None:
    service = configparser.ConfigParser(interpolation=None)
    service.optionxform = str  # type: ignore[assignment,method-assign]
    service.read_string(unit("service"))
    assert int(service["Service"]["TimeoutStopSec"]) >= DRAIN_S + 10
    assert set(service["Service"]["SuccessExitStatus"].split()) == {"8", "10", "143"}
    assert "#" not in service["Service"]["ExecStart"], "systemd knows no comments behind a value"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_units(shop: Path, tmp_path: Path) -> None:
    for name in ("service", "timer"):
        text = unit(name).replace("/srv/shop", str(shop))
        (tmp_path / f"imgpipe.{name}").write_text(text)
    units = [str(tmp_path / f"imgpipe.{name}") for name in ("service", "timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

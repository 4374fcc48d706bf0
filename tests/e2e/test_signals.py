"""Signals, and streams whose reader has left: at any moment nothing paid is lost, and the same command continues."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.store.lock import StateLock
from tests.e2e.conftest import Called, Forked, Imgpipe, Servers, at_once, images, wait_until, write_manifest
from tests.soak.signals import KINDS, Moments

SEED = int(os.environ.get("IMGPIPE_SOAK_SEED", "1"))
QUICK = "picture: tiny\nlatency: 5ms\n"


def is_listening(process: "subprocess.Popen[str]") -> bool:
    """Tell whether a run has its signal handlers: Python itself has none for TERM."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) & 1 << (signal.SIGTERM - 1))


def write_big_manifest(folder: Path, base_url: str, side: int = 150) -> Path:
    """Write a manifest whose plan takes a second or two: 22,500 tasks."""
    values = ", ".join(f"v{n}" for n in range(side))
    path = folder / "big.yaml"
    path.write_text(
        f"version: 1\nprovider: {{kind: cometapi, base_url: '{base_url}'}}\noutput_dir: out\n"
        "jobs:\n  mugs:\n    prompt: A mug {{ matrix.a }} {{ matrix.b }}\n"
        f"    matrix: {{a: [{values}], b: [{values}]}}\n"
    )
    return path


@pytest.mark.timeout(180)
def test_R14_R15_R16_R18_a_moment_of_each_kind_loses_nothing(imgpipe: Imgpipe, forked: Forked, tmp_path: Path) -> None:
    def loop(half: int, servers: Servers, folder: Path) -> Counter[str]:
        seed = 2 * SEED + half
        moments = Moments(
            imgpipe=imgpipe, at_work=forked, servers=servers, folder=folder, seed=seed, tasks=40,
            latencies=(5, 40, 120), first=5 * half,
        )  # fmt: skip
        return moments.run(5)

    done = sum(at_once(loop, tmp_path), Counter())
    print(f"seed {SEED}: {dict(done)}")
    assert set(done) == {kind.name for kind in KINDS}


def test_P10_an_interrupt_ends_the_wait_for_the_lock(imgpipe: Imgpipe, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, "http://127.0.0.1:1", items=2)
    state_dir = tmp_path / "out" / ".pipeline"
    state_dir.mkdir(parents=True)
    with StateLock(state_dir):
        waiting = imgpipe.start("run", manifest, "--wait-lock", "60s")
        wait_until(lambda: is_listening(waiting))
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=30)
    assert waiting.returncode == 130


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=["R14", "R17", "R18"]
)
def test_a_signal_while_planning_ends_the_run_and_nothing_was_sent(
    forked: Forked, called: Called, servers: Servers, tmp_path: Path, number: int, code: int
) -> None:
    server = servers.start(QUICK)
    manifest = write_big_manifest(tmp_path, server.base_url)
    process = forked.start("run", manifest, "-y", "--json")
    wait_until((tmp_path / "out" / ".pipeline" / "ledger.sqlite").exists)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == json.loads(out)["exit"] == code, err
    assert "Traceback" not in err
    assert not server.bill
    assert called.json("run", write_big_manifest(tmp_path, server.base_url, side=2))["images"] == 4


def test_P10_two_signals_while_planning_leave_at_once(forked: Forked, servers: Servers, tmp_path: Path) -> None:
    server = servers.start(QUICK)
    manifest = write_big_manifest(tmp_path, server.base_url)
    process = forked.start("run", manifest, "-y")
    wait_until(lambda: is_listening(process))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=2)
    assert process.returncode in (130, 143)
    assert not server.bill


@pytest.mark.parametrize("count", [2, 3], ids=["R15-twice", "R15-three-times"])
def test_P10_a_name_server_that_never_answers_holds_nobody_back(imgpipe: Imgpipe, tmp_path: Path, count: int) -> None:
    asked = tmp_path / "asked"
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, threading\n"
        f"def hang(*_, **__):\n    open({str(asked)!r}, 'w').close()\n    threading.Event().wait()\n"
        "socket.getaddrinfo = hang\n"
    )
    manifest = write_manifest(tmp_path, "https://api.example.com", items=2)
    process = imgpipe.start("run", manifest, "-y", "--json", env={"PYTHONPATH": str(tmp_path)})
    wait_until(asked.exists)
    for _ in range(count):
        process.send_signal(signal.SIGINT)
        wait_until(lambda: process.poll() is not None or is_at_rest(process))
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert count > 2 or json.loads(out)["exit"] == 130


def is_at_rest(process: "subprocess.Popen[str]") -> bool:
    """Tell whether the signals that were sent have been taken."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return re.search(r"^S(?:ig|hd)Pnd:\s*0*[1-9a-f]", status, re.MULTILINE) is None


def test_R18_a_run_under_nohup_outlives_its_terminal(imgpipe: Imgpipe, servers: Servers, tmp_path: Path) -> None:
    server = servers.start("picture: tiny\nlatency: 100ms\n")
    manifest = write_manifest(tmp_path, server.base_url, items=6)
    process = imgpipe.start("run", manifest, before=("nohup",))
    wait_until(lambda: server.bill_file.exists() and server.bill)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert len(images(tmp_path)) == 6


@pytest.mark.parametrize(
    ("stream", "budget"),
    [("stdout", "5"), ("stderr", "5"), ("both", "0.12")],
    ids=["R18-done-stdout", "R18-done-stderr", "R18-budget-both"],
)
def test_a_reader_that_left_changes_neither_images_nor_exit_code(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path, stream: str, budget: str
) -> None:
    server = servers.start(QUICK)
    manifest = write_manifest(tmp_path, server.base_url, items=8)
    process = imgpipe.start("run", manifest, "--budget", budget, "--json", "-v")
    for name in ("stdout", "stderr"):
        if stream in (name, "both"):
            getattr(process, name).close()
            setattr(process, name, None)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (0 if budget == "5" else 8)
    assert len(images(tmp_path)) == len(server.billed) == (8 if budget == "5" else 2)
    assert "Traceback" not in (err or "")


@pytest.mark.parametrize("stream", [1, 2], ids=["R18-stdout", "R18-stderr"])
def test_a_stream_that_is_closed_or_full_costs_no_image(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path, stream: int
) -> None:
    server = servers.start(QUICK)
    manifest = write_manifest(tmp_path, server.base_url, items=4)
    closed = imgpipe("run", manifest, "--json", before=("sh", "-c", f'exec "$@" {stream}>&-', "sh"))
    assert closed.returncode == 0
    assert len(images(tmp_path)) == 4
    manifest.write_text(manifest.read_text().replace("red", "blue"))
    full = imgpipe("run", manifest, "--json", before=("sh", "-c", f'exec "$@" {stream}>/dev/full', "sh"))
    assert full.returncode == (5 if stream == 1 else 0)  # results that cannot be written are no success
    assert len(server.billed) == 8


def test_looking_into_head_is_no_failure(imgpipe: Imgpipe, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, None, items=3)
    process = imgpipe.start("status", manifest, "--tasks")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def crowd(script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script in this Python, and end when it does."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_R15_an_interrupt_while_modules_are_imported_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = crowd(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pipeline.cli import terminal\nterminal.handle_interrupts()\nimport slow_module\n"
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_R16_process_1_of_a_container_heeds_TERM_while_modules_are_imported(tmp_path: Path) -> None:
    """The kernel drops a signal for which process 1 has no handler."""
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(1, signal.SIGTERM)\n")
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    if (tried := subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [*alone, sys.executable, "-m", "pipeline", "--version"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (143, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["R15", "R16", "R18"])
def test_a_signal_ends_the_last_words_with_the_code_that_was_due(number: int) -> None:
    done = crowd(
        "import os\nfrom pipeline.cli import terminal\nterminal.handle_interrupts()\nterminal.end_on_next_signal(8)\n"
        f"os.kill(os.getpid(), {number})\nwhile True: pass\n"
    )
    assert (done.returncode, done.stderr) == (8, "")


def test_R15_a_thread_that_still_works_does_not_hold_the_end_up() -> None:
    done = crowd(
        "import threading\nfrom pipeline.cli import terminal\n"
        "threading.Thread(target=threading.Event().wait).start()\nterminal.end_process(8)\n"
    )
    assert (done.returncode, done.stderr) == (8, "")


def test_R15_a_thread_that_a_signal_kept_from_beginning_does_not_hold_the_end_up() -> None:
    done = crowd(
        "import threading\nfrom contextlib import suppress\nfrom pipeline.cli import terminal\n"
        "def interrupted(*_, **__): raise KeyboardInterrupt\n"
        "threading._start_new_thread = threading._start_joinable_thread = interrupted\n"
        "thread = threading.Thread(target=print)\n"
        "with suppress(KeyboardInterrupt): thread.start()\n"
        "assert thread in threading.enumerate()\nterminal.end_process(8)\n"
    )
    assert (done.returncode, done.stderr) == (8, "")

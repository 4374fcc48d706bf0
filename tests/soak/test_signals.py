"""Sixty moments of signals and closed streams. `IMGPIPE_SOAK_SEED` and `IMGPIPE_SOAK_MOMENTS` make other loops."""

import os
import random
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Imgpipe, Servers, images, imgpipe, servers, wait_until, write_manifest
from tests.soak.kills import wait
from tests.soak.signals import Moments

__all__ = ["imgpipe", "servers"]
SEED = int(os.environ.get("IMGPIPE_SOAK_SEED") or random.randrange(10**6))
MOMENTS = int(os.environ.get("IMGPIPE_SOAK_MOMENTS", "60"))


@pytest.mark.soak
def test_R14_to_R18_moments_lose_nothing(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nIMGPIPE_SOAK_SEED={SEED}", flush=True)
    done = Moments(imgpipe=imgpipe, at_work=imgpipe, servers=servers, folder=tmp_path, seed=SEED, tasks=60).run(MOMENTS)
    with capsys.disabled():
        print(dict(done), flush=True)
    assert done.total() == MOMENTS


@pytest.mark.soak
def test_R18_a_run_that_stood_still_for_a_minute_goes_on(imgpipe: Imgpipe, servers: Servers, tmp_path: Path) -> None:
    server = servers.start("picture: tiny\nlatency: 3s\npicture_bytes: 2000000\n")
    manifest = write_manifest(tmp_path, server.base_url, items=12)
    process = imgpipe.start("run", manifest, "-y", "-j", "6")
    wait_until(lambda: len(images(tmp_path)) >= 1)
    process.send_signal(signal.SIGSTOP)
    wait(process, 60.0)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(images(tmp_path)) == len(server.billed) == 12

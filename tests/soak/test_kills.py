"""Four hundred deaths. `IMGPIPE_SOAK_SEED` and `IMGPIPE_SOAK_KILLS` make other loops, and longer ones."""

import os
import random
from pathlib import Path

import pytest

from tests.e2e.conftest import Imgpipe, Servers, imgpipe, servers
from tests.soak.kills import ALL_POINTS, Loop

__all__ = ["imgpipe", "servers"]
SEED = int(os.environ.get("IMGPIPE_SOAK_SEED") or random.randrange(10**6))
KILLS = int(os.environ.get("IMGPIPE_SOAK_KILLS", "400"))


@pytest.mark.soak
def test_R01_to_R13_kills_lose_no_image_and_buy_none_twice(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nIMGPIPE_SOAK_SEED={SEED}", flush=True)
    tally = Loop(imgpipe=imgpipe, at_work=imgpipe, servers=servers, folder=tmp_path, seed=SEED, tasks=150).run(KILLS)
    with capsys.disabled():
        print(tally, flush=True)
    assert tally.kills >= KILLS
    assert tally.images == 150 * tally.jobs
    assert KILLS < 400 or set(ALL_POINTS) <= set(tally.deaths)

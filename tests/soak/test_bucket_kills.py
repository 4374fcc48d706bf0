"""A hundred deaths over a bucket. `IMGPIPE_SOAK_SEED` and `IMGPIPE_SOAK_KILLS` make other loops, and longer ones."""

import os
import random
from pathlib import Path

import pytest

from tests.e2e.conftest import Imgpipe, Servers, imgpipe, servers
from tests.s3 import moto_server, store_of
from tests.soak.bucket_kills import PUTTING, SUPERSEDING, BucketLoop

__all__ = ["imgpipe", "servers"]
SEED = int(os.environ.get("IMGPIPE_SOAK_SEED") or random.randrange(10**6))
KILLS = int(os.environ.get("IMGPIPE_SOAK_KILLS", "100"))


@pytest.mark.soak
def test_kills_over_a_bucket_lose_no_image_and_buy_none_twice(
    imgpipe: Imgpipe, servers: Servers, tmp_path: Path
) -> None:
    dice = random.Random(SEED)
    points = [dice.choice((*PUTTING, *SUPERSEDING)) for _ in range(KILLS)]
    with moto_server("bucket") as endpoint:
        loop = BucketLoop(
            imgpipe,
            imgpipe,
            servers.start("picture: tiny\nlatency: 5ms\n"),
            tmp_path,
            endpoint,
            store_of(endpoint, "bucket", "k"),
            "k",
        )
        loop.run(points)
    assert len(loop.deaths) == KILLS, f"seed {SEED}"
    assert len(loop.server.billed) <= len(loop.seen) + loop.lost(), f"seed {SEED}"

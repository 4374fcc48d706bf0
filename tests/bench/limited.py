"""Images a second over time where the server limits and does not tell: imgpipe, the SDK's retry, AWS's adaptive mode.

imgpipe        its defaults, but for the number in flight
genai-retry    google-genai's async client with `HttpRetryOptions()`: its own waits, 5 attempts, then the image is lost
aws-adaptive   botocore's own classes of the mode `adaptive` (client-side rate limiting: cubic, token bucket) and of its
               waits, 3 attempts, around a plain HTTP client; a thread for each request in flight, as boto3 has

Each asks a simulator of its own for `seconds`, all at the same time, and is ended; what it reached is read from that
simulator's bill. Ten tiny images a second are little work.

    python -m tests.bench.limited NAME URL IN_FLIGHT
"""

import asyncio
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.contenders import Work, manifest

MODEL = "gemini-3.1-flash-lite-image"
RATE = 10  # images a second that the server allows
IN_FLIGHT = 64
PROFILE = "picture: tiny\nlatency: {uniform: [1600ms, 2400ms]}\n"
SLOW = f"picture: tiny\nlatency: {IN_FLIGHT / RATE:g}s\n"  # this many in flight make so many images a second
SERVERS = {
    "token bucket": PROFILE + f"limits: {{requests_per_minute: {60 * RATE}, burst: {RATE}, hint: none}}\n",
    "window of a minute": PROFILE + f"limits: {{requests_per_minute: {60 * RATE}, hint: none}}\n",
    "one in ten by chance": SLOW + "faults:\n  - {name: rate_limited, probability: 0.1}\n",
}
NAMES = ("imgpipe", "genai-retry", "aws-adaptive")
STEP_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What one client reached at one server: per `STEP_S`, images and refusals."""

    server: str
    name: str
    images: list[int]
    refused: list[int]

    def __str__(self) -> str:
        images, allowed = sum(self.images), RATE * STEP_S * len(self.images)
        share = sum(self.refused) / max(1, images)
        used = f"{images:5} images, {images / allowed:4.0%} of the rate"
        return f"  {self.server:<20} {self.name:<13} {used}, {share:4.0%} refused"


def measured(scratch: Path, *, seconds: int) -> Iterator[Reached]:
    """Let all clients ask each kind of server for `seconds`."""
    for server, profile in SERVERS.items():
        with ThreadPoolExecutor(len(NAMES)) as threads:
            asking = [
                threads.submit(_reached, server, profile, name, scratch / f"limited-{name}", seconds) for name in NAMES
            ]
            yield from (one.result() for one in asking)


def _reached(server: str, profile: str, name: str, folder: Path, seconds: int) -> Reached:
    folder.mkdir(exist_ok=True)
    bill, described = folder / f"{server}.jsonl", folder / "profile.yaml"
    described.write_text(profile)
    serve = ["pipeline", "simulate", "--port", "0", "--profile", str(described), "--bill", str(bill)]
    with _started(serve, stdout=subprocess.PIPE) as simulator:
        assert simulator.stdout is not None
        url = next(word for line in simulator.stdout for word in line.split() if word.startswith("http://"))
        ask = ["tests.bench.limited", name, url, str(IN_FLIGHT)]
        if name == "imgpipe":
            work = Work(
                url=url, model=MODEL, items=2 * RATE * seconds, in_flight=IN_FLIGHT, folder=folder / f"out-{server}"
            )
            manifest(work)
            ask = ["tests.bench.contenders", name, url, MODEL, str(work.items), str(IN_FLIGHT), str(work.folder)]
        with _started(ask, stdout=subprocess.DEVNULL) as client:
            while not bill.stat().st_size and client.poll() is None:
                time.sleep(0.1)
            time.sleep(seconds)
            client.kill()
        simulator.terminate()
    return _read(server, name, bill, seconds)


def _started(module: list[str], *, stdout: int) -> subprocess.Popen[str]:
    environ = os.environ | {"BENCH_KEY": "bench"}
    return subprocess.Popen([sys.executable, "-m", *module], stdout=stdout, text=True, env=environ)


def _read(server: str, name: str, bill: Path, seconds: int) -> Reached:
    """Read a bill; time begins with its first line."""
    images, refused = [0] * (seconds // STEP_S), [0] * (seconds // STEP_S)
    lines = [json.loads(line) for line in bill.read_text().splitlines()]
    began = datetime.fromisoformat(lines[0]["time"])
    for line in lines:
        place = int((datetime.fromisoformat(line["time"]) - began).total_seconds() // STEP_S)
        if place < len(images):
            images[place] += line["images"]
            refused[place] += line["status"] in {429, 503}
    return Reached(server=server, name=name, images=images, refused=refused)


def draw(reached: Sequence[Reached], path: Path) -> bool:
    """Draw images a second over time; False where there is no matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    servers = list(dict.fromkeys(one.server for one in reached))
    figure, axes = pyplot.subplots(1, len(servers), figsize=(11, 4), layout="constrained", sharey=True, squeeze=False)
    for place, server in zip(axes[0], servers, strict=True):
        for one in (one for one in reached if one.server == server):
            times = [STEP_S * (step + 0.5) for step in range(len(one.images))]
            share = sum(one.refused) / max(1, sum(one.images))
            place.plot(times, [count / STEP_S for count in one.images], label=f"{one.name}, {share:.0%} refused")
        place.axhline(RATE, color="grey", linestyle=":", label="what the server allows")
        place.set_title(server)
        place.set_xlabel("seconds")
        place.set_ylabel("images a second")
        place.grid(alpha=0.3)
        place.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


# -- the other clients, each a process of its own ----------------------------------------------------------------------


async def genai(url: str, in_flight: int) -> None:
    """Ask without end with google-genai and its retries."""
    from google import genai
    from google.genai import errors, types

    options = types.HttpOptions(base_url=url, api_version="v1beta", retry_options=types.HttpRetryOptions())
    client = genai.Client(api_key="bench", http_options=options)

    async def worker() -> None:
        while True:
            try:
                await client.aio.models.generate_content(model=MODEL, contents="a picture of noise")
            except errors.APIError as error:  # its attempts are used up
                if error.code not in {429, 503}:
                    raise

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())


class _Throttling:
    """Tells botocore's limiter whether an answer was a refusal."""

    def is_throttling_error(self, *, status: int) -> bool:
        return status in {429, 503}


def aws(url: str, in_flight: int) -> None:
    """Ask without end as boto3 does in the mode `adaptive`."""
    from botocore.retries import adaptive, bucket, throttling

    clock = bucket.Clock()
    limiter = adaptive.ClientRateLimiter(
        rate_adjustor=throttling.CubicCalculator(starting_max_rate=0, start_time=clock.current_time()),
        rate_clocker=adaptive.RateClocker(clock),
        token_bucket=bucket.TokenBucket(max_rate=1, clock=clock),
        throttling_detector=_Throttling(),
        clock=clock,
    )
    address, path = urlsplit(url), f"/v1beta/models/{MODEL}:generateContent"
    body = json.dumps({"contents": [{"parts": [{"text": "a picture of noise"}]}]})

    def worker() -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        failures = 0
        while True:
            limiter.on_sending_request(request=None)
            connection.request("POST", path, body, {"Authorization": "bench"})
            answer = connection.getresponse()
            answer.read()
            limiter.on_receiving_response(status=answer.status)
            failures = 0 if answer.status == 200 else failures + 1
            if failures == 3:  # botocore's default: the image is lost
                failures = 0
            elif failures:
                time.sleep(random.random() * 2.0 ** (failures - 1))  # standard.ExponentialBackoff

    threads = [threading.Thread(target=worker) for _ in range(in_flight)]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    if sys.argv[1] == "aws-adaptive":
        aws(sys.argv[2], int(sys.argv[3]))
    else:
        asyncio.run(genai(sys.argv[2], int(sys.argv[3])))

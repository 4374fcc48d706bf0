"""A seeded loop of SIGKILLs: start a run, kill it, look at what is left, until the job is done; then the next job.

In: the installed command, simulators with a bill, a seed and how many deaths are wanted. Out: a `Tally`, or an
AssertionError that names the seed, the death and every promise it broke. Most deaths come at a random moment, the
others at a named failpoint (`FAILPOINT=name:probability:kill`), those of the recovery when it has something to do.
"""

import json
import random
import subprocess
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from tests.e2e.conftest import Imgpipe, Served, Servers
from tests.soak.evidence import CANARY, Scene, lines_of, look
from tests.soak.verdict import complaints, complaints_at_the_end

POINTS = (
    "intent", "connect", "body", "decode", "mid-write", "write", "fsync", "link", "dirsync", "done", "unlink",
)  # fmt: skip
OF_PARTS = ("recover-part", "recover-link", "recover-done")
OF_UNKNOWNS = ("recover-unknown",)
ALL_POINTS = POINTS + OF_PARTS + OF_UNKNOWNS
KILLED = -9
GRACE_S = 1.0  # for a request that was sent before its sender died to be billed; a job's latency is far below
FAULTS = """
faults:
- {name: bad_base64, first: 1, per: request, match: {prompt: number 7}}
- {name: no_image, first: 2, per: request, match: {prompt: number 8}}
- {name: disconnect, probability: 0.03}
- {name: reset_body, probability: 0.02}
- {name: overloaded, probability: 0.03}
"""


@dataclass(slots=True)
class Tally:
    """What a loop did."""

    deaths: Counter[str] = field(default_factory=Counter)  # by `time` or name of the point
    runs: int = 0
    jobs: int = 0
    images: int = 0
    sales: int = 0

    @property
    def kills(self) -> int:
        return sum(self.deaths.values())

    def __str__(self) -> str:
        points = ", ".join(f"{name} {count}" for name, count in sorted(self.deaths.items()))
        return (
            f"{self.kills} kills in {self.runs} runs of {self.jobs} jobs ({points}); {self.images} images kept,"
            f" {self.sales} bought"
        )


@dataclass(slots=True, kw_only=True)
class Job:
    """A manifest of small tasks, its simulator, and which prompt belongs to which task."""

    manifest: Path
    server: Served
    prompts: dict[str, str]
    former: dict[str, str] = field(default_factory=dict)  # prompt -> task: what was asked before
    never_billed: set[int] = field(default_factory=set)  # numbers of requests without a line on the bill

    @property
    def output(self) -> Path:
        return self.manifest.parent / "out"

    def change_prompts(self) -> None:
        """Ask for other images under the same names."""
        text = self.manifest.read_text()
        for task, prompt in self.prompts.items():
            self.former[prompt] = task
            self.prompts[task] = prompt.replace("A red mug", "A blue mug")
        self.manifest.write_text(text.replace("A red mug", "A blue mug"))

    def quiet_scene(self) -> Scene:
        """Look once everything that was sent has been billed.

        The dead cannot be asked whether their last request is still on its way. A request of our own that is sent now
        gets a later number; when the bill has every number up to it, nothing is. (A request whose sender died before
        its body was sent gets a number and no line: those are waited for once.)
        """
        order_canary(self.server.base_url)
        deadline = time.monotonic() + GRACE_S
        while (missing := self._missing() - self.never_billed) and time.monotonic() < deadline:
            time.sleep(0.005)
        self.never_billed |= missing
        return look(self.output, self.server.bill_file)

    def _missing(self) -> set[int]:
        numbers = {line["request"] for line in lines_of(self.server.bill_file)}
        return set(range(1, max(numbers, default=0))) - numbers


def order_canary(base_url: str) -> None:
    """Buy one image that belongs to no task; whatever comes, the bill has its number."""
    body = {
        "contents": [{"parts": [{"text": CANARY}]}],
        "generationConfig": {"responseModalities": ["IMAGE"]},
    }
    request = urllib.request.Request(
        f"{base_url}/v1beta/models/gemini-nano-banana-2.1:generateContent",
        data=json.dumps(body).encode(),
        headers={"Authorization": CANARY, "Content-Type": "application/json"},
    )
    with suppress(OSError, HTTPException), urllib.request.urlopen(request, timeout=10) as response:
        response.read()


def make_job(
    folder: Path,
    servers: Servers,
    dice: random.Random,
    *,
    tasks: int,
    latencies: tuple[int, ...] = (3, 10, 25, 40),
) -> Job:
    """Write a manifest and start its simulator; latency, picture size and faults are drawn by lot."""
    folder.mkdir()
    latency_ms, size = dice.choice(latencies), dice.choice((0, 0, 20_000, 300_000))
    faults = FAULTS if dice.random() < 0.5 else ""
    server = servers.start(
        f"picture: tiny\nseed: {dice.randrange(10**6)}\nlatency: {latency_ms}ms\npicture_bytes: {size}\n{faults}"
    )
    prompts = {f"mugs/row{n}": f"A red mug number {n}." for n in range(tasks)}
    manifest = folder / "shop.yaml"
    rows = "\n".join(f"      {task.partition('/')[2]}: {prompt}" for task, prompt in prompts.items())
    manifest.write_text(
        f"version: 1\nprovider: {{kind: cometapi, base_url: '{server.base_url}'}}\noutput_dir: out\n"
        f"retry: {{attempts: 50, wait: {{initial: 5ms, max: 20ms}}, unknown: 100}}\n"
        "limits: {stop_on: {consecutive_failures: 100000}}\n"
        f"jobs:\n  mugs:\n    items:\n{rows}\n"
    )
    return Job(manifest=manifest, server=server, prompts=prompts)


@dataclass(slots=True, kw_only=True)
class Loop:
    """One seeded loop. `tasks` of each job: more make a job last for more deaths.

    `at_work`: runs what is not killed while it starts.
    """

    imgpipe: Imgpipe
    at_work: Imgpipe
    servers: Servers
    folder: Path
    seed: int
    tasks: int
    tally: Tally = field(default_factory=Tally)
    said: str = ""  # by the last run, on stderr

    def run(self, kills: int) -> Tally:
        """Kill so often; finish the last job all the same."""
        dice = random.Random(self.seed)
        while self.tally.kills < kills:
            job = make_job(self.folder / f"job{self.tally.jobs}", self.servers, dice, tasks=self.tasks)
            self._do(job, dice, kills)
            self.tally.jobs += 1
        return self.tally

    def _do(self, job: Job, dice: random.Random, kills: int) -> None:
        before, exit_code = Scene(), KILLED
        change_at = dice.randrange(len(job.prompts)) if dice.random() < 0.4 else len(job.prompts) + 1
        while exit_code == KILLED:
            if len(before.finals) >= change_at and not job.former:
                job.change_prompts()
            is_last = self.tally.kills >= kills
            concurrency = dice.choice((1, 2, 4, 8, 16, 24))
            how, exit_code = self._run(job, before, dice, concurrency, is_last=is_last)
            self.tally.runs += 1
            if exit_code == KILLED:
                self.tally.deaths[how] += 1
            after = job.quiet_scene()
            crew = concurrency + max(2, concurrency // 4)
            self._expect(
                complaints(before, after, prompts=job.prompts, crew=crew, former=job.former),
                f"{how}, -j {concurrency}, exit {exit_code}",
            )
            before = after
        self._expect([] if exit_code == 0 else [f"exit {exit_code}"], "the run that should finish")
        found = complaints_at_the_end(before, prompts=job.prompts, versions=2 if job.former else 1)
        self._expect(found, "the end of a job")
        self._send_nothing_more(job, before)

    def _send_nothing_more(self, job: Job, scene: Scene) -> None:
        again = self.at_work.json("run", job.manifest, "-y")
        after = job.quiet_scene()
        is_quiet = len(after.sales) == len(scene.sales) and (again["exit"], again["attempts"]) == (0, 0)
        self._expect([] if is_quiet else [f"P4: one more run was not idle: {again}"], "one more run")
        self.tally.images += len(after.finals)
        self.tally.sales += len(after.sales)

    def _expect(self, found: list[str], where: str) -> None:
        assert not found, (
            f"seed {self.seed}, job {self.tally.jobs}, run {self.tally.runs} ({where}), kept in {self.folder}:\n"
            + "\n".join([*found, self.said])
        )

    def _run(self, job: Job, before: Scene, dice: random.Random, concurrency: int, *, is_last: bool) -> tuple[str, int]:
        """Run once, to the death or to the end. Return what was to kill it, and the exit code."""
        command = ("run", job.manifest, "-y", "-q", "-j", str(concurrency))
        if is_last:
            done = self.at_work(*command)
            self.said = done.stderr
            return "nothing", done.returncode
        if dice.random() < 0.4:
            point = self._point(before, dice)
            chance = 1.0 if point.startswith("recover") else dice.choice((1.0, 0.3, 0.1))
            done = self.at_work(*command, env={"FAILPOINT": f"{point}:{chance}:kill"})
            self.said = done.stderr
            return point, done.returncode
        return "time", self._kill_in_time(job, dice, *command)

    def _point(self, before: Scene, dice: random.Random) -> str:
        """Draw a failpoint, one of the recovery's when the last death left work for it."""
        if any(part.is_whole for part in before.parts) and dice.random() < 0.6:
            return dice.choice(OF_PARTS)
        if before.open_attempts and dice.random() < 0.3:
            return dice.choice(OF_UNKNOWNS)
        return dice.choice(POINTS)

    def _kill_in_time(self, job: Job, dice: random.Random, *command: str | Path) -> int:
        """Kill at a random moment: one in four while it starts, plans or recovers, the others while it buys."""
        is_early, delay_s = dice.random() < 0.25, dice.random()
        process = (self.imgpipe if is_early else self.at_work).start(*command)
        if is_early:
            wait(process, 0.1 + 0.7 * delay_s)
        else:
            size = size_of(job.server.bill_file)
            while process.poll() is None and size_of(job.server.bill_file) == size:
                time.sleep(0.002)
            wait(process, 0.25 * delay_s)
        process.kill()
        _, self.said = process.communicate()
        return process.returncode


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait(process: "subprocess.Popen[str]", seconds: float) -> None:
    """Let it live for a while; it may end by itself."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)

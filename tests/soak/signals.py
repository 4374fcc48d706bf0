"""A seeded loop of signals and closed streams at random moments of a job, each followed by the same command again.

In: the installed command, simulators with a bill, a seed and how many moments are wanted. Out: how many of each kind,
or an AssertionError that names the seed, the moment and every promise it broke.
"""

import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.conftest import Imgpipe, Servers
from tests.soak.evidence import Scene
from tests.soak.kills import Job, make_job, size_of
from tests.soak.verdict import complaints, complaints_at_the_end, complaints_of_a_stop

GAP_S = 0.005
EARLY = 0.35  # of the moments
UNBORN = (
    "Fatal Python error: init_import_site"  # Python's own word for Ctrl-C before it runs anything, with exit code 1
)
LEAVE_S = 8.0  # on a machine that does other things; the promise is 2 s after the answers, or after the second signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What happens at a moment, and how a run may end after it.

    `exits`: while the run listens. `early`: before Python does, or when all is done and it is on its way out.
    """

    name: str
    signals: tuple[signal.Signals, ...] = ()
    exits: tuple[int, ...] = ()
    early: tuple[int, ...] = ()
    is_drained: bool = True
    flags: tuple[str, ...] = ()

    @property
    def is_of_streams(self) -> bool:
        """Tell whether a stream is closed: that of a process that was started, with pipes."""
        return self.name.endswith("closed")


INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
KINDS = (
    Kind(name="INT", signals=(INT,), exits=(130,), early=(-2,)),
    Kind(name="INT twice", signals=(INT, INT), exits=(130,), early=(-2,), is_drained=False),
    Kind(name="INT three times", signals=(INT, INT, INT), exits=(130,), early=(-2,), is_drained=False),
    Kind(name="TERM", signals=(TERM,), exits=(143,), early=(-15,)),
    Kind(
        name="TERM, short drain", signals=(TERM,), exits=(143,), early=(-15,), is_drained=False,
        flags=("--drain", "50ms"),
    ),
    Kind(name="HUP", signals=(HUP,), exits=(143,), early=(-1,)),
    Kind(name="INT, TERM", signals=(INT, TERM), exits=(130, 143), early=(-2, -15), is_drained=False),
    Kind(name="STOP, CONT", signals=(signal.SIGSTOP, signal.SIGCONT)),
    Kind(name="stdout closed", flags=("--json",)),
    Kind(name="stderr closed", flags=("-v",)),
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Moments:
    """One seeded loop. `at_work`: runs what nothing happens to while it starts."""

    imgpipe: Imgpipe
    at_work: Imgpipe
    servers: Servers
    folder: Path
    seed: int
    tasks: int
    latencies: tuple[int, ...] = (5, 40, 300)  # ms
    first: int = 0  # of the kinds
    done: Counter[str] = field(default_factory=Counter)
    jobs: int = 0

    def run(self, moments: int) -> Counter[str]:
        """Go through so many moments, the kinds in turn."""
        dice = random.Random(self.seed)
        job, scene = self._job(dice), Scene()
        for number in range(self.first, self.first + moments):
            kind = KINDS[number % len(KINDS)]
            if dice.random() < 0.3:
                scene = self._kill(job, scene, dice)  # so that the next one has something to recover
            scene, code = self._moment(job, scene, kind, dice)
            self.done[kind.name] += 1
            if len(scene.finals) == len(job.prompts):
                self._finish(job, scene, has_ended=code == 0)
                job, scene = self._job(dice), Scene()
        if scene.attempts:
            self._finish(job, scene)
        return self.done

    def _job(self, dice: random.Random) -> Job:
        self.jobs += 1
        folder = self.folder / f"job{self.jobs}"
        return make_job(folder, self.servers, dice, tasks=self.tasks, latencies=self.latencies)

    def _moment(self, job: Job, before: Scene, kind: Kind, dice: random.Random) -> tuple[Scene, int]:
        concurrency = dice.choice((2, 4, 8, 16))
        is_early = dice.random() < EARLY
        command = self.imgpipe if is_early or kind.is_of_streams else self.at_work
        process = command.start("run", job.manifest, "-y", "-j", str(concurrency), *kind.flags)
        self._await(process, job, dice, is_early=is_early)
        is_waiting = process.poll() is None
        _strike(process, kind, dice)
        began = time.monotonic()
        _, said = process.communicate(timeout=60)
        took_s = time.monotonic() - began
        after = job.quiet_scene()
        code = process.returncode
        is_over = len(after.finals) == len(job.prompts)
        allowed = {*(kind.exits if is_waiting else ()), *(kind.early if is_early or is_over else ())}
        allowed |= {0} if is_over else set()
        allowed |= {1} if is_early and said is not None and said.startswith(UNBORN) else set()
        found = [f"exit {code}"] if code not in allowed else []
        if code and took_s > LEAVE_S:
            found.append(f"P10: it took {took_s:.1f} s to leave")
        found += complaints(before, after, prompts=job.prompts, crew=concurrency + max(2, concurrency // 4))
        if code not in (1, *kind.early) and not is_over:
            found += complaints_of_a_stop(before, after, is_drained=kind.is_drained)
        self._expect(found, f"{kind.name}, -j {concurrency}, {'early' if is_early else 'late'}, exit {code}", said)
        return after, code

    def _await(self, process: "subprocess.Popen[str]", job: Job, dice: random.Random, *, is_early: bool) -> None:
        """Let it live until a random moment; an early one is one of its start, plan or recovery."""
        size = size_of(job.server.bill_file)
        if not is_early:
            while process.poll() is None and size_of(job.server.bill_file) == size:
                time.sleep(0.002)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=dice.random() * (0.9 if is_early else 0.3))

    def _kill(self, job: Job, before: Scene, dice: random.Random) -> Scene:
        is_early = dice.random() < EARLY
        process = (self.imgpipe if is_early else self.at_work).start("run", job.manifest, "-y", "-q", "-j", "8")
        self._await(process, job, dice, is_early=is_early)
        process.kill()
        process.communicate()
        after = job.quiet_scene()
        self._expect(complaints(before, after, prompts=job.prompts, crew=10), "KILL", "")
        return after

    def _finish(self, job: Job, before: Scene, *, has_ended: bool = False) -> None:
        """Run to the end, unless that has been done, and look whether all is well."""
        found, said, after = list[str](), "", before
        if not has_ended:
            done = self.at_work("run", job.manifest, "-y", "-q")
            after, said = job.quiet_scene(), done.stderr
            found += [f"exit {done.returncode}"] if done.returncode else []
            found += complaints(before, after, prompts=job.prompts, crew=10)
        self._expect(found + complaints_at_the_end(after, prompts=job.prompts), "the end of a job", said)

    def _expect(self, found: list[str], where: str, said: str) -> None:
        assert not found, (
            f"seed {self.seed}, moment {self.done.total()}, job {self.jobs} ({where}), kept in {self.folder}:\n"
            + "\n".join([*found, said])
        )


def _strike(process: "subprocess.Popen[str]", kind: Kind, dice: random.Random) -> None:
    match kind.name:
        case "stdout closed":
            assert process.stdout is not None
            process.stdout.close()
            process.stdout = None
        case "stderr closed":
            assert process.stderr is not None
            process.stderr.close()
            process.stderr = None
        case _:
            for number in kind.signals:
                process.send_signal(number)
                time.sleep(dice.random() if number == signal.SIGSTOP else GAP_S)

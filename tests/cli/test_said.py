"""What a run says on stderr, and to machines: nothing, one paragraph, JSON lines, one document."""

import asyncio
import gc
import io
import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.cli.run import RunDisplay
from pipeline.store.lock import StateLock
from tests.cli.conftest import Imgpipe

LATER = "picture: tiny\nlatency: 0s\nfaults: [{name: server_error, at: [2]}, {name: rate_limited, at: [4]}]\n"
WORSE = LATER.replace("[{", "[{name: image_safety, at: [3]}, {", 1)
ROWS = 6
JOBS = "{mugs: {items: {" + ", ".join(f"row{n}: Mug {n}" for n in range(ROWS)) + "}}}"
EVENTS = {
    "run_started", "attempt_started", "attempt_ended", "retry_scheduled", "task_ended", "paused", "warned", "halted",
    "run_ended", "last_word", "not_run",
}  # fmt: skip


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_quiet_is_silent_when_all_is_well_in_the_end(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(JOBS, profile=LATER)
    for _ in range(2):
        done = imgpipe("run", path, "-q")
        assert (done.exit, done.out, done.err) == (0, "", "")


def test_quiet_says_one_paragraph_when_not(imgpipe: Imgpipe) -> None:
    done = imgpipe("run", imgpipe.manifest(JOBS, profile=WORSE), "-q")
    assert (done.exit, done.out) == (3, "")
    first, second, *_flagged, third = done.err.splitlines()
    assert first.startswith("Finished with failures: 5 images")
    assert second.startswith("1 refused: reword the prompts")
    assert third.startswith("  mugs/row")
    assert "refused: refused (IMAGE_SAFETY)" in third


def test_quiet_says_why_it_did_not_begin(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {promt: A mug}}")
    done = imgpipe("run", path, "-q")
    assert done.exit == 2
    assert "did you mean 'prompt'?" in done.err


def test_a_mistake_of_a_job_is_not_said_for_each_of_its_tasks(imgpipe: Imgpipe) -> None:
    jobs = "{mugs: {prompt: A mug, size: 512, matrix: {n: [1, 2, 3, 4, 5]}}, cups: {prompt: A cup, size: 512}}"
    done = imgpipe("plan", imgpipe.manifest(jobs))
    *first, last, more = done.err.splitlines()
    assert [line.count("mugs/") and line.count("cannot make size 512") for line in first] == [1, 1, 1]
    assert ": cups/cups: " in last
    assert (more, done.exit) == ("and 2 more problems", 2)


def test_the_log_file_has_what_quiet_does_not_say(imgpipe: Imgpipe) -> None:
    log = imgpipe.folder / "log.jsonl"
    path = imgpipe.manifest(JOBS, profile=LATER)
    done = imgpipe("run", path, "-q", "--log-format", "json", "--log-file", log)
    assert (done.exit, done.err) == (0, "")
    told = events(log.read_text())
    assert [event["event"] for event in told].count("task_ended") == ROWS
    assert {event["event"] for event in told} <= EVENTS


def test_the_log_file_says_why_a_run_did_not_begin(imgpipe: Imgpipe) -> None:
    log = imgpipe.folder / "log.txt"
    done = imgpipe("run", imgpipe.manifest("{mugs: {promt: A mug}}"), "--log-file", log)
    assert done.err.count("promt") == 1
    assert "did you mean 'prompt'?" in log.read_text()


@pytest.mark.parametrize("flags", [[], ["-v"], ["-q"], ["--json"]], ids=["json", "verbose", "quiet", "and-document"])
def test_json_log_lines_all_parse_and_have_known_names(imgpipe: Imgpipe, flags: list[str]) -> None:
    done = imgpipe("run", imgpipe.manifest(JOBS, profile=WORSE), "--log-format", "json", *flags)
    assert done.exit == 3
    told = events(done.err)
    assert {event["event"] for event in told} <= EVENTS
    assert (told[-1]["event"], told[-1]["exit"]) == ("last_word", 3)
    assert all({"time", "level", "event", "message"} <= event.keys() for event in told)
    assert (len(told) == 1) is (flags == ["-q"])


@pytest.mark.parametrize(("trouble", "code"), [("manifest", 2), ("key", 2), ("lock", 75)])
def test_a_run_that_does_not_begin_says_so_to_machines(imgpipe: Imgpipe, trouble: str, code: int) -> None:
    path = imgpipe.manifest("{mugs: {promt: A mug}}" if trouble == "manifest" else JOBS)
    if trouble == "key":
        path.write_text(path.read_text().replace("kind: simulator, profile: shop-profile.yaml", "kind: cometapi"))
    lock = StateLock(imgpipe.state)
    if trouble == "lock":
        imgpipe.state.mkdir(parents=True)
        lock.acquire()
    done = imgpipe("run", path, "--log-format", "json", "--json")
    lock.release()
    (event,) = events(done.err)
    document = json.loads(done.out)
    assert (event["event"], event["exit"], document["exit"], done.exit) == ("not_run", code, code, code)
    assert document["error"] == event["message"]
    assert document["tasks"]["total"] == document["attempts"] == 0


@pytest.mark.parametrize(
    "args",
    [
        ("run", "--json"), ("run", "-q", "--json"), ("run", "--json", "--log-format", "json"), ("plan", "--json"),
        ("status", "--json"), ("cost", "--json"), ("verify", "--json"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_json_is_exactly_one_document(imgpipe: Imgpipe, args: tuple[str, ...]) -> None:
    done = imgpipe(args[0], imgpipe.manifest(JOBS, profile=WORSE), *args[1:])
    assert json.loads(done.out) is not None
    assert done.out.endswith("\n")
    assert len(done.out.splitlines()) == 1


def test_nothing_due_shows_no_progress(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS)
    done = imgpipe("run", path)
    assert done.err.splitlines() == [
        "resume: 6 done, 0 to do",
        "Nothing to do: all 6 images exist already.",
        f"The images are in out; look at them: imgpipe report {path} --open",
    ]


def moved(path: Path) -> None:
    path.write_text(path.read_text().replace("jobs:", "defaults: {output: 'new/{{ id }}'}\njobs:"))


def test_what_costs_nothing_is_told_but_not_to_a_quiet_run(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS)
    moved(path)
    done = imgpipe("run", path, "-q")
    assert (done.exit, done.err) == (0, "")
    assert "row0" in [path.stem for path in (imgpipe.out / "new").iterdir()]


# -- a selection that selects nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("job:mug", "did you mean 'job:mugs'?"),
        ("job:zzz", "its jobs: mugs"),
        ("msug/*", "did you mean 'mugs/*'?"),
    ],
    ids=["near", "far", "glob"],
)
@pytest.mark.parametrize("which", ["--select", "--exclude"])
def test_a_job_that_does_not_exist_is_named(imgpipe: Imgpipe, which: str, pattern: str, advice: str) -> None:
    ended = imgpipe("run", imgpipe.manifest(), which, pattern)
    assert ended.exit == 2
    assert advice in ended.err


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize("which", ["--select", "--exclude"])
def test_an_id_that_does_not_exist_is_named(imgpipe: Imgpipe, which: str, verb: str) -> None:
    ended = imgpipe(verb, imgpipe.manifest(), which, "mugs/rad")
    assert (ended.exit, imgpipe.images()) == (2, [])
    assert "no task has the id 'mugs/rad'; did you mean mugs/red?" in ended.err


def test_a_job_that_is_written_like_an_id_is_named(imgpipe: Imgpipe) -> None:
    ended = imgpipe("plan", imgpipe.manifest(), "--select", "mugs")
    assert (ended.exit, ended.err.strip()) == (2, "imgpipe: no task has the id 'mugs'; did you mean job:mugs?")


def test_of_many_ids_that_do_not_exist_the_first_are_compared_with_those_that_do(imgpipe: Imgpipe) -> None:
    wrong = [word for n in range(9) for word in ("--exclude", f"mugs/rad{n}")]
    ended = imgpipe("plan", imgpipe.manifest(), *wrong)
    assert ended.exit == 2
    assert (ended.err.count("no task has the id"), ended.err.count("did you mean mugs/red?")) == (9, 5)


def test_an_id_that_the_ledger_has_may_be_gone_from_the_manifest(imgpipe: Imgpipe) -> None:
    imgpipe.made()
    path = imgpipe.manifest("{mugs: {items: {blue: A blue mug, navy: A navy mug}}}")
    assert imgpipe("run", path, "--exclude", "mugs/red", "--json").exit == 0


def test_an_id_with_brackets_is_selected_as_it_is_written(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {prompt: A mug, items: {'a[1]': {}, a1: {}}}}")
    assert imgpipe("plan", path, "--select", "mugs/a[[]1]", "--json").json["due"] == 1
    assert imgpipe("plan", path, "--select", "mugs/a1", "--json").json["due"] == 1
    assert imgpipe("plan", path, "--select", "mugs/a[1]", "--json").json["due"] == 2  # an id, and a pattern for another


@pytest.mark.parametrize(
    ("flag", "advice"),
    [("mugs/rad*", "did you mean mugs/red?"), ("tag:summer", "`imgpipe status ")],
    ids=["glob", "tag"],
)
def test_a_selection_of_nothing_is_told_and_sends_nothing(imgpipe: Imgpipe, flag: str, advice: str) -> None:
    manifest = imgpipe.manifest()
    assert f"note: nothing is selected; {advice}" in imgpipe("plan", manifest, "--select", flag).out
    ended = imgpipe("run", manifest, "--select", flag)
    assert (ended.exit, imgpipe.images()) == (0, [])
    assert advice in ended.err
    assert ended.err.splitlines()[-1] == "Nothing to do: no task is selected."


def test_an_address_and_a_table_are_told_with_their_place_together_with_the_rest(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {promt: A mug}}", extra="provider: {base_url: 'http://example.com'}")
    path.write_text(path.read_text().replace("provider: {kind: simulator, profile: shop-profile.yaml}\n", ""))
    lines = imgpipe("validate", path).err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{path}:4:22", f"{path}:5:15"]
    path.write_text("version: 1\njobs:\n  mugs:\n    prompt: A mug\n    each: {csv: no.csv, key: sku}\n")
    assert imgpipe("validate", path).err.startswith(f"{path}:5:17: 'no.csv' cannot be read")
    path.write_text("version: 1\njobs:\n  mugs:\n    prompt: A mug\n    size: 512\n")
    assert imgpipe("validate", path).err.startswith(f"{path}:3:3: mugs/mugs: model gemini-nano-banana-2.1 cannot")


def test_D18_the_state_directory_is_its_owners(imgpipe: Imgpipe) -> None:
    imgpipe.made()
    assert [path.stat().st_mode & 0o077 for path in (imgpipe.state, *imgpipe.state.iterdir())] == [0, 0, 0]


def test_an_output_directory_that_is_a_file_is_told_once(imgpipe: Imgpipe) -> None:
    imgpipe.out.write_text("x")
    path = imgpipe.manifest()
    assert imgpipe("run", path).err == f"imgpipe: {path}:3:13: {imgpipe.out} is a file; name a directory\n"


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_profile_that_does_not_exist_is_told_first(imgpipe: Imgpipe, verb: str) -> None:
    ended = imgpipe(verb, imgpipe.manifest(), "--simulate", "stromy")
    assert (ended.exit, ended.out) == (2, "")
    assert ended.err == (
        "imgpipe: stromy: profile cannot be read: No such file or directory; built in are busy, calm, quick, stormy\n"
    )


def test_the_garbage_collector_works_while_images_come_and_afterwards(imgpipe: Imgpipe) -> None:
    path, while_running = imgpipe.manifest(JOBS, profile=LATER), []

    def collecting(_phase: str, _info: dict[str, int]) -> None:
        with suppress(RuntimeError):
            while_running.append(asyncio.get_running_loop())

    thresholds = gc.get_threshold()
    gc.set_threshold(50)  # a short run makes little garbage
    gc.callbacks.append(collecting)
    try:
        assert imgpipe("run", path).exit == 0
    finally:
        gc.callbacks.remove(collecting)
        gc.set_threshold(*thresholds)
    assert while_running
    assert gc.isenabled()
    assert imgpipe("run", "missing.yaml").exit == 2
    assert gc.isenabled()


class TerminalStream(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "mode"),
    [
        (TerminalStream(), {}, "rich"),
        (io.StringIO(), {"FORCE_COLOR": "1"}, "plain"),
        (TerminalStream(), {"NO_COLOR": "1"}, "plain"),
        (TerminalStream(), {"TERM": "dumb"}, "plain"),
    ],
    ids=["terminal", "pipe", "no-color", "dumb"],
)
def test_progress_is_redrawn_only_where_lines_can_be(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, environ: dict[str, str], mode: str
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", stream)
    assert RunDisplay(mode="auto", is_quiet=False, is_json_log=False)._mode(is_idle=False) == mode

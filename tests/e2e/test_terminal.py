"""What a person sees: the command on a terminal of its own, narrow and wide; and what a pipe gets instead."""

import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.conftest import Called, Forked, Servers, write_manifest
from tests.e2e.screen import Screen, Terminal

PROFILE = (
    "picture: tiny\nlatency: 60ms\n"
    "faults: [{name: image_safety, at: [3]}, {name: server_error, at: [5]}, {name: rate_limited, at: [7]}]\n"
)
SLOW = "picture: tiny\nlatency: 300ms\n"
ROWS = 14


def manifest(folder: Path, profile: str = PROFILE, *, rows: int = ROWS, extra: str = "") -> Path:
    """Write a manifest whose ids are long, on the embedded simulator."""
    (folder / "profile.yaml").write_text(profile)
    items = "".join(f"      a-mug-for-every-colour-of-the-autumn-{n}: Mug {n}\n" for n in range(rows))
    path = folder / "shop.yaml"
    path.write_text(
        "version: 1\nprovider: {kind: simulator, profile: profile.yaml}\noutput_dir: out\n"
        f"limits: {{concurrency: 4}}\nretry: {{wait: {{initial: 10ms, max: 50ms}}}}\n{extra}\n"
        "defaults: {checks: {blank: off}}\n"  # tiny pictures are of one colour
        f"jobs:\n  mugs:\n    items:\n{items}"
    )
    return path


class Terminals:
    """Opens terminals with the command on them, or the installed one (`is_started`); none outlives its test."""

    def __init__(self) -> None:
        self._open: list[Terminal] = []

    def __call__(
        self, *args: str | Path, columns: int = 80, env: Mapping[str, str] | None = None, is_started: bool = False
    ) -> Terminal:
        terminal = Terminal(args, columns, env or {}, is_forked=not is_started)
        self._open.append(terminal)
        return terminal

    def close(self) -> None:
        for terminal in self._open:
            terminal.close()


@pytest.fixture
def terminals() -> Iterator[Terminals]:
    terminals = Terminals()
    yield terminals
    terminals.close()


def too_long(screen: Screen) -> list[str]:
    """What did not fit on its line, but for commands and paths: those are kept whole to be copied."""
    return [text for text in screen.wrapped if not is_for_copying(text)]


def is_for_copying(line: str) -> bool:
    return "imgpipe re" in line or len(line.split()) == 1


# -- the live view ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80])
def test_the_live_view_fits_and_its_last_picture_stays(terminals: Terminals, tmp_path: Path, columns: int) -> None:
    terminal = terminals("run", manifest(tmp_path), columns=columns)
    assert terminal.end() == 3
    assert too_long(terminal.screen) == []
    lines = terminal.screen.text.splitlines()
    bars = [number for number, line in enumerate(lines) if re.match(r"[!⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏✓] ", line)]
    assert len(bars) == 1, "pictures that were drawn over are gone"
    assert re.match(rf"! ━+ {ROWS}/{ROWS}  100 %  in ", lines[bars[0]])
    assert lines[bars[0] + 1].startswith("  play $0.")
    assert lines[bars[0] + 2].startswith("  refused mugs/a-mug-for-every-")
    assert "1 refused: reword the prompts" in " ".join(lines[bars[0] + 3 :])
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor is shown again"


@pytest.mark.parametrize(("before", "after"), [(200, 40), (40, 200)])
def test_a_resize_is_followed(terminals: Terminals, tmp_path: Path, before: int, after: int) -> None:
    terminal = terminals("run", manifest(tmp_path), columns=before)
    terminal.until(lambda raw: re.search(rf" [1-9]/{ROWS}", raw) is not None)
    terminal.resize(after)
    drawn = len(terminal.raw)
    assert terminal.end() == 3
    pictures = re.split(r"\x1b\[2K", terminal.raw[drawn:])[8:]  # one picture may have been under way
    shown = Screen(max(before, after))
    shown.feed("\n".join(pictures))
    assert max(len(line) for line in shown.lines if not is_for_copying(line)) <= after
    assert re.search(rf"! ━+ {ROWS}/{ROWS}  100 %", terminal.screen.text)


def test_all_is_well_ends_with_two_lines(terminals: Terminals, tmp_path: Path) -> None:
    terminal = terminals("run", manifest(tmp_path, "picture: tiny\nlatency: 0s\n", rows=3), is_started=True)
    assert terminal.end() == 0
    first, bar, pace, last, *where = terminal.screen.text.splitlines()
    assert first == "resume: 0 done, 3 to do, at most play $0.7344"
    assert re.match(r"✓ ━+ 3/3  100 %  in ", bar)
    assert pace.startswith("  play $0.1")
    assert re.match(r"Done: 3 images \([0-9.]+ kB\) in .* for play \$0\.1\d+, 3 attempts\.$", last)
    assert " ".join(where).startswith("The images are in ")


def test_nothing_to_do_draws_nothing(terminals: Terminals, called: Called, tmp_path: Path) -> None:
    path = manifest(tmp_path, "picture: tiny\nlatency: 0s\n", rows=2)
    assert called("run", path).returncode == 0
    again = terminals("run", path)
    assert again.end() == 0
    assert again.screen.text.splitlines()[:2] == [
        "resume: 2 done, 0 to do",
        "Nothing to do: all 2 images exist already.",
    ]


def test_P10_ctrl_c_ends_with_130_and_says_how_to_go_on(terminals: Terminals, tmp_path: Path) -> None:
    terminal = terminals("run", manifest(tmp_path, SLOW), is_started=True)
    terminal.until(lambda raw: re.search(rf" [2-9]/{ROWS}", raw) is not None)
    terminal.press("\x03")
    assert terminal.end() == 130
    assert too_long(terminal.screen) == [], "the ^C of the terminal itself fits too"
    lines = terminal.screen.text.splitlines()
    assert any(re.match(r"\d+ pending: the same command continues\.$", line) for line in lines)
    assert "Stopped early: SIGINT (Ctrl-C)" in lines
    assert "a second signal stops waiting" in terminal.screen.text
    assert len([line for line in lines if "━" in line]) == 1


def test_P10_ctrl_c_twice_leaves_at_once(terminals: Terminals, tmp_path: Path) -> None:
    terminal = terminals("run", manifest(tmp_path, "picture: tiny\nlatency: 60s\n"), is_started=True)
    terminal.until(lambda raw: "1 of 1" in raw)
    terminal.press("\x03")
    terminal.until(lambda raw: "a second signal stops waiting" in raw)
    terminal.press("\x03")
    assert terminal.end(timeout=10) == 130
    assert "play $0.049 more may have been billed" in terminal.screen.text.replace("\n  ", " ")
    assert "1 unknown: maybe billed; retry" in terminal.screen.text.replace("\n  ", " ")


# -- escape codes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "verb"),
    [({"NO_COLOR": "1"}, "run"), ({"NO_COLOR": "1"}, "plan"), ({"TERM": "dumb"}, "run")],
    ids=["NO_COLOR-run", "NO_COLOR-plan", "dumb-run"],
)
def test_no_escape_codes_where_none_are_wanted(
    terminals: Terminals, tmp_path: Path, env: dict[str, str], verb: str
) -> None:
    terminal = terminals(verb, manifest(tmp_path, rows=4), env=env)
    terminal.end()
    assert "\x1b" not in terminal.raw
    assert "4" in terminal.raw


def test_a_pipe_gets_plain_lines(forked: Forked, tmp_path: Path) -> None:
    done = forked("run", manifest(tmp_path), env={"TERM": "xterm-256color"})
    assert (done.returncode, done.stdout) == (3, "")
    assert "\x1b" not in done.stderr
    first, *_, summary, refused, last = done.stderr.splitlines()
    assert first == f"resume: 0 done, {ROWS} to do, at most play $3.4274"
    assert summary.startswith("Finished with failures: 13 images")
    assert refused.startswith("1 refused: reword the prompts, or retry: imgpipe retry ")
    assert last.startswith("The images are in ")
    assert f"progress: {ROWS}/{ROWS}" in done.stderr


def test_FORCE_COLOR_colours_a_pipe_and_draws_nothing_over(forked: Forked, tmp_path: Path) -> None:
    path = manifest(tmp_path, rows=3)
    done = forked("run", path, env={"FORCE_COLOR": "1"})
    assert "\x1b[1A" not in done.stderr
    assert "progress: 3/3" in done.stderr
    assert "\x1b[1m" in forked("plan", path, env={"FORCE_COLOR": "1"}).stdout


# -- tables and questions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "columns"), [("plan", 40), ("plan", 140), ("status", 40)])
def test_tables_fit(terminals: Terminals, tmp_path: Path, verb: str, columns: int) -> None:
    path = manifest(tmp_path, rows=3)
    path.write_text(path.read_text() + "  a-job-with-a-name-that-is-long-enough-to-be-folded: {items: {a: Mug A}}\n")
    terminal = terminals(verb, path, columns=columns)
    assert terminal.end() == 0
    assert terminal.screen.wrapped == []
    assert ("play $0.1344" if verb == "plan" else "this month") in terminal.screen.text


def test_a_report_counts_its_thumbnails_on_a_terminal_and_nowhere_else(
    terminals: Terminals, called: Called, tmp_path: Path
) -> None:
    path = manifest(tmp_path, "picture: tiny\nlatency: 0s\n", rows=3)
    called("run", path, "-q")
    terminal = terminals("report", path)
    assert terminal.end() == 0
    assert terminal.screen.text.splitlines()[0] == "thumbnails: 3 of 3"
    shutil.rmtree(tmp_path / "out" / "report")
    assert called("report", path).stderr == ""


@pytest.mark.parametrize(("answer", "code", "sent"), [("n", 2, 0), ("y", 0, 3)], ids=["no", "yes"])
def test_spending_above_five_dollars_asks_on_a_terminal(
    terminals: Terminals, servers: Servers, tmp_path: Path, answer: str, code: int, sent: int
) -> None:
    server = servers.start()
    path = write_manifest(tmp_path, server.base_url, items=3, extra="prices: {gemini-nano-banana-2.1: 2.00}")
    terminal = terminals("run", path, is_started=True)
    terminal.until(lambda raw: "Go on? [y/N]: " in raw)
    assert not server.bill
    terminal.press(f"{answer}\n")
    assert terminal.end() == code
    assert len(server.bill) == sent


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["R14", "R16"])
def test_a_signal_ends_the_question_whether_to_spend(
    terminals: Terminals, servers: Servers, tmp_path: Path, number: int, code: int
) -> None:
    server = servers.start()
    path = write_manifest(tmp_path, server.base_url, items=3, extra="prices: {gemini-nano-banana-2.1: 2.00}")
    terminal = terminals("run", path)
    terminal.until(lambda raw: "Go on? [y/N]: " in raw)
    terminal.process.send_signal(number)
    assert terminal.end() == code
    assert not server.bill

"""The door: pages, nearest names, colours, completion; every ending is an exit code and a sentence."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import TOPICS, VERBS, exit_code
from pipeline.cli.terminal import SilencedStream
from pipeline.errors import StorageError, TryLater
from tests.cli.conftest import Imgpipe

COMMAND = Path(sys.executable).with_name("imgpipe")


# -- pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_with_examples(imgpipe: Imgpipe, verb: str) -> None:
    ended = imgpipe(verb, "--help")
    assert ended.exit == 0
    assert ended.out.startswith(f"Usage: imgpipe {verb} [OPTIONS]")
    examples = ended.out.partition("\nExamples:\n")[2].splitlines()
    assert examples
    assert ended.out.count(examples[-1]) == 1
    assert all(line.startswith("  ") for line in examples)
    assert max(map(len, ended.out.splitlines())) <= 100


def test_every_option_says_what_it_does(imgpipe: Imgpipe) -> None:
    for verb in VERBS:
        lines = imgpipe(verb, "--help").out.partition(":\n  -")[2].splitlines()
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            if line.startswith("  -"):
                assert "  " in line.strip() or following.startswith("      "), f"{verb}: {line}"


def test_the_first_page_has_every_verb_once_and_the_exit_codes(imgpipe: Imgpipe) -> None:
    out = imgpipe("--help").out
    assert sorted(verb for verbs in TOPICS.values() for verb in verbs) == sorted(VERBS)
    assert all(out.count(f"\n  {verb} ") == 1 for verb in VERBS)
    assert "75 try later" in out


def test_help_imports_neither_network_nor_tables_nor_models() -> None:
    code = (
        "import sys\nfrom pipeline.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'rich', 'asyncio', 'aiohttp', 'pydantic', 'msgspec', 'jinja2', 'PIL', 'yaml', 'sqlite3', 'logging'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_the_version_is_the_packages(imgpipe: Imgpipe) -> None:
    from pipeline import __version__

    assert imgpipe("--version").out == f"imgpipe {__version__}\n"


@pytest.mark.parametrize(("variable", "is_coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_pages_are_coloured_on_request_only(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch, variable: str, is_coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv(variable, "1")
    assert ("\x1b[" in imgpipe("run", "--help").out) is is_coloured


# -- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (["rnu", "x"], "did you mean 'run'?"),
        (["frobnicate"], "the verbs are init, validate"),
        (["run", "--budgt", "3", "x"], "Did you mean '--budget'?"),
        (["run", "--dry-run", "x"], "imgpipe plan FILE shows what a run would do"),
        (["run"], "name a manifest"),
        (["run", "x", "--budget", "lots"], "write a plain number"),
        (["run", "x", "--max-duration", "soon"], "write seconds (90) or a unit"),
        (["run", "x", "--var", "brand"], "write --var brand=VALUE"),
        (["run", "x", "-j", "0"], "1<=x<=10000"),
        (["cost", "x.yaml", "--by", "moon"], "is not known; write any of"),
        (["retry", "x"], "--failed"),
        (["completion"], "Choose from:\n  bash,\n  zsh"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_the_command_is_told_with_what_to_write(imgpipe: Imgpipe, args: list[str], advice: str) -> None:
    imgpipe.manifest(name="x").rename("x.yaml")
    ended = imgpipe(*args)
    assert ended.exit == 2
    assert advice in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "it is a folder, not a file"),
        (lambda path: os.mkfifo(path), "cannot be read"),
        (lambda path: path.write_bytes(b"name: caf\xe9\n"), "UTF-8"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0"), "m.yaml"),
        (lambda path: path.symlink_to(path), "m.yaml"),
    ],
    ids=["missing", "folder", "pipe", "latin-1", "picture", "loop"],
)
def test_a_manifest_that_cannot_be_read_is_told_without_a_traceback(
    imgpipe: Imgpipe, make: Callable[[Path], None], what: str
) -> None:
    path = imgpipe.folder / "m.yaml"
    make(path)
    ended = imgpipe("run", path)
    assert ended.exit == 2
    assert ended.err.startswith("imgpipe: ")
    assert what in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "args", [["run", "m.yaml", "--var", "a=\udcff"], ["explain", "\udcff.png"]], ids=["var", "file"]
)
def test_an_argument_that_is_not_unicode_is_told(imgpipe: Imgpipe, args: list[str]) -> None:
    ended = imgpipe(*args)
    assert ended.exit == 2
    assert "not UTF-8" in ended.err


def test_a_file_whose_name_is_not_unicode_is_a_file(imgpipe: Imgpipe) -> None:
    imgpipe.made()
    strange = imgpipe.folder / "\udcff.png"
    strange.write_bytes(imgpipe.images()[0].read_bytes())
    ended = imgpipe("explain", strange, "--state-dir", imgpipe.state, "--json")
    assert ended.exit == 0
    assert ended.json["path"] == str(strange)
    assert imgpipe("explain", strange, "--state-dir", imgpipe.state).exit == 0


def test_what_stands_in_the_way_of_the_report_is_named(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    (imgpipe.out / "report").write_text("a file")
    ended = imgpipe("report", manifest)
    assert ended.exit == 5
    assert str(imgpipe.out / "report") in ended.err
    assert "Traceback" not in ended.err


def test_text_from_a_manifest_cannot_move_the_cursor(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.manifest('{mugs: {"pro\\emt": x}}')
    ended = imgpipe("run", manifest)
    assert ended.exit == 2
    assert "\x1b" not in ended.err


# -- endings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (StorageError("the disk is full"), 5, "imgpipe: the disk is full\n"),
        (TryLater("another run is using it"), 75, "imgpipe: another run is using it\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "imgpipe: No space left on device; fix that"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 5, "imgpipe: /x/y: Permission denied; fix that"),
        (OSError(errno.ESTALE, "Stale file handle", 12), 5, "imgpipe: Stale file handle; fix that"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_is_expected_ends_with_its_code_and_a_sentence(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    def command() -> None:
        raise error

    assert exit_code(command, []) == code
    err = capsys.readouterr().err
    assert err.startswith(text)
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), OSError(errno.EBADF, "Bad file descriptor")], ids=repr)
def test_a_bug_keeps_its_traceback_and_says_that_nothing_paid_is_lost(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def command() -> None:
        error.add_note("What was paid is kept in /out/.pipeline")
        raise error

    assert exit_code(command, []) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "/out/.pipeline" in err
    assert "Nothing that was paid is lost" in err


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["run", "--help"], ["schema"]], ids=" ".join)
def test_a_reader_that_has_left_is_no_failure(args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([COMMAND, *args], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


# -- completion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(imgpipe: Imgpipe, shell: str) -> None:
    ended = imgpipe("completion", shell)
    assert ended.exit == 0
    assert f"_IMGPIPE_COMPLETE={shell}_complete" in ended.out


@pytest.mark.parametrize(
    ("words", "found"),
    [(["ver"], ["verify"]), (["run", "--sim"], ["--simulate"]), (["run", "--log-format", "js"], ["json"])],
    ids=["verb", "option", "value"],
)
def test_bash_completes_verbs_options_and_values(imgpipe: Imgpipe, words: list[str], found: list[str]) -> None:
    script = imgpipe.folder / "imgpipe.bash"
    script.write_text(imgpipe("completion", "bash").out)
    line = (
        f"source {script}; COMP_WORDS=(imgpipe {' '.join(words)}); COMP_CWORD={len(words)};"
        ' _imgpipe_completion imgpipe; echo "${COMPREPLY[@]}"'
    )
    env = {"PATH": f"{COMMAND.parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split() == found


@pytest.mark.parametrize(("shell", "word"), [("zsh", "1"), ("fish", "expl")])
def test_other_shells_are_told_what_a_verb_does(shell: str, word: str) -> None:
    env = {
        "PATH": "/usr/bin:/bin", "_IMGPIPE_COMPLETE": f"{shell}_complete", "COMP_WORDS": "imgpipe expl",
        "COMP_CWORD": word,
    }  # fmt: skip
    done = subprocess.run([COMMAND], capture_output=True, text=True, env=env, check=True)
    assert "explain" in done.stdout
    assert "Show where an image comes from." in done.stdout


@pytest.mark.parametrize("length", [100, 9000])
def test_what_nobody_reads_of_stderr_is_dropped_during_a_run(length: int) -> None:
    """A full pipe would hold up a run with its signals: TERM and the second TERM were not heard."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)  # what would hang is an error
    with os.fdopen(reader, "rb", buffering=0) as lines, SilencedStream(os.fdopen(writer, "wb")) as stream:
        stream.patience_ms = 1
        for number in range(50):
            print(f"{number:0{length}}", file=stream, flush=True)
        assert lines.read(1 << 16).startswith(b"0" * 100)
        print("the reader is back", file=stream, flush=True)
        assert lines.read(1 << 16) == b"the reader is back\n"

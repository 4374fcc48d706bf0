import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.view.logs import LOGGER, JsonFormatter, TextFormatter, set_up, tear_down


@pytest.fixture(autouse=True)
def _no_handlers_left():
    yield
    tear_down()
    logging.getLogger(LOGGER).setLevel(logging.NOTSET)


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord(LOGGER, logging.WARNING, __file__, 1, "%s", (message,), None)
    made.__dict__.update(extra)
    return made


@given(st.text())
def test_s06_a_text_line_is_one_line_whatever_it_says(text: str) -> None:
    assert len(TextFormatter().format(record(text)).splitlines()) == 1


@given(st.text(), st.text())
def test_s06_a_json_line_is_one_object_and_ascii(text: str, reason: str) -> None:
    line = JsonFormatter().format(record(text, event="warned", fields={"reason": reason}))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["reason"] == reason


def test_s06_a_traceback_cannot_look_like_a_log_line() -> None:
    try:
        raise ValueError("x\n2026-11-22T00:00:00.000Z info     run ended with exit 0")
    except ValueError as error:
        made = record("bug")
        made.exc_info = (type(error), error, error.__traceback__)
    _, *rest = TextFormatter().format(made).splitlines()
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_set_up_writes_text_to_stderr_and_json_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "logs" / "run.jsonl"
    logger = set_up(level=logging.WARNING, style="json", file=file)
    logger.info("quiet")
    logger.warning("loud")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["loud"]
    assert [json.loads(line)["message"] for line in file.read_text().splitlines()] == ["quiet", "loud"]


def test_set_up_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    set_up().warning("once")
    assert capsys.readouterr().err.count("once") == 1


def test_set_up_names_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--log-file .* cannot be written"):
        set_up(file=tmp_path)


def test_d01_a_log_that_cannot_be_written_is_told_once_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip(reason="this system has no /dev/full")
    logger = set_up(level=logging.CRITICAL, file=full)
    logger.warning("one")
    logger.warning("two")
    assert capsys.readouterr().err.count("/dev/full cannot be written") == 1

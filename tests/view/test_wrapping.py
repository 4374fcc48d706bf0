"""Sentences broken for a terminal."""

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.view.console import counted, say, wrapped

TEXT = "2 refused: reword the prompts, or retry: imgpipe retry /srv/shop/jobs/many.yaml --refused."


def test_words_stay_whole() -> None:
    assert wrapped("Finished with failures: 22 images in 5.8 s", 26).splitlines() == [
        "Finished with failures: 22",
        "  images in 5.8 s",
    ]


def test_a_command_stays_on_one_line_however_long_it_is() -> None:
    lines = wrapped(TEXT, 40).splitlines()
    assert lines[-1] == "  imgpipe retry /srv/shop/jobs/many.yaml --refused."
    assert all(len(line) <= 40 for line in lines[:-1])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_each_paragraph_begins_a_line(width: int) -> None:
    lines = wrapped(f"{TEXT}\n17 pending: the same command continues.", width).splitlines()
    assert "17 pending: the same command continues." in lines


@given(st.text(st.characters(exclude_characters="\0")), st.integers(10, 200))
def test_no_word_is_lost(text: str, width: int) -> None:
    assert "".join(wrapped(text, width).split()) == "".join(text.split())


@pytest.mark.parametrize(("is_terminal", "lines"), [(True, 2), (False, 1)])
def test_only_a_terminal_gets_line_breaks(is_terminal: bool, lines: int) -> None:
    console = Console(file=io.StringIO(), width=50, force_terminal=is_terminal, color_system=None)
    say(TEXT, console)
    assert isinstance(console.file, io.StringIO)
    assert len(console.file.getvalue().splitlines()) == lines


def test_what_takes_longer_is_counted_on_a_line_that_goes_again(clock) -> None:
    terminal = io.StringIO()

    def rows() -> Iterator[int]:
        for number in range(40):
            clock.now += 0.125
            yield number

    assert list(counted(rows(), terminal, clock)) == list(range(40))
    drawn = terminal.getvalue().split("\r")
    assert drawn[1:3] == ["reading tasks: 16 so far", "reading tasks: 20 so far"]
    assert drawn[-1] == "\x1b[K"


def test_what_takes_no_time_is_not_counted(clock) -> None:
    terminal = io.StringIO()
    assert list(counted(range(100_000), terminal, clock)) == list(range(100_000))
    assert terminal.getvalue() == ""

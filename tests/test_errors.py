"""What a mistake looks like when it is told."""

import pytest

from pipeline.errors import Exit, InputError, Problem, most_severe


def test_a_problem_has_its_place_and_its_remedy_on_one_line() -> None:
    problem = Problem(what="unknown key 'promt'", instead="write prompt", file="a.yaml", line=4, column=5)
    assert str(problem) == "a.yaml:4:5: unknown key 'promt'; write prompt"


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        pytest.param("a\r\nb", "a\\r\\nb", id="S06-lines"),
        pytest.param("\x1b[2J\x07", "\\x1b[2J\\x07", id="S06-escape"),
        pytest.param("\u202egnp\u2028", "\\u202egnp\\u2028", id="S06-bidi"),
        pytest.param("café 猫", "café 猫", id="S06-words-stay"),
    ],
)
def test_foreign_text_cannot_write_lines_of_its_own(foreign: str, shown: str) -> None:
    assert str(InputError(Problem(what=foreign, file=foreign), "second")) == f"{shown}: {shown}\nsecond"


def test_the_most_severe_exit_is_told() -> None:
    assert most_severe([Exit.SOME_FAILED, Exit.TRY_LATER, Exit.BUDGET]) is Exit.TRY_LATER
    assert most_severe([]) is Exit.OK

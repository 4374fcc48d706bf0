"""What is told of images that were accepted, and how much of it is remembered."""

from dataclasses import replace

import pytest

from pipeline.engine.events import MOST_WARNINGS, ImageWarnings
from pipeline.model import Artifact
from tests.engine.fakes import artifact

IMAGE = artifact()


def other(n: int, **fields: object) -> Artifact:
    """Return an image with bytes of its own."""
    return replace(IMAGE, sha256=f"{n:064x}"[::-1], **fields)  # type: ignore[arg-type]


def test_H69_the_same_bytes_name_the_task_that_had_them_first() -> None:
    warnings = ImageWarnings()
    assert list(warnings.of("job/a", IMAGE)) == []
    assert list(warnings.of("job/b", IMAGE)) == ["its image has the same bytes as that of job/a; it was accepted"]


def test_H70_an_answer_id_that_comes_again_names_the_task_it_came_for() -> None:
    warnings = ImageWarnings()
    assert list(warnings.of("job/a", other(1, response_id="r"))) == []
    assert list(warnings.of("job/b", other(2, response_id="r"))) == [
        "its answer has the id of the answer to job/a; it was accepted"
    ]


def test_the_same_task_again_is_no_repetition() -> None:
    warnings = ImageWarnings()
    assert [list(warnings.of("job/a", IMAGE)) for _ in range(2)] == [[], []]


def test_H68_a_doubt_is_told_once() -> None:
    warnings = ImageWarnings()
    told = [text for n in range(9) for text in warnings.of(f"job/{n}", other(n, doubts=("too small",)))]
    assert told == ["too small"]


def test_H56_H60_what_a_model_does_as_a_rule_is_not_told() -> None:
    assert list(ImageWarnings().of("job/a", other(1, notes=("3 images came",)))) == []


def test_a_flood_is_told_twenty_times_and_that_there_is_more_once() -> None:
    warnings = ImageWarnings()
    told = [text for n in range(99) for text in warnings.of(f"job/{n}", other(n, doubts=(f"odd {n}",)))]
    assert len(told) == MOST_WARNINGS + 1
    assert "the rest is not shown" in told[-1]


@pytest.mark.parametrize("most", [1, 100])
def test_memory_is_bounded_and_the_oldest_is_forgotten(most: int) -> None:
    warnings = ImageWarnings(most)
    for n in range(10 * most):
        assert list(warnings.of(f"job/{n}", other(n))) == []
    remembered = {9 * most, 10 * most - 1}  # the oldest and the newest of the last `most`
    said = [text.split("of ")[1] for n in remembered for text in warnings.of("job/x", other(n))]
    assert said == [f"job/{n}; it was accepted" for n in remembered]
    assert list(warnings.of("job/x", other(9 * most - 1))) == []

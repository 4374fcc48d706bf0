import json

import pytest

from pipeline.errors import Exit
from pipeline.view.run import paragraph, run_json


def test_run_json_has_exactly_the_keys_of_the_contract(summary) -> None:
    made = run_json(summary(conflict=2, failed=1, budget_left_microusd=5_039_000))
    assert json.loads(json.dumps(made)) == {
        "run": 7,
        "exit": 0,
        "tasks": {"total": 100, "done": 60, "skipped": 40, "failed": 3, "refused": 0, "unknown": 0, "pending": 0},
        "attempts": 61,
        "cost_usd": {"spent": 2.34, "unknown": 0.0, "budget_left": 5.039},
        "images": 60,
        "bytes": 56_000_000,
        "seconds": 72.25,
        "not_before": None,
    }


def test_paragraph_is_one_line_when_all_is_well(summary) -> None:
    text = paragraph(summary(), manifest="jobs/x.yaml")
    assert text == "Done: 60 images (56.0 MB) in 1 min 12 s for $2.34, 61 attempts. 40 existed already."


def test_paragraph_says_which_images_may_be_wrong(summary) -> None:
    text = paragraph(summary(flags={"blank": 2, "aspect": 1}), manifest="jobs/x.yaml")
    assert text.splitlines()[1] == "Flagged: 2 blank, 1 aspect; look at them: imgpipe judge jobs/x.yaml"


def test_paragraph_says_what_may_have_been_billed_also_where_every_image_came(summary) -> None:
    text = paragraph(summary(unknown_microusd=97_930), manifest="jobs/x.yaml")
    assert " for $2.34, 61 attempts; $0.0979 more may have been billed. 40 existed already." in text


def test_paragraph_says_when_nothing_was_to_do(summary) -> None:
    text = paragraph(summary(run=None, attempts=0, images=0, skipped=100), manifest="jobs/x.yaml")
    assert text == "Nothing to do: all 100 images exist already."
    assert "the image exists" in paragraph(summary(run=None, attempts=0, images=0, total=1), manifest="jobs/x.yaml")


def test_a_run_that_was_stopped_before_it_began_has_lost_nothing(summary) -> None:
    text = paragraph(summary(run=None, exit=Exit.INTERRUPTED, total=0, images=0), manifest="x.yaml")
    assert text.startswith("Not finished: 0 images")


def test_a_run_that_was_stopped_while_the_last_images_came_has_lost_nothing(summary) -> None:
    text = paragraph(summary(exit=Exit.INTERRUPTED, reasons=("SIGINT (Ctrl-C)",)), manifest="x.yaml")
    assert text.startswith("Done: 60 images")
    assert "Stopped early: SIGINT (Ctrl-C)" in text


def test_paragraph_says_when_nothing_was_meant(summary) -> None:
    text = paragraph(summary(run=None, attempts=0, images=0, total=0, skipped=0), manifest="jobs/x.yaml")
    assert text == "Nothing to do: no task is selected."


def test_paragraph_shows_play_money_as_such(summary) -> None:
    assert "for play $2.34" in paragraph(summary(is_play_money=True), manifest="x.yaml")


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"failed": 3}, "3 failed: fix the cause, or retry: imgpipe retry x.yaml --failed."),
        ({"refused": 2}, "imgpipe retry x.yaml --refused"),
        ({"unknown": 1}, "1 unknown: maybe billed; retry: imgpipe retry x.yaml --unknown"),
        ({"conflict": 1}, "1 conflict: move the files in the way; or, if they are these tasks' images, record them"),
        (
            {"missing": 2},
            "2 missing or changed since: put the files back, accept that (imgpipe run x.yaml --accept edited,absent)",
        ),
        ({"exit": Exit.ACCOUNT}, "imgpipe doctor x.yaml"),
        ({"exit": Exit.STORAGE}, "imgpipe verify x.yaml"),
        ({"exit": Exit.BUG}, "This is a bug in imgpipe"),
        ({"exit": Exit.TRY_LATER, "not_before": "2026-11-23T08:00:00Z"}, "Nothing is sent before 2026-11-23T08:00:00Z"),
        ({"exit": Exit.INTERRUPTED, "pending": 4}, "4 pending: the same command continues."),
    ],
)
def test_paragraph_says_what_to_do_now(summary, changes, advice) -> None:
    assert advice in paragraph(summary(**{"exit": Exit.SOME_FAILED, **changes}), manifest="x.yaml")


def test_paragraph_cannot_be_forged_by_a_reason(summary) -> None:
    text = paragraph(summary(exit=Exit.TRY_LATER, reasons=("quota\n\x1b[2JDone: all",)), manifest="x.yaml")
    assert r"Stopped early: quota\n\x1b[2JDone: all" in text


def test_a_bucket_that_refuses_a_thousand_images_is_no_thousand_lines(summary) -> None:
    reasons = tuple(f"t/{number}: could not be put" for number in range(1000))
    text = paragraph(summary(exit=Exit.STORAGE, reasons=reasons), manifest="jobs/x.yaml")
    assert (text.count("Stopped early"), "and 995 more reasons; a --log-file has all of them." in text) == (5, True)

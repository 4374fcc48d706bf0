"""A pilot: a few tasks spread over jobs and axes, and what the rest will cost by what those did."""

import json

from pipeline.app import run as app_run
from pipeline.model import Due
from pipeline.plan.selection import pilot_ids
from tests.cli.conftest import Imgpipe
from tests.plan.test_plan import task

JOBS = """
  mugs: {prompt: 'A {{ matrix.colour }} {{ matrix.thing }}', matrix: {colour: [red, blue, green], thing: [mug, jug]}}
  posters: {items: {a: A poster, b: Another poster, c: A third poster}}
"""


def test_a_pilot_is_spread_over_jobs_and_axes() -> None:
    dues = [Due(task=task(f"a/{x}-{y}", matrix={"x": x, "y": y}), reason="new") for x in "123" for y in "123"] + [
        Due(task=task(f"b/{n}"), reason="new") for n in range(50)
    ]
    ids = pilot_ids(dues, 6)
    of_a = [each.removeprefix("a/").split("-") for each in ids if each.startswith("a/")]
    assert len(ids) == 6
    assert len({x for x, _ in of_a}) == len({y for _, y in of_a}) == len(of_a) == 3
    assert len(pilot_ids(dues[:4], 6)) == 4


def test_a_pilot_buys_n_and_says_what_the_rest_costs(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(JOBS)
    ended = imgpipe("run", path, "--pilot", "3", "--json")
    assert (ended.exit, ended.json["images"], ended.json["tasks"]["pending"]) == (8, 3, 6)
    assert "pilot: 3 of 3 images came for play $0.1" in ended.err
    assert "the other 6 tasks will cost about play $0.2" in ended.err
    assert "6 pending: the same command without --pilot asks for them." in ended.err
    assert ended.err.count("without --pilot") == 1
    assert ("progress: 3/3" in ended.err, "Raise the budget" in ended.err) == (True, False)
    assert {image.parent.name for image in imgpipe.images()} == {"mugs", "posters"}
    assert imgpipe("run", path, "--json").json["images"] == 6


def test_a_pilot_of_everything_is_a_run(imgpipe: Imgpipe) -> None:
    ended = imgpipe("run", imgpipe.manifest(), "--pilot", "9", "--json")
    assert (ended.exit, ended.json["images"]) == (0, 2)


def test_a_yes_on_a_terminal_buys_the_rest(imgpipe: Imgpipe, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    questions: list[str] = []
    whole = app_run.run

    def with_a_person(*args, **options):  # type: ignore[no-untyped-def]
        return whole(*args, **{**options, "confirm": lambda text: questions.append(text) or True})

    monkeypatch.setattr(app_run, "run", with_a_person)
    ended = imgpipe("run", imgpipe.manifest(JOBS), "--pilot", "2", "--json")
    assert (ended.exit, json.loads(ended.out)["images"], len(questions)) == (0, 9, 1)
    assert "the other 7 tasks will cost about play" in questions[0]


def test_a_pilot_asks_for_its_own_price_only(imgpipe: Imgpipe, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from pipeline.app import consent

    asked: list[int] = []
    whole = consent.with_consent
    monkeypatch.setattr(
        consent, "with_consent", lambda setup, plan, confirm: asked.append(plan.due) or whole(setup, plan, confirm)
    )
    imgpipe("run", imgpipe.manifest(JOBS), "--pilot", "2", "-q")
    assert asked == [2]

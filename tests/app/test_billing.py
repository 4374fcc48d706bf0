"""Plans as bills: groups with their price, time at the known pace, what a person should know first."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.app import context, plan, status
from pipeline.errors import InputError
from pipeline.plan.selection import Selection
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from pipeline.view.plan import PlanBill
from tests.cli.conftest import Imgpipe

MUGS = "{mugs: {items: {red: A red mug, blue: A blue mug, navy: A navy mug, gold: A gold mug, pink: A pink mug}}}"


def bill(path: Path, **flags: object) -> PlanBill:
    return plan.bill(context.prepare(path, context.Flags(**flags)))  # type: ignore[arg-type]


def groups(path: Path, **flags: object) -> list[tuple[str, str, int]]:
    return [(line.job, line.reason, line.tasks) for line in bill(path, **flags).lines]


def test_each_job_and_reason_is_a_line_with_its_own_price(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {items: {a: A mug, b: B mug}}, posters: {items: {c: C}}}", extra="prices: {mine: 0.10}")
    text = path.read_text()
    path.write_text(text.replace("A mug", "A big mug").replace("c: C", "c: C, d: {prompt: D, model: mine}"))
    due = [line for line in bill(path).lines if line.is_due]
    assert [(line.job, line.reason, line.price_microusd) for line in due] == [
        ("mugs", "prompt changed", 33_600),
        ("posters", "new", 100_000),
    ]


def test_an_unknown_price_of_one_line_is_not_that_of_all(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {items: {a: A}}, odd: {model: mine, items: {b: B}}}")
    found = bill(path)
    assert [line.price_microusd for line in found.lines] == [33_600, None]
    assert found.min_microusd is None


def test_a_price_that_a_budget_needs_names_models_that_have_one_and_no_amount(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {model: nano-banana-pro, items: {a: A}}}", extra="limits: {budget: 1}")
    with pytest.raises(InputError, match=r"prices:` \(nano-banana-pro: USD per image\)") as error:
        bill(path)
    assert "gemini-3-pro-image (Nano Banana Pro)" in str(error.value)


def test_tasks_that_ask_for_the_same_image_are_told_and_not_merged(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {items: {a: A mug, b: A mug, c: {prompt: A mug, variants: 2}}}}")
    found = bill(path)
    assert found.due == 4
    assert (found.alike, found.alike_microusd, found.min_microusd) == (2, 67_200, 134_400)
    assert found.notes[0].startswith("2 tasks ask for the same image as another task (such as mugs/a and mugs/b)")
    assert "each is paid for, play $0.0672 in all; remove them" in found.notes[0]


def test_variants_of_one_row_are_not_alike(imgpipe: Imgpipe) -> None:
    assert bill(imgpipe.manifest("{mugs: {items: {a: {prompt: A mug, variants: 3}}}}")).notes == ()


def test_the_time_is_that_of_the_last_run_or_of_the_limit_or_not_known(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(MUGS)
    assert bill(path).forecast is None
    limited = bill(path, rpm=60).forecast
    assert limited is not None
    assert str(limited) == "at least 5.0 s at 60 requests a minute"
    imgpipe("run", path)
    path.write_text(path.read_text().replace("mug", "cup"))
    paced = bill(path).forecast
    assert paced is not None
    assert 0 < paced.seconds < 20
    assert paced.basis == "at the pace of the last run"
    assert bill(path, rpm=1).forecast == paced.__class__(seconds=300, basis=paced.basis)


def test_what_ends_the_run_early_is_told(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(MUGS, extra="limits: {budget: 0.10, max_tasks: 3, max_duration: 2s}")
    found = bill(path, rpm=60)
    assert found.notes == (
        "the budgets leave play $0.10; what they do not pay for stays pending",
        "limits.max_tasks is 3; the rest stays pending",
        "the run ends after 2.0 s (max_duration); the rest stays pending",
    )
    assert found.max_microusd == 100_000


@pytest.mark.parametrize(("address", "is_told"), [("https://api.cometapi.com", True), ("https://relay.example", False)])
def test_what_cometapi_bills_of_list_prices_is_told_of_no_other_host(
    imgpipe: Imgpipe, address: str, is_told: bool
) -> None:
    path = imgpipe.manifest(MUGS)
    path.write_text(f"provider: {{kind: cometapi, base_url: {address!r}}}\nlimits: {{budget: 9}}\njobs: {MUGS}\n")
    notes = bill(path).notes
    assert any("is known to bill 0.8" in note for note in notes) is is_told


def test_what_the_day_has_spent_is_counted(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(MUGS, extra="limits: {budget: {day: 0.30}}")
    path.write_text(path.read_text().replace("mug", "cup"))
    assert any(note.startswith("the budgets leave play $0.1") for note in bill(path).notes)


async def test_P11_a_hold_is_told(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(MUGS)
    manifest = context.prepare(path, context.Flags()).manifest
    store = await Store.open(
        StoreSettings(
            output_dir=manifest.output_dir, state_dir=manifest.state_dir, manifest=manifest.name, is_play_money=True
        )
    )
    await store.hold(datetime.now(UTC) + timedelta(hours=3), "the quota of the day is used up", run=0)
    await store.aclose()
    assert "exit code 75" in bill(path).notes[0]
    assert "the quota of the day is used up" in bill(path).notes[0]


def test_refused_tasks_are_told_with_the_command_and_its_price(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {items: {a: 'A mug [[refuse]]', b: B}}}")
    assert imgpipe("run", path).exit == 3
    assert groups(path) == [("mugs", "refused", 1), ("mugs", "unchanged", 1)]
    note = bill(path).notes[0]
    assert note.startswith("1 task refused before, not due; to retry, for play $0.0336: imgpipe retry ")
    assert note.endswith("shop.yaml --refused")


CHAIN = "{mugs: {items: {a: A, b: B}}, night: {each: {job: mugs}, images: ['{{ file.path }}'], prompt: At night}}"


def test_a_job_behind_another_one_is_told_as_not_counted_yet(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(CHAIN)
    assert groups(path) == [("mugs", "new", 2)]
    assert bill(path).notes == (
        "night: 2 more tasks, for play $0.0672, follow from images that are made first; not in this plan yet",
    )
    some = Selection(select=("mugs/a",))
    assert bill(path, selection=some).notes == (
        "night: more tasks follow from images that are made first; not in this plan yet",
    )


def test_what_follows_is_less_what_the_plan_counts_already(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(CHAIN)
    assert imgpipe("run", path, "--select", "mugs/a").exit == 0
    assert groups(path) == [("mugs", "unchanged", 1), ("mugs", "new", 1), ("night", "new", 1)]
    what = "night: 1 more task, for play $0.0336, follows from images that are made first; not in this plan yet"
    assert bill(path).notes[0] == what


def test_what_follows_has_no_price_where_an_image_is_replaced(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(CHAIN)
    path.write_text(path.read_text().replace("a: A,", "a: Another, c: C,"))
    assert bill(path).notes[0] == "night: more tasks follow from images that are made first; not in this plan yet"


def test_a_missing_image_that_another_job_takes_is_no_dead_end(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(CHAIN)
    next((imgpipe.folder / "out" / "mugs").glob("a.*")).unlink()
    assert groups(path) == [("mugs", "missing", 1), ("mugs", "unchanged", 1), ("night", "unchanged", 1)]
    assert imgpipe("run", path).exit == 3
    assert imgpipe("run", path, "--repair").exit == 0
    assert groups(path) == [("mugs", "unchanged", 2), ("night", "unchanged", 2)]


def test_a_row_that_was_removed_takes_what_follows_from_it_along(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(CHAIN)
    path.write_text(path.read_text().replace(", b: B", "").replace("At night", "At dawn"))
    assert groups(path) == [
        ("mugs", "unchanged", 1),
        ("night", "prompt changed", 1),
        ("mugs", "orphaned", 1),
        ("night", "orphaned", 1),
    ]


def test_a_column_that_only_a_later_job_reads_is_seen_when_it_changes(imgpipe: Imgpipe) -> None:
    table = imgpipe.folder / "rows.csv"
    table.write_text("id,light\na,sun\nb,moon\n")
    path = imgpipe.made(
        CHAIN.replace("items: {a: A, b: B}", "each: {csv: rows.csv}, prompt: M")
        .replace("night}", "{{ row.light }}'}")
        .replace("prompt: At", "prompt: 'At")
    )
    table.write_text("id,light\na,lamp\nb,moon\n")
    assert groups(path) == [("mugs", "unchanged", 2), ("night", "prompt changed", 1), ("night", "unchanged", 1)]


def test_a_job_that_was_removed_leaves_orphans_under_its_name(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {items: {a: A, b: B}}, posters: {items: {c: C}}}")
    path.write_text(path.read_text().replace("{mugs: {items: {a: A, b: B}}, ", "{"))
    assert groups(path) == [("posters", "unchanged", 1), ("mugs", "orphaned", 2)]
    assert status.status(context.prepare(path, context.Flags())).orphaned == 2


@pytest.mark.parametrize(
    "flags", [["--first", "1"], ["--select", "mugs/a"], ["--exclude", "mugs/b"], ["--sample", "1"]]
)
def test_a_selection_is_billed_alone(imgpipe: Imgpipe, flags: list[str]) -> None:
    path = imgpipe.manifest("{mugs: {items: {a: A, b: B}}}")
    assert imgpipe("plan", path, *flags, "--json").json["due"] == 1

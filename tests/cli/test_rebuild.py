"""rebuild: a ledger from files; what is damaged is moved aside, and nothing is bought or touched."""

import shutil

import pytest

from tests.cli.conftest import Imgpipe

CHAIN = """
  plain: {items: {red: A red mug, blue: A blue mug}}
  night: {each: {job: plain}, images: ["{{ file.path }}"], prompt: The same at night}
"""


def test_lost_ledgers_images_are_not_bought_again(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    shutil.rmtree(imgpipe.state)
    before = {path: path.read_bytes() for path in imgpipe.images()}
    ended = imgpipe("rebuild", manifest, "--json")
    assert ended.exit == 0
    assert {key: ended.json[key] for key in ("adopted", "kept", "absent", "set_aside")} == {
        "adopted": 2, "kept": 0, "absent": 0, "set_aside": None
    }  # fmt: skip
    assert {path: path.read_bytes() for path in imgpipe.images()} == before
    assert imgpipe("run", manifest, "--json").json["attempts"] == 0


def test_P12_a_damaged_ledger_stops_a_run_untouched_and_is_kept_aside_by_rebuild(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    ledger = imgpipe.state / "ledger.sqlite"
    ledger.write_bytes(b"\0" * 4096)
    run = imgpipe("run", manifest)
    assert run.exit == 5
    assert "imgpipe rebuild" in run.err
    assert ledger.read_bytes() == b"\0" * 4096
    ended = imgpipe("rebuild", manifest)
    assert ended.exit == 0, ended.err
    (aside,) = imgpipe.state.glob("ledger.sqlite.damaged*")
    assert aside.read_bytes() == b"\0" * 4096
    assert imgpipe("verify", manifest).exit == 0


def test_a_mistake_in_the_manifest_leaves_the_damaged_ledger_where_it_is(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    ledger = imgpipe.state / "ledger.sqlite"
    ledger.write_bytes(b"broken")
    manifest.write_text(manifest.read_text().replace("A red mug", "A {{ nothing }} mug"))
    assert imgpipe("rebuild", manifest).exit == 2
    assert ledger.read_bytes() == b"broken"


def test_two_images_under_one_name_are_doubtful(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    shutil.rmtree(imgpipe.state)
    first = imgpipe.images()[0]
    twin = first.with_suffix(".jpg" if first.suffix == ".png" else ".png")
    shutil.copy(first, twin)
    ended = imgpipe("rebuild", manifest)
    assert ended.exit == 3
    assert first.name in ended.out
    assert twin.name in ended.out


def test_a_job_that_takes_another_ones_images_is_rebuilt_too(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made(CHAIN)
    assert len(imgpipe.images()) == 4
    shutil.rmtree(imgpipe.state)
    assert imgpipe("rebuild", manifest, "--json").json["adopted"] == 4
    assert imgpipe("run", manifest, "--json").json["attempts"] == 0


def test_another_run_at_work_makes_it_wait(imgpipe: Imgpipe) -> None:
    from pipeline.store.lock import StateLock

    manifest = imgpipe.made()
    with StateLock(imgpipe.state):
        ended = imgpipe("rebuild", manifest)
    assert ended.exit == 75
    assert "another run" in ended.err


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, None], ids=["L01-empty", "L01-garbage", "L07-gone"])
def test_P9_a_budget_does_not_begin_anew_with_the_ledger(imgpipe: Imgpipe, damage: bytes | None) -> None:
    manifest = imgpipe.made(extra="limits: {budget: {day: 0.10}}")
    ledger = imgpipe.state / "ledger.sqlite"
    ledger.unlink()
    if damage is not None:
        ledger.write_bytes(damage)
    ended = imgpipe("rebuild", manifest)
    assert "counted as play $0.0672" in ended.err
    assert "MORE MAY HAVE BEEN SPENT" in ended.err
    manifest.write_text(manifest.read_text().replace("red: A red mug", "red: A red mug, green: A green mug"))
    run = imgpipe("run", manifest)
    assert run.exit == 8
    assert "more may have been spent" in run.err
    assert "more may have been spent" in " ".join(imgpipe("plan", manifest).out.split())
    assert "more may have been spent" in " ".join(imgpipe("status", manifest).out.split())
    assert imgpipe("status", manifest, "--json").json["cost_usd"]["day"] == pytest.approx(0.0672)

"""Signed images stay signed: the file is the provider's, the record lies beside it, and people are told."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline import failpoint
from pipeline.app import explain, maintenance, report
from pipeline.errors import Exit
from pipeline.imaging.metadata import extract
from pipeline.view.explain import FileState, explain_json
from tests.cli.test_rejected import understand
from tests.e2e.scripted import KEY, Scripted, Shop, ok, serving
from tests.imaging.test_provenance import signed
from tests.provider.conftest import Liar

EMBED = "defaults: {metadata: embed}"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", KEY)


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    async with serving(Scripted(always=ok(signed("PNG")))) as script:
        yield script


@pytest.fixture
def shop(script: Scripted, tmp_path: Path) -> Shop:
    return Shop(tmp_path, script.url, extra=EMBED)


async def test_a_signed_image_is_published_as_it_came_with_its_record_beside_it(shop: Shop) -> None:
    assert (await shop.run()).exit is Exit.OK
    image = shop.folder / "out" / "mugs" / "row0.png"
    assert image.read_bytes() == signed("PNG")
    assert image.with_name("row0.png.xmp").is_file()
    told = explain.explain(image)
    assert (told.is_signed, told.standing) == (True, FileState.CURRENT)
    assert explain_json(told)["signed"] is True


async def test_a_copy_with_the_file_beside_it_explains_itself(
    shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await shop.run()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in (shop.folder / "out" / "mugs").glob("row0*"):
        shutil.copy(path, elsewhere)
    told = explain.explain(elsewhere / "row0.png")
    assert (told.standing, told.task, told.is_signed) == (FileState.CARRIED, "mugs/row0", True)
    assert told.request is not None
    assert told.request.prompt.endswith("row0")


@pytest.mark.parametrize("mine", [True, False], ids=["somebody-elses", "ours"])
async def test_a_file_beside_an_image_is_replaced_only_where_it_is_ours(shop: Shop, mine: bool) -> None:
    beside = shop.folder / "out" / "mugs" / "row0.png.xmp"
    if mine:
        beside.parent.mkdir(parents=True)
        beside.write_bytes(b"mine")
        assert (await shop.run()).exit is Exit.OK
        assert beside.read_bytes() == b"mine"
        return
    await shop.run()
    first = beside.read_bytes()
    shop.prompt = "A blue mug, its number is"
    assert (await shop.run()).exit is Exit.OK
    assert b"A blue mug" in beside.read_bytes() != first


async def test_a_renamed_image_takes_its_record_along(shop: Shop) -> None:
    await shop.run()
    shop.extra = "defaults: {metadata: embed, output: 'new/{{ id }}'}"
    await shop.run()
    assert sorted(path.name for path in (shop.folder / "out" / "new").iterdir()) == ["row0.png", "row0.png.xmp"]
    assert list((shop.folder / "out" / "mugs").glob("row0*")) == []


async def test_the_contact_sheet_says_that_an_image_is_signed(script: Scripted, shop: Shop) -> None:
    script.judge = lambda _number, row: ok() if row == "row1" else None
    shop.rows, shop.extra = 2, ""
    await shop.run()
    page = report.report(shop.setup)
    lines = [json.loads(line) for line in page.with_name("tasks.jsonl").read_text().splitlines()]
    assert [line["signed"] for line in lines] == [True, False]
    assert '"signed":[true,false]' in page.read_text()


@pytest.mark.parametrize("point", ["link", "done"])
async def test_an_image_that_a_broken_off_run_left_behind_has_its_record_beside_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setitem(failpoint._armed, point, (1.0, "raise"))
    with pytest.raises(RuntimeError):
        await shop.run()
    monkeypatch.undo()
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    assert (await shop.run()).exit is Exit.OK
    image = shop.folder / "out" / "mugs" / "row0.png"
    record = extract(image.with_name("row0.png.xmp").read_bytes())
    assert record is not None
    assert (record["task"], str(record["prompt"])[-4:], image.read_bytes()) == ("mugs/row0", "row0", signed("PNG"))
    assert shop.task().attempts == 1


async def test_a_signed_image_that_is_salvaged_has_its_record_beside_it(script: Scripted, shop: Shop) -> None:
    whole = ok(signed("PNG")).partition(b"\r\n\r\n")[2]
    script.always = Liar.http(200, whole[:-20])
    await shop.run()
    understand(shop.rejected[0], whole)
    assert (await maintenance.salvage(shop.setup)).published == ["mugs/row0"]
    image = shop.folder / "out" / "mugs" / "row0.png"
    assert image.read_bytes() == signed("PNG")
    record = extract(image.with_name("row0.png.xmp").read_bytes())
    assert record is not None
    assert record["task"] == "mugs/row0"

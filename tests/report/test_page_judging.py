"""The page as a desk: marks that no other tab loses, undo, ranges, groups, what stands beside each other."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.model import Mark, TaskState
from pipeline.report.folder import write_report
from pipeline.report.sheet import Heading, ReportRow, Version
from tests.report.reports import START, make_report, picture, report_rows
from tests.report.sheets import Sheet

pytestmark = pytest.mark.browser

LONG = "espresso-cup-of-the-winter-collection-with-a-gold-rim"


def shop_rows(folder: Path) -> Iterator[ReportRow]:
    """Two products, each at dawn and at dusk; `navy` has an input and an old version, `green` is pending."""
    [plain] = report_rows(folder, 1)
    for n, (sku, mood) in enumerate((sku, mood) for sku in ("red", "navy") for mood in ("dawn", "dusk")):
        image, sha256, width, height = picture(folder, n)
        old, old_sha256, *_ = picture(folder, 9)
        yield replace(
            plain,
            id=f"cups/{LONG}-{sku}-{mood}",
            job="cups",
            row=f"{LONG}-{sku}-{mood}",
            variant=1,
            matrix={"mood": mood},
            fields={"sku": sku, "maker": "Æbelø", "price": str(n)},
            folder=f"shop/{sku}",
            tags=(),
            image=image,
            sha256=sha256,
            width=width,
            height=height,
            input_image=picture(folder, 8)[0] if sku == "navy" else None,
            versions=(Version(path=old, sha256=old_sha256, made_at=START - timedelta(days=1)),)
            if sku == "navy"
            else (),
            redo_microusd=39_000,
        )
    yield replace(
        plain,
        id="cups/green",
        job="cups",
        row="green",
        variant=1,
        state=TaskState.PENDING,
        image=None,
        sha256=None,
        width=None,
        height=None,
        price_microusd=0,
        input_image=picture(folder, 8)[0],
    )


def write_shop(folder: Path, change: Callable[[ReportRow], ReportRow] = lambda row: row, spent: int = 156_000) -> Path:
    rows = [change(row) for row in shop_rows(folder)]
    return write_report(
        folder / "report",
        Heading(
            title="shop",
            output_dir=folder,
            spent_microusd=spent,
            attempts=4,
            is_play_money=False,
            command="shop.yaml",
            written_at=START,
        ),
        rows,
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def sheet(fresh: Sheet, shop: Path) -> Iterator[Sheet]:
    yield (opened := fresh.open(shop))
    assert opened.said == []


def test_two_tabs_lose_nothing_of_each_other(context: Any, sheet: Sheet, shop: Path) -> None:
    """Both are open before the first mark is made; each shows the other's, and a reload has both."""
    other = Sheet(context).open(shop)
    sheet.press("Home", "p")
    other.press("Home", "ArrowRight", "r")
    for each in (sheet, other):
        each.until("document.querySelector('#tally').textContent === '1 picked, 1 rejected, 2 left'")
    other.press("Home", "3")  # stars on the picture that the first tab picked
    sheet.reload()
    assert sheet.text("#tally") == "1 picked, 1 rejected, 2 left"
    assert sheet.text(".tile.picked .stars") == "★★★"
    other.page.close()


def test_a_tab_that_was_told_nothing_loses_nothing(context: Any, sheet: Sheet, shop: Path) -> None:
    """A browser may hold back what it tells tabs in the background: they look before they write."""
    other = Sheet(context)
    other.page.add_init_script("addEventListener('storage', (event) => event.stopImmediatePropagation(), true)")
    other.open(shop)
    sheet.press("Home", "p")
    other.press("Home", "ArrowRight", "r")
    other.page.close()
    sheet.reload()
    assert sheet.text("#tally") == "1 picked, 1 rejected, 2 left"


def test_a_loaded_file_is_merged_by_time(sheet: Sheet, tmp_path: Path) -> None:
    sheet.press("Home", "p")
    first, second, third = sheet.ids()[:3]
    path = tmp_path / "picks.json"
    old, new = int(START.timestamp() * 1000) + 3_600_000, 4_000_000_000_000
    path.write_text(
        json.dumps({"rejected": [first, second], "picked": [third], "at": {first: old, second: new, third: old}})
    )
    sheet.page.set_input_files("#picksfile", path)
    sheet.until("document.querySelector('#tally').textContent === '2 picked, 1 rejected, 1 left'")
    assert sheet.page.locator(".tile.picked").first.get_attribute("aria-posinset") == "1"


def test_what_the_ledger_says_is_on_the_page(fresh: Sheet, tmp_path: Path) -> None:
    def marked(row: ReportRow) -> ReportRow:
        mark = Mark(kind="picked", stars=2, note="warm", sha256=row.sha256 or "", at_ms=4_000_000_000_000)
        return replace(row, mark=mark) if row.id.endswith("red-dawn") else row

    sheet = fresh.open(write_shop(tmp_path, marked))
    assert sheet.text("#tally") == "1 picked, 0 rejected, 3 left"
    assert sheet.text(".tile.picked .stars") == "★★ ✎"


def test_undo_takes_back_the_last_mark_and_the_whole_of_a_range(sheet: Sheet) -> None:
    sheet.press("Home", "4", "Shift+ArrowRight", "Shift+ArrowRight")
    assert sheet.text("#selection") == "3 selected"
    sheet.press("r")
    assert sheet.text("#tally") == "0 picked, 3 rejected, 1 left"
    assert sheet.text("#redo") == "Redo 3: about $0.117"
    sheet.press("Control+z")
    assert sheet.text("#tally") == "0 picked, 0 rejected, 4 left"
    sheet.press("u")
    assert sheet.page.locator(".stars:not(:empty)").count() == 0
    assert sheet.page.locator("#undo").is_disabled()
    sheet.reload()
    assert sheet.text("#tally") == "0 picked, 0 rejected, 4 left"


def test_a_click_with_shift_takes_the_range_and_escape_lets_it_go(sheet: Sheet) -> None:
    sheet.press("Home")
    sheet.page.locator(".frame").nth(2).click(modifiers=["Shift"])
    assert sheet.page.locator(".tile.selected").count() == 3
    assert not sheet.page.locator("#viewer").is_visible()
    sheet.press("Escape")
    assert sheet.page.locator(".tile.selected").count() == 0


def test_a_mark_goes_on_to_the_next_picture_without_one(sheet: Sheet) -> None:
    sheet.page.click("#advance")
    sheet.press("Home", "ArrowRight", "p", "Home", "p")
    assert sheet.focused().startswith(f"cups/{LONG}-navy-dawn")
    sheet.press("Space", "r")
    assert sheet.text("#viewer-title").endswith("navy-dusk")
    sheet.press("p")
    assert sheet.text("#tally") == "3 picked, 1 rejected, 0 left"


def test_words_for_a_redo_show_their_price_before_they_are_asked_for(sheet: Sheet) -> None:
    sheet.press("Home", "Space", "n")
    sheet.page.keyboard.type("a blue handle")
    assert sheet.text("#redo-words") == "Redo with these words: about $0.039"
    sheet.page.click("#redo-words")
    assert sheet.page.input_value("#note") == "+ a blue handle"
    assert sheet.text("#redo-hint").endswith("imgpipe redo shop.yaml --rejected")
    sheet.press("Escape")
    assert sheet.text("#tally") == "0 picked, 1 rejected, 3 left"
    sheet.page.click("#redo")
    assert sheet.text("#redo-command") == "imgpipe redo shop.yaml --rejected"
    sheet.press("Escape")


def test_a_note_is_kept_when_another_picture_is_shown(sheet: Sheet) -> None:
    sheet.press("Home", "Space", "n")
    sheet.page.keyboard.type("too dark; p and r are letters here")
    sheet.press("Escape", "ArrowRight")
    assert sheet.page.input_value("#note") == ""
    sheet.press("ArrowLeft")
    assert sheet.page.input_value("#note").startswith("too dark")
    sheet.press("Escape")
    assert sheet.text("#tally") == "0 picked, 0 rejected, 4 left"
    sheet.page.select_option("#marked", "noted")
    assert len(sheet.ids()) == 1


@pytest.mark.parametrize(
    ("group", "titles"),
    [
        ("beside:mood", [f"cups/{LONG}-red", f"cups/{LONG}-navy", "Others"]),
        ("axis:mood", ["dawn", "dusk"]),
        ("field:sku", ["red", "navy"]),
        ("folder", ["shop/red", "shop/navy", "no folder"]),
        ("job", ["cups"]),
    ],
)
def test_the_sheet_is_cut_by_what_belongs_together(sheet: Sheet, group: str, titles: list[str]) -> None:
    sheet.page.select_option("#group", group)
    found = sheet.page.locator(".group span").all_inner_texts()
    assert [title for title in found if title in titles] == titles


def test_fields_that_are_alike_for_all_or_differ_for_each_group_nothing(sheet: Sheet) -> None:
    options = sheet.page.locator("#group option").evaluate_all("all => all.map(option => option.value)")
    assert [option for option in options if option.startswith("field:")] == ["field:sku"]


def test_dawn_is_compared_with_dusk(sheet: Sheet) -> None:
    sheet.page.select_option("#group", "beside:mood")
    sheet.page.locator(".frame").first.click()
    sheet.press("c")
    assert sheet.page.locator(".compare .id").all_inner_texts() == ["dawn", "dusk"]
    sheet.press("Escape")


def test_row_fields_are_searched(sheet: Sheet) -> None:
    sheet.page.fill("#search", "æbelø navy")
    sheet.until("document.querySelector('#count').textContent.startsWith('2 of')")
    assert [name.removeprefix(f"cups/{LONG}") for name in sheet.ids()] == ["-navy-dawn", "-navy-dusk"]


def test_the_telling_end_of_a_long_id_stays(sheet: Sheet) -> None:
    captions = sheet.page.locator(".caption .id").evaluate_all(
        """all => all.slice(0, 4).map(id => {
             const box = id.getBoundingClientRect(), end = id.lastChild.getBoundingClientRect();
             return [id.lastChild.textContent, end.right <= box.right + 1 && end.width > 20]; })"""
    )
    assert [text[-9:] for text, _ in captions] == ["-red-dawn", "-red-dusk", "navy-dawn", "navy-dusk"]
    assert all(is_seen for _, is_seen in captions)


def test_a_pending_task_shows_its_photograph(sheet: Sheet) -> None:
    sheet.until("document.querySelector('.awaiting img')?.naturalWidth > 0")
    assert sheet.text(".awaiting b") == "Pending"


def test_a_before_is_announced_and_old_versions_go_under_the_slider(sheet: Sheet) -> None:
    assert sheet.page.locator(".badge.before").count() == 2
    sheet.page.locator(".frame").nth(2).click()
    assert sheet.text(".slider .left") == "before"
    assert len(sheet.page.locator("#versions button").all_inner_texts()) == 2
    sheet.press("v")
    assert sheet.text(".slider .left").startswith("version 1, ")
    sheet.until("document.querySelector('.slider .over').naturalWidth > 0")
    sheet.press("v")
    assert sheet.text(".slider .left") == "before"
    sheet.press("Escape")


def test_no_figure_of_money_contradicts_another(fresh: Sheet, tmp_path: Path) -> None:
    """Tasks that the manifest no longer has cost money too: then it is said how much of it is for these."""
    sheet = fresh.open(write_shop(tmp_path / "all"))
    assert sheet.text("#figures").replace("\n", " ") == "Images 4 Spent $0.156 Attempts 4 Per image $0.039"
    assert sheet.text("#count") == "5 tasks · $0.156"
    sheet.open(write_shop(tmp_path / "more", spent=200_000))
    assert "Spent $0.20 Of which these tasks $0.156" in sheet.text("#figures").replace("\n", " ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("count", [18, 1000])
def test_on_a_phone_the_first_picture_stands_above_300_pixels(
    browser: Any, tmp_path: Path, count: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, color_scheme=scheme)
    sheet = Sheet(context).open(make_report(tmp_path, count))
    assert sheet.page.evaluate("document.querySelector('.tile').getBoundingClientRect().top") < 300
    assert sheet.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_the_bar_with_the_counts_stays_in_sight(browser: Any, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    sheet = Sheet(context).open(make_report(tmp_path, 300))
    sheet.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    sheet.until("document.querySelector('#tally').getBoundingClientRect().top >= 0 && window.scrollY > 500")
    assert sheet.page.locator("#tally").is_visible()
    assert sheet.page.locator("label:has(#size) span:not(.hidden)").inner_text() == "Size"
    context.close()


def test_a_thumbnail_is_that_of_the_picture_that_stands_there(fresh: Sheet, tmp_path: Path) -> None:
    """Edited, reported, put back, reported: the page shows each time what stands there."""
    place = tmp_path / "images" / "0 ö#%.png"
    write_shop(tmp_path)
    original, edited = place.read_bytes(), (tmp_path / "images" / "3 ö#%.png").read_bytes()
    shown = []
    for content in (original, edited, original):
        place.write_bytes(content)
        sheet = fresh.open(write_shop(tmp_path))
        source = sheet.page.locator(".frame img").first.get_attribute("src")
        with Image.open(tmp_path / "report" / source) as thumb:
            shown.append(thumb.getpixel((5, 5))[0])
    assert shown == pytest.approx([0, 111, 0], abs=4)  # red of the two pictures: see `picture`

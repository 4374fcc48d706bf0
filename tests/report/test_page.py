"""The page in a real browser: a headless Chromium that is there already. Nothing is downloaded."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.folder import read_picks
from tests.report.reports import EVIL, make_report
from tests.report.sheets import Sheet

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"), 24)


@pytest.fixture
def sheet(fresh: Sheet, report: Path) -> Iterator[Sheet]:
    yield (opened := fresh.open(report))
    assert opened.said == []  # no test of this page may end with something in the console
    assert [url for url in opened.asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_sheet_shows_every_task_and_its_picture(sheet: Sheet) -> None:
    assert len(sheet.ids()) == 24
    assert sheet.text("h1") == "Spring <b>&amp; autumn</b>"
    assert "24 tasks · play $0.9363" in sheet.text("#count")
    sheet.until("[...document.querySelectorAll('.frame img')].every(i => i.complete && i.naturalWidth)")
    assert sheet.page.locator(".frame img").count() == 21


def test_a_screen_reader_finds_its_landmarks_and_words_apart(sheet: Sheet) -> None:
    sheet.page.get_by_role("main").get_by_role("feed", name="Images").wait_for()
    sheet.page.get_by_role("main").get_by_role("toolbar", name="Filter and sort").wait_for()
    assert sheet.page.locator(".blank.refused").first.text_content() == "refused blocked: refused reason"


def test_pictures_keep_their_aspect_ratio(sheet: Sheet) -> None:
    ratios = sheet.page.locator(".frame:has(img)").evaluate_all(
        "all => all.slice(0, 3).map(f => f.clientWidth / f.clientHeight)"
    )
    assert ratios == pytest.approx([16 / 9, 9 / 16, 1], rel=0.03)


def test_losses_show_their_reasons(sheet: Sheet) -> None:
    assert sheet.page.locator(".blank.refused").first.inner_text() == "Refused\nblocked: refused reason"
    sheet.page.click("#reasons summary")
    assert sheet.text("#reasons li:first-child") == "refused\nblocked: refused reason\n2"
    sheet.page.click("#reasons li:first-child button")
    assert sheet.ids() == ["posters/r3@1", "relight/r20"]


def test_s07_markup_in_a_prompt_is_text(sheet: Sheet) -> None:
    sheet.press("ArrowRight", "ArrowRight", "Space")
    assert sheet.text("#viewer-title") == "posters/r0@2"
    assert sheet.text("#prompt") == EVIL
    assert sheet.page.evaluate("window.hacked") is None


def test_keys_move_pick_reject_zoom_and_leave(sheet: Sheet) -> None:
    sheet.press("ArrowRight")
    assert sheet.focused().startswith("posters/r0@1, done")
    sheet.press("p", "ArrowRight", "r")
    assert sheet.focused().endswith("rejected")
    assert sheet.page.locator(".tile.picked").count() == 1
    sheet.press("Space")
    assert sheet.page.locator("#viewer").is_visible()
    assert sheet.page.locator("#reject").get_attribute("aria-pressed") == "true"
    sheet.press("r", "p", "Escape")
    assert not sheet.page.locator("#viewer").is_visible()
    assert sheet.focused().startswith("posters/r0@2")
    assert sheet.text("#tally") == "2 picked, 0 rejected, 19 left"
    sheet.press("ArrowDown", "ArrowUp", "End")
    assert sheet.focused().startswith("relight/r23")


@pytest.mark.parametrize(
    ("code", "key", "done"),
    [
        ("KeyP", "з", "picked"),
        ("KeyR", "ρ", "rejected"),
        ("Digit2", "é", "2 stars"),
        ("Digit3", '"', "3 stars"),
        ("KeyL", "p", "picked"),  # Dvorak: what is printed counts
    ],
    ids=["russian", "greek", "french", "french-ascii", "dvorak"],
)
def test_keys_work_on_keyboards_of_other_scripts(sheet: Sheet, code: str, key: str, done: str) -> None:
    sheet.press("Home")
    pressed = (
        "([code, key]) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {code, key, bubbles: 1}))"
    )
    sheet.page.evaluate(pressed, [code, key])
    assert done in sheet.focused()


def test_a_key_that_is_held_marks_once(sheet: Sheet) -> None:
    sheet.press("Home")
    for _ in range(2):
        sheet.page.keyboard.down("r")  # without `up` between them the driver says that it repeats
    sheet.page.keyboard.up("r")
    assert sheet.text("#tally") == "0 picked, 1 rejected, 20 left"


def test_arrows_turn_the_pages_of_the_viewer(sheet: Sheet) -> None:
    sheet.press("Home", "Space", "ArrowRight", "ArrowRight", "ArrowLeft")
    assert sheet.text("#viewer-title") == "posters/r0@2"
    assert sheet.text("#place") == "2 of 24"
    sheet.press("Space")
    assert sheet.focused().startswith("posters/r0@2")


def test_the_question_mark_tells_the_keys(sheet: Sheet) -> None:
    sheet.press("?")
    assert sheet.page.locator("#keys").is_visible()
    sheet.press("Escape")
    assert not sheet.page.locator("#keys").is_visible()


@pytest.mark.parametrize(
    ("do", "left"),
    [
        (lambda page: page.click('.chip[data-state="failed"]'), 1),
        (lambda page: page.select_option("#job", "mugs"), 8),
        (lambda page: page.select_option("#tag", "hero"), 5),
        (lambda page: page.fill("#search", "THING 13 picture"), 1),
        (lambda page: page.fill("#search", "no such thing"), 0),
    ],
    ids=["state", "job", "tag", "text", "nothing"],
)
def test_filters_narrow_the_sheet_and_escape_clears_them(sheet: Sheet, do, left: int) -> None:
    do(sheet.page)
    sheet.until("!document.querySelector('#count').textContent.startsWith('24 tasks')")
    assert len(sheet.ids()) == left
    assert sheet.page.locator("#empty").is_visible() == (left == 0)
    sheet.page.evaluate("document.activeElement.blur()")
    sheet.press("Escape")
    assert len(sheet.ids()) == 24


@pytest.mark.parametrize(
    ("order", "first"),
    [("price", "relight/r23"), ("time", "relight/r23"), ("id", "mugs/r8"), ("order", "posters/r0@1")],
)
def test_the_order_can_be_chosen(sheet: Sheet, order: str, first: str) -> None:
    sheet.page.select_option("#sort", order)
    assert sheet.ids()[0] == first


def test_variants_stand_side_by_side(sheet: Sheet) -> None:
    sheet.page.select_option("#group", "row")
    assert sheet.text(".group >> nth=0").splitlines()[0] == "posters/r0"
    tops = sheet.page.locator(".tile").evaluate_all(
        "tiles => tiles.slice(0, 2).map(t => t.getBoundingClientRect().top)"
    )
    assert tops[0] == tops[1]
    sheet.press("Home", "c")
    assert sheet.page.locator(".compare button").count() == 2
    sheet.press("c", "]")
    assert sheet.text("#viewer-title") == "posters/r0@2"


def test_before_and_after_slide(sheet: Sheet) -> None:
    sheet.press("End", "Space")
    slider = sheet.page.locator("#slider")
    slider.focus()
    sheet.press("Home")
    assert slider.get_attribute("aria-valuetext") == "0 % before"
    box = slider.bounding_box()
    sheet.page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    assert float(slider.input_value()) == pytest.approx(75, abs=3)
    assert sheet.page.locator(".slider .over").evaluate("over => over.naturalWidth > 0")


def test_picks_outlive_the_page_and_become_a_file(sheet: Sheet, tmp_path: Path) -> None:
    sheet.press("Home", "p", "ArrowRight", "r")
    sheet.reload()
    assert sheet.text("#tally") == "1 picked, 1 rejected, 19 left"
    with sheet.page.expect_download() as download:
        sheet.page.click("#save")
    assert download.value.suggested_filename == "picks.json"
    download.value.save_as(tmp_path / "picks.json")
    marks = read_picks(tmp_path / "picks.json")
    assert {name: mark.kind for name, mark in marks.items()} == {"posters/r0@1": "picked", "posters/r0@2": "rejected"}
    assert all(len(mark.sha256) == 64 and mark.at_ms for mark in marks.values())


def test_a_browser_that_keeps_nothing_says_to_save_the_picks(sheet: Sheet) -> None:
    sheet.press("Home", "p")
    assert sheet.page.locator("#announce").is_hidden()
    sheet.page.evaluate("void (Storage.prototype.setItem = () => { throw new Error('full'); })")
    sheet.press("ArrowRight", "p")
    assert sheet.text("#tally") == "2 picked, 0 rejected, 19 left"
    assert "save the picks before it is closed" in sheet.text("#announced")
    assert sheet.page.locator("#reload").is_hidden()


def test_picks_are_saved_through_the_file_system_where_there_is_a_way(sheet: Sheet) -> None:
    sheet.page.evaluate(
        """window.showSaveFilePicker = async () => ({
             createWritable: async () => ({
               write: async (text) => { window.kept = text; }, close: async () => {} }) })"""
    )
    sheet.press("Home", "p")
    sheet.page.click("#save")
    sheet.until("window.kept")
    kept = json.loads(sheet.page.evaluate("window.kept"))
    assert (kept["picked"], kept["rejected"]) == (["posters/r0@1"], [])


def test_picks_can_be_loaded_again(sheet: Sheet, tmp_path: Path) -> None:
    path = tmp_path / "picks.json"
    path.write_text(json.dumps({"picked": ["mugs/r8", "not/here"], "rejected": ["mugs/r9"]}))
    sheet.page.set_input_files("#picksfile", path)
    sheet.until("document.querySelector('#tally').textContent === '1 picked, 1 rejected, 19 left'")
    sheet.page.select_option("#marked", "picked")
    assert sheet.ids() == ["mugs/r8"]
    path.write_text('{"picked": 1}')
    sheet.page.set_input_files("#picksfile", path)
    sheet.until("document.querySelector('#count').textContent.includes('is not a picks file')")


def test_a_mark_goes_with_the_image_it_was_for(sheet: Sheet, tmp_path: Path) -> None:
    path = tmp_path / "picks.json"
    old = {"mugs/r8": "0" * 64}
    path.write_text(json.dumps({"picked": ["mugs/r8"], "rejected": ["mugs/r9"], "images": old}))
    sheet.page.set_input_files("#picksfile", path)
    sheet.until("document.querySelector('#tally').textContent !== '0 picked, 0 rejected, 21 left'")
    assert sheet.text("#tally") == "0 picked, 1 rejected, 20 left"


def test_the_theme_follows_the_system_and_the_button(sheet: Sheet) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = sheet.page.evaluate(ground)
    sheet.page.emulate_media(color_scheme="dark")
    dark = sheet.page.evaluate(ground)
    assert light != dark
    sheet.page.click("#theme")
    assert sheet.page.evaluate(ground) == light
    sheet.reload()
    assert sheet.page.evaluate(ground) == light


# Every visible text whose contrast to its ground is below 4.5 (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = (colour) => {
    const [r, g, b] = rgba(colour).map((c) => linear(c / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (at) => {
    while (at && rgba(getComputedStyle(at).backgroundColor)[3] < 200) at = at.parentElement;
    return getComputedStyle(at ?? document.body).backgroundColor;
  };
  const isText = (at) => [...at.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
    && at.checkVisibility() && !at.closest("svg, noscript, option, .skip, .hidden");
  const poor = [];
  for (const at of [...document.querySelectorAll("body *")].filter(isText)) {
    const [a, b] = [light(getComputedStyle(at).color), light(ground(at))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push(`${at.className || at.tagName} ${at.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(sheet: Sheet, theme: str) -> None:
    sheet.page.emulate_media(color_scheme=theme)
    assert sheet.page.evaluate(CONTRAST) == []
    sheet.press("Home", "Space")
    assert sheet.page.evaluate(CONTRAST) == []


def test_everything_that_can_be_pressed_has_a_name(sheet: Sheet) -> None:
    sheet.press("Home", "Space")
    nameless = sheet.page.locator("button, input, select, a").evaluate_all(
        """all => all.filter(at => !(at.ariaLabel || at.textContent.trim() || at.labels?.length))
                 .map(at => at.outerHTML)"""
    )
    assert nameless == []
    assert sheet.page.locator('.frame[tabindex="0"]').count() == 1


def test_the_focus_stays_in_the_viewer_and_comes_back(sheet: Sheet) -> None:
    sheet.press("Home", "Space")
    for _ in range(12):
        sheet.press("Tab")
        assert sheet.page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('#viewer')"
        )
    sheet.press("Escape")
    assert sheet.focused().startswith("posters/r0@1")


def test_a_phone_has_no_sideways_scroll(browser: Any, report: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    sheet = Sheet(context).open(report)
    assert sheet.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sheet.page.tap(".frame >> nth=0")
    assert sheet.page.evaluate("document.querySelector('#viewer').scrollWidth <= innerWidth")
    context.close()


def test_a_picture_that_has_gone_says_so(fresh: Sheet, tmp_path: Path) -> None:
    page = make_report(tmp_path, 3)
    for path in [*(tmp_path / "report" / "thumbs").iterdir(), *(tmp_path / "images").iterdir()]:
        path.unlink()
    sheet = fresh.open(page)
    sheet.until("document.querySelectorAll('.blank').length === 3")
    assert "This image cannot be shown" in sheet.text(".blank >> nth=0")


def test_originals_are_shown_where_no_thumbnail_is_served(fresh: Sheet, tmp_path: Path) -> None:
    page = make_report(tmp_path, 3)
    shutil.rmtree(tmp_path / "report" / "thumbs")
    sheet = fresh.open(page)
    sheet.until("[...document.querySelectorAll('.frame img')].filter(i => i.naturalWidth).length === 3")
    assert sheet.page.locator(".blank").count() == 0


def test_an_empty_report_opens(fresh: Sheet, tmp_path: Path) -> None:
    sheet = fresh.open(make_report(tmp_path, 0))
    assert sheet.ids() == []
    sheet.press("ArrowRight", "Space", "p", "End")
    assert sheet.said == []


def test_ten_thousand_pictures_are_usable(fresh: Sheet, tmp_path: Path) -> None:
    sheet = fresh.open(make_report(tmp_path, 10_000))
    ready = sheet.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert ready < 6000  # 0.4 s measured on two shared cores
    assert sheet.page.locator(".tile").count() < 300
    sheet.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    sheet.until("[...document.querySelectorAll('.caption')].some(at => at.title === 'relight/r9999')")
    assert sheet.page.locator(".tile").count() < 300
    took = sheet.page.evaluate(
        """async () => { const at = performance.now(); const field = document.querySelector('#search');
             field.value = 'thing 4321'; field.dispatchEvent(new Event('input'));
             const count = document.querySelector('#count');
             while (!count.textContent.startsWith('1 of')) await new Promise(requestAnimationFrame);
             return performance.now() - at; }"""
    )
    assert took < 3000  # 0.2 s measured, 0.12 s of it waiting for the next key
    assert sheet.said == []


def test_paper_shows_every_picture_dark_on_white(fresh: Sheet, tmp_path: Path) -> None:
    sheet = fresh.open(make_report(tmp_path, 300))
    assert sheet.page.locator(".tile").count() < 200
    sheet.page.emulate_media(media="print", color_scheme="dark")
    sheet.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    place = "tile => { const { x, y } = tile.getBoundingClientRect(); return [y, x, Number(tile.ariaPosInSet)] }"
    printed = sheet.page.locator(".tile").evaluate_all(f"all => all.map({place})")
    assert [position for _, _, position in sorted(printed)] == list(range(1, 301))
    assert sheet.page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 27, 24)"
    sheet.page.emulate_media(media="screen")
    sheet.page.evaluate("dispatchEvent(new Event('afterprint'))")
    sheet.until("document.querySelectorAll('.tile').length < 200")


def test_a_prompt_is_read_from_the_side_that_its_script_begins_at(sheet: Sheet) -> None:
    sheet.press("Home", "Space")
    sheet.page.locator("#prompt").evaluate(
        "at => { at.textContent = '\u05e9\u05dc\u05d5\u05dd red \u05e1\u05e4\u05dc' }"
    )
    left = """at => {
      const first = document.createRange();
      first.setStart(at.firstChild, 0);
      first.setEnd(at.firstChild, 1);
      return at.getBoundingClientRect().right - first.getBoundingClientRect().right;
    }"""
    assert sheet.page.locator("#prompt").evaluate(left) < 2


def test_a_button_in_the_viewer_obeys_the_space_bar_and_a_click_gives_the_keys_back(sheet: Sheet) -> None:
    sheet.press("Home", "Space")
    sheet.page.focus("#pick")
    sheet.press("Space")
    assert sheet.text("#tally") == "1 picked, 0 rejected, 20 left"
    sheet.page.click("#reject")
    sheet.press("Space")
    assert not sheet.page.locator("#viewer").is_visible()
    assert sheet.page.locator(".tile.rejected").count() == 1


def test_a_report_that_was_sent_alone_shows_its_thumbnails(fresh: Sheet, report: Path, tmp_path: Path) -> None:
    """Somebody mails the folder: neither the images nor the inputs are where it is opened."""
    shutil.copytree(report.parent, tmp_path / "sent")
    sheet = fresh.open(tmp_path / "sent" / report.name)
    sheet.press("End", "Space")
    sheet.until("[...document.querySelectorAll('#picture img')].length === 2")
    sheet.until(
        "[...document.querySelectorAll('#picture img')].every(i => i.naturalWidth && i.src.includes('/thumbs/'))"
    )
    assert sheet.text("#place").endswith("original not found, this is its thumbnail")

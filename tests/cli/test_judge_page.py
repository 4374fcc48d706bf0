"""judge in a headless Chromium: the served page under its own policy, two windows, a server that ends."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import judge_server
from pipeline.cli.main import main
from pipeline.store.marks import read_marks
from pipeline.view import logs
from tests.cli.conftest import Imgpipe
from tests.cli.test_judge import setup_of
from tests.report.sheets import CHROMIUM, FLAGS, Sheet

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]  # a run, a server and a browser are started


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the images of every test, before the browser is open: its driver has the event loop of this thread."""
    folder = tmp_path_factory.mktemp("shop")
    manifest = Imgpipe(folder).manifest()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["run", str(manifest), "-q"])
    logs.tear_down()
    return manifest


@pytest.fixture
def address(imgpipe: Imgpipe, shop: Path) -> Iterator[str]:
    """Serve from a thread of its own: the driver of the browser has this one."""
    shutil.copytree(shop.parent, imgpipe.folder, dirs_exist_ok=True)
    setup = setup_of(imgpipe.folder / shop.name)
    with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE task SET flags = '' WHERE id = 'mugs/red'")  # blue stays flagged, so it comes first
    started, addresses, stopping = threading.Event(), list[str](), list[Any]()

    async def serve() -> None:
        secret = "s" * 43
        session = judge_server.JudgeSession(setup, secret=secret)
        server = judge_server.JudgeServer(session, secret=secret)
        runner = judge_server.web.AppRunner(server.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await judge_server.web.TCPSite(runner, judge_server.HOST, 0).start()
        server.host = f"{judge_server.HOST}:{runner.addresses[0][1]}"
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stopping.append(lambda: loop.call_soon_threadsafe(stop.set))
        addresses.append(server.address)
        started.set()
        await stop.wait()
        await runner.cleanup()
        session.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    yield addresses[0]
    stopping[0]()
    thread.join()


@pytest.fixture(scope="module")
def browser(shop: Path) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(reason="no chromium here: the page of judge is not tested (apt-get install chromium)")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the page is not tested")
    with driver.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    made.set_default_timeout(8000)
    yield made
    made.close()


def open_at(context: Any, address: str) -> Sheet:
    sheet = Sheet(context)
    sheet.page.goto(address)
    sheet.page.wait_for_selector("html[data-ready]")
    return sheet


def test_two_windows_share_their_marks_and_undo_is_kept(context: Any, address: str, imgpipe: Imgpipe) -> None:
    one = open_at(context, address)
    assert one.ids() == ["mugs/blue", "mugs/red"]
    origin = address.partition("#")[0]
    assert "#" not in one.page.url  # the token is in no history
    assert one.page.locator("#tables").is_hidden()  # they are files beside the static page
    two = open_at(context, origin)  # the same browser finds the page again
    assert two.page.url == one.page.url
    one.press("Home", "p", "4")  # goes on after the mark: the stars are the second one's
    two.until("document.querySelector('#tally').textContent === '1 picked, 0 rejected, 1 left'")
    two.until("document.querySelectorAll('.stars:not(:empty)').length === 1")  # sent after the answer to the first mark
    two.press("Home", "Space", "n")
    two.page.keyboard.type("+ a green handle")
    two.press("Escape", "Escape")
    one.until("[...document.querySelectorAll('.stars')].some(at => at.textContent.includes('✎'))")
    one.press("u", "u")
    two.until("document.querySelector('#tally').textContent === '0 picked, 0 rejected, 2 left'")
    marks = read_marks(imgpipe.state, manifest="shop")
    assert {name: (mark.kind, mark.stars, mark.note) for name, mark in marks.items()} == {
        "mugs/blue": ("", 0, "+ a green handle"),
        "mugs/red": ("", 0, ""),
    }
    one.until("[...document.querySelectorAll('.frame img')].every(at => at.complete && at.naturalWidth)")
    assert one.said == two.said == []  # no policy was violated, nothing failed
    assert {url.split("/")[2] for url in one.asked} == {origin.split("/")[2]}


def test_marks_of_another_window_are_shown_that_were_made_while_two_of_ours_were_sent(
    context: Any, address: str
) -> None:
    one = open_at(context, address)
    two = open_at(context, address.partition("#")[0])
    held: list[Any] = []
    one.page.route("**/marks", lambda route: route.continue_() if held else held.append(route))
    one.press("Home", "p")
    while not held:
        one.page.wait_for_timeout(10)
    with two.page.expect_response("**/marks"):
        two.press("End", "r")
    one.press("Home", "4")  # waits for the answer to the first mark, which has that of the other window
    held[0].continue_()
    one.until("document.querySelector('#tally').textContent === '1 picked, 1 rejected, 0 left'")
    assert one.said == two.said == []


def test_the_address_opens_nothing_a_second_time(context: Any, address: str) -> None:
    open_at(context, address)
    stranger = context.browser.new_context()
    page = stranger.new_page()
    page.goto(address)
    page.wait_for_selector("#closed:not([hidden])")
    assert "works once" in page.inner_text("#closed")
    assert page.url == address.partition("#")[0]
    stranger.close()


def test_a_mark_that_could_not_be_kept_is_told(context: Any, address: str) -> None:
    sheet = open_at(context, address)
    sheet.page.route("**/marks", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    sheet.press("Home", "p")
    sheet.until("document.querySelector('#announce').textContent.includes('1 not saved')")
    sheet.page.unroute("**/marks")
    sheet.until("document.querySelector('#announce').hidden")
    assert sheet.text("#tally") == "1 picked, 0 rejected, 1 left"

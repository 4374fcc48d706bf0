"""One open page of the report in a headless Chromium, and everything it said and asked for."""

import shutil
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_S = 10.0


class Sheet:
    """One open page, and everything it said and asked for."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: Path) -> "Sheet":
        self.said.clear()
        self.asked.clear()
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]")
        return self

    def reload(self) -> None:
        self.page.reload()
        self.page.wait_for_selector("html[data-ready]")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def until(self, claim: str) -> None:
        """Assert that a claim holds within 10 s; the page's policy forbids the driver's way of waiting, `eval`."""
        end = time.monotonic() + PATIENCE_S
        while not self.page.evaluate(claim):
            assert time.monotonic() < end, f"does not hold: {claim}"
            self.page.wait_for_timeout(20)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def ids(self) -> list[str]:
        """The ids on the sheet, in reading order."""
        tiles = self.page.locator(".tile").evaluate_all(
            "tiles => tiles.map(tile => [Number(tile.ariaPosInSet), tile.querySelector('.caption').title])"
        )
        return [name for _, name in sorted(tiles)]

    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))

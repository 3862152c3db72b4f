"""Chromium, and the page of a running service in it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.browser import chromium
from tests.cache import FOLDER

SCREENSHOTS = FOLDER / "screenshots"
"""Kept after the run, one for each state of the page."""

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium())
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """A function from a service's address to its page, in a window of its own without errors of scripts."""
    contexts, errors = [], []

    def failed(error: Error) -> None:
        errors.append(error)

    def opened(url: str, *, width: int = 1280, dark: bool = False, ready: bool = True, **routes: Any) -> Page:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme="dark" if dark else "light"))
        contexts[-1].grant_permissions(["clipboard-read", "clipboard-write"])
        page = contexts[-1].new_page()
        page.on("pageerror", failed)
        for path, answer in routes.items():
            page.route(f"**/{path}", answer)
            page.route(f"**/{path}?*", answer)
        page.goto(url)
        if ready:
            page.wait_for_selector(".status.good")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def screenshot(request: pytest.FixtureRequest) -> Callable[[Page], None]:
    def taken(page: Page) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        name = request.node.name.removeprefix("test_").replace("[", "-").rstrip("]")
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    return taken

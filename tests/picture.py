"""`make picture`: the picture of the README, which shows the page with a heat map of a sample photograph."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.browser import chromium
from tests.servers import serve


def take(output: Path) -> None:
    """Start the service with the default bundle and write a PNG file of 1280 x 900 pixels."""
    if not (browser := chromium()):
        sys.exit("error: Chromium or Chrome takes the picture, and there is none: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path("artifacts").absolute(), Path(folder) / "log") as server,
        sync_playwright() as playwright,
    ):
        page = playwright.chromium.launch(executable_path=browser).new_page(viewport={"width": 1280, "height": 900})
        # The first answers of a service are slower than those after them.
        for _ in range(3):
            page.goto("about:blank")
            page.goto(f"{server.url}/ui#sample=coffee&heat")
            expect(page.locator("#seen")).to_be_visible(timeout=60_000)
        page.screenshot(path=output)


if __name__ == "__main__":
    take(Path(sys.argv[1]))

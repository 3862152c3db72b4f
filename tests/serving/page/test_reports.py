"""The training report and the page about a bundle, in a browser: readable on a phone, and by a screen reader."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from export.report import page as bundle_page
from models.bundle.bundle import Bundle
from tests.serving.page.test_page import Screenshot, check_access
from tests.training.test_report import report

pytestmark = pytest.mark.browser

LABELS = ("Long-sleeved pullover with a hood", "猫", "🦊 fox", "Trouser")


@pytest.mark.parametrize("kind", ["training", "bundle"])
def test_a_report_on_a_phone(
    artifacts: Path, tmp_path: Path, browser: Browser, screenshot: Screenshot, kind: str
) -> None:
    if kind == "training":
        report(tmp_path, labels=LABELS)
        path = tmp_path / "index.html"
    else:
        path = tmp_path / "bundle.html"
        path.write_text(bundle_page(Bundle.open(artifacts / "efficientnet_lite0")))

    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.goto(path.as_uri())

    check_access(page)
    # A long name takes a few lines, not one for each letter.
    names = page.locator("tbody tr > :first-child")
    sizes = [names.nth(index).bounding_box() for index in range(names.count())]
    assert sizes
    assert all(size and size["width"] > 100 for size in sizes)
    screenshot(page)
    page.close()

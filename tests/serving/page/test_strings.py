"""The words of the page are in one file, and each of them is used."""

import re

from tests.servers import ROOT


def test_every_word_of_the_page_is_in_one_place() -> None:
    folder = ROOT / "serving" / "api" / "ui"
    strings = (folder / "strings.js").read_text()
    used = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', (folder / "page.html").read_text()))
    used |= {name for path in folder.glob("*.js") for name in re.findall(r"TEXT\.(\w+)", path.read_text())}

    assert used == set(re.findall(r"^  (\w+):", strings, re.MULTILINE))

"""The documentation as a site: every link leads somewhere, and a reader's browser asks no other host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # A page that the menu leaves out, a broken link and a broken anchor are warnings, which end a strict build.
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    pages = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}

    assert {path.name for path in (site / "docs").glob("*.html")} == pages
    assert "From labelled pictures to a trusted HTTP API" in (site / "index.html").read_text()


def test_a_page_loads_nothing_from_another_host(site: Path) -> None:
    loads = re.compile(r'<(?:script|img|iframe|source|link rel="(?!canonical))[^>]*(?:src|href)="(?:https?:)?//[^"]*"')

    found = {match for path in site.rglob("*.html") for match in loads.findall(path.read_text())}

    assert found == set()
    # The only script that Material fetches from elsewhere draws Mermaid's diagrams.
    assert [path for path in site.rglob("*.html") if 'class="mermaid"' in path.read_text()] == []

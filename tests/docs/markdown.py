"""The Markdown that users read, and the code in it."""

import re

from tests.servers import ROOT

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
DOCS = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {"README": README, "CONTRIBUTING": CONTRIBUTING, **DOCS}
"""Name to text."""


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced code of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)

"""The words of code and documentation: docstrings, comments, messages and pages use the field's terms."""

import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.docs.markdown import PAGES
from tests.servers import ROOT

PACKAGES = ("models", "training", "export", "serving", "loadtest")

BANNED = {
    r"anew": "again",
    r"no more(?! than)": "no longer",
    r"all the same": "anyway",
    r"so many": "N",
    r"(?:is|are|was|were|be|been|being) told": "receives, is notified",
    r"judged? by": "evaluated on",
    r"learn(?:t|s)? from": "trained on",
    r"learnt": "trained, trained on",
    r"found out": "detected",
    r"(?:put )?in charge": "activated, serving",
    r"weighs": "uses N MB",
    r"(?:no|some)body|whoever": "the client, the caller",
    r'crew|door|(?<!")patience(?!")|reign|crowd|colleagues?': "the field's word, not a picture",
}
"""Pattern of what is read twice, and what to write instead."""


def words(path: Path) -> list[tuple[int, str]]:
    """The line and text of every comment and string of a file."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return [(token.start[0], token.string) for token in tokens if token.type in kinds]


PATTERN = re.compile("|".join(rf"\b(?:{banned})\b" for banned in BANNED), re.IGNORECASE)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_sentence_has_to_be_read_twice(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match.group()}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in words(path)
        for match in PATTERN.finditer(text)
    ]

    assert found == []


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_of_a_page_has_to_be_read_twice(page: str) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", PAGES[page], flags=re.DOTALL)

    assert PATTERN.findall(prose) == []

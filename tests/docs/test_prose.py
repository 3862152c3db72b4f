"""README and quickstart are read by tired people: no sentence is long."""

import pytest

from tests.docs.markdown import DOCS, README
from tests.docs.prose import grade, sentences

LONGEST = 35
"""Words."""


@pytest.mark.parametrize("text", [README, DOCS["quickstart"]], ids=["README", "quickstart"])
def test_no_sentence_is_long(text: str) -> None:
    found = list(sentences(text))

    assert len(found) > 20
    assert [" ".join(words) for words in found if len(words) > LONGEST] == []


def test_long_words_in_long_sentences_have_a_higher_grade() -> None:
    assert grade("A dog ran. It bit a man.") < 2
    assert grade("Considerable methodological heterogeneity " * 5 + ".") > 12

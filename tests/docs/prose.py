"""`python -m tests.docs.prose`: the longest sentence and the reading grade of each page.

The grade is that of Flesch and Kincaid (1975): years of school, from words per sentence and syllables per word.
"""

import re
from collections.abc import Iterator

from tests.docs.markdown import PAGES

WITHOUT_PROSE = {"flags", "glossary", "python"}


def sentences(text: str) -> Iterator[list[str]]:
    """Yield the words of every sentence, without code, tables and headings; an item of a list ends one."""
    text = re.sub(r"```.*?```|<!--.*?-->|^(?:#|\||!\[)[^\n]*$", "\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`|<https?:[^>]*>", "Code", text)
    for block in re.split(r"\n\s*\n|^\s*(?:-|\d+\.) ", text, flags=re.MULTILINE):
        for sentence in re.split(r"(?<=[.!?])[*)\"]*\s+(?=[*\"(]*[A-Z0-9])", block):
            if words := re.findall(r"\w[\w'’.,-]*", sentence):
                yield words


def grade(text: str) -> float:
    """Return the reading grade of Flesch and Kincaid."""
    found = list(sentences(text))
    words = [word for sentence in found for word in sentence]
    syllables = sum(max(1, len(re.findall(r"[aeiouy]+", re.sub(r"e$", "", word.lower())))) for word in words)
    return 0.39 * len(words) / len(found) + 11.8 * syllables / len(words) - 15.59


def main() -> None:
    """Print a line for every page."""
    for name, text in PAGES.items():
        if name not in WITHOUT_PROSE:
            longest = max(sentences(text), key=len)
            start = " ".join(longest[:6])
            print(f"{name:<16} grade {grade(text):4.1f}, longest sentence {len(longest):2} words: {start} …")


if __name__ == "__main__":
    main()

"""Class names that a person would take for the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from models.errors import HalftoneError


def folded(name: str) -> str:
    """The name without regard to capitals, spaces around it and ways to encode the same letters."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def check_distinct(names: Iterable[str], *, where: str) -> None:
    """Refuse two names that differ only in how they are written.

    Args:
        names: the class names, each once.
        where: what has them, for the message, such as `the folder photos`.

    Raises:
        HalftoneError: there are two such names, most likely of one class.
    """
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(folded(name), name)
        if twin != name:
            raise HalftoneError(
                f"{where} has the classes {twin!r} and {name!r}, which differ in how they are written only: merge "
                "them, or rename one"
            )

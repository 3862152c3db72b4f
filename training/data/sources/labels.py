"""Class names that a person would take for the same, or that can't be names of folders."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from models.common.errors import HalftoneError


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


def fault_as_folder(name: str) -> str | None:
    """Why a class can't have a folder of this name, which it gets in samples and beside exports; None if it can.

    Args:
        name: the class name.
    """
    if not name.strip():
        return "it is empty"
    if name.startswith("."):
        return "it begins with a dot"
    if found := next((mark for mark in "/\\" if mark in name), None):
        return f"it contains {found}"
    # Control characters, and the separators of lines and paragraphs.
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        return "it contains a control character or a line end"
    return None

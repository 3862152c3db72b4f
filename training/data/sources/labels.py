"""Checks of class names: confusable names, and names that can't be folders."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from models.common.errors import HalftoneError
from models.common.text import controls


def folded(name: str) -> str:
    """Return the name without differences of case, surrounding spaces and Unicode encoding."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def check_distinct(names: Iterable[str], *, where: str) -> None:
    """Refuse two names that differ only in spelling, most likely of one class.

    Args:
        names: the class names, each once.
        where: their source for the message, such as `the folder photos`.

    Raises:
        HalftoneError: there are two such names.
    """
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(folded(name), name)
        if twin != name:
            raise HalftoneError(
                f"{where} has the classes {twin!r} and {name!r}, which differ in spelling only: merge them, or rename "
                "one"
            )


def fault_as_folder(name: str) -> str | None:
    """Return the reason why a class name can't be the name of a folder, as samples and exports need; None if it can."""
    if not name.strip():
        return "it is empty"
    if name.startswith("."):
        return "it begins with a dot"
    if found := next((mark for mark in "/\\" if mark in name), None):
        return f"it contains {found}"
    if controls(name):
        return "it contains a control character or a line end"
    return None

"""The catalogue: every architecture by name, discovered from the files of `models/architectures/`."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil

import models.architectures
from models.common.errors import HalftoneError
from models.spec import Architecture


@functools.cache
def catalogue() -> dict[str, Architecture]:
    """Name to architecture, in the order of the files and of the entries within them."""
    found: dict[str, Architecture] = {}
    for module in pkgutil.iter_modules(models.architectures.__path__):
        entries = importlib.import_module(f"models.architectures.{module.name}").ARCHITECTURES
        for architecture in entries:
            if architecture.name in found:
                raise RuntimeError(f"architecture {architecture.name!r} is defined twice")
            found[architecture.name] = architecture
    return found


def architecture(name: str) -> Architecture:
    """The catalogue's entry of that name.

    Raises:
        HalftoneError: there is none; the message suggests the nearest names.
    """
    known = catalogue()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise HalftoneError(f"no architecture is called {name!r}: {hint}`python -m models` lists all {len(known)}")

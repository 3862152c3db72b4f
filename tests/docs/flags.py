"""The flags of every command, with their help and defaults, from the commands' own configurations."""

import ast
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal

from tests.wrong_uses import leaves


@dataclass(frozen=True, kw_only=True)
class Row:
    """A flag in a table."""

    name: str
    takes: str
    default: str
    meaning: str


def rows(config: type) -> Iterator[Row]:
    """Yield the flags of a configuration, those of its parts included."""
    for name, hint, field, owner in leaves(config):
        meaning = _help(owner)[field.name]
        yield Row(name=name, takes=_takes(hint), default=_default(field), meaning=meaning)


def about(config: type) -> str:
    """Return the first paragraph of the help."""
    return " ".join((inspect.getdoc(config) or "").partition("\n\n")[0].split())


def _help(config: type) -> dict[str, str]:
    """Return the docstrings below the fields, those of base classes included."""
    found = {}
    for each in reversed(config.__mro__):
        if is_dataclass(each):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
            body = typing.cast(ast.ClassDef, tree).body
            for node, after in itertools.pairwise(body):
                match node, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = " ".join(text.split())
    return found


def _takes(hint: Any) -> str:
    """Return what follows the flag on the command line."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return f"{_takes(typing.get_args(hint)[0])} …"
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    return {bool: "", int: "whole number", float: "number", str: "text", Path: "path"}[hint]


def _default(field: Field[Any]) -> str:
    """Return the default, and nothing for one that depends on the machine or on other flags: its meaning says it."""
    if field.default is not MISSING:
        return _shown(field.default)
    return "needed" if field.default_factory is MISSING else ""


def _shown(value: Any) -> str:
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{' '.join(map(str, value)) if isinstance(value, tuple) else value}`"

"""The command lines of the documentation, and what is wrong with one: nothing of them is run."""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from itertools import groupby

from halftone import COMMANDS
from models.common import cli
from models.common.errors import HalftoneError
from serving.api.openapi.document import document
from serving.settings import Settings
from tests.docs.markdown import blocks
from tests.servers import ROOT
from tests.test_packaging import PROJECT
from tests.wrong_uses import commands, flags

PROGRAMS = "python|halftone|make|bentoml|torchrun"
INLINE = re.compile(rf"`((?:[A-Z_]+=\S+ )*(?:{PROGRAMS}) [^`]+)`")
"""A command line within a sentence; it may be cut short."""
OTHERS = {"pytest", "json"}
"""Modules that `python -m` runs and that are not ours."""
BENTOML = {"serve", "build", "containerize", "models"}
NAMES = {f"HALFTONE_{field.name.upper()}" for field in fields(Settings)} | {"HALFTONE_ARTIFACTS", "HALFTONE_SETTINGS"}


def typed(text: str) -> Iterator[list[str]]:
    """Yield the words of every command line in the fenced code of a page, and of the commands that it pipes to."""
    for block in blocks(text, "sh"):
        plain = re.sub(r"(?:^|\s)#.*$", "", block, flags=re.MULTILINE).replace("\\\n", " ")
        lexer = shlex.shlex(plain, posix=True, punctuation_chars="|\n")
        lexer.whitespace, lexer.whitespace_split = " \t", True
        for end, words in groupby(lexer, key=lambda word: not word.strip("|\n")):
            if not end:
                yield list(words)


def mentioned(text: str) -> list[list[str]]:
    """Return the words of every command line within the sentences of a page."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [shlex.split(found.replace("[", "").replace("]", "")) for found in INLINE.findall(prose)]


def problem(words: list[str], *, whole: bool) -> str:
    """Return what is wrong with a command line, or an empty text.

    Args:
        words: as the shell splits them.
        whole: True if all flags that the command needs must be there, with values that it accepts.
    """
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name = words.pop(0).partition("=")[0]
        if name.startswith("HALFTONE_") and name not in NAMES:
            return f"there is no setting {name}"
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program in ("python", "torchrun") and "-m" in arguments[:-1]:
        module = arguments.index("-m") + 1
        return _module(arguments[module], arguments[module + 1 :], whole=whole)
    if program == "halftone" and arguments[0] in COMMANDS:
        return _module(COMMANDS[arguments[0]], arguments[1:], whole=whole)
    return CHECKS[program](arguments) if program in CHECKS else ""


def _module(module: str, arguments: list[str], *, whole: bool) -> str:
    if module in OTHERS or "…" in module:
        return ""
    if module not in commands():
        return f"python -m {module} is no command"
    command = commands()[module]
    if not whole or "--help" in arguments:
        known = {flag.name for flag in flags(command.config)} | {"--help"}
        unknown = {each for each in arguments if each.startswith("--")} - known
        return f"{module} has no {unknown}" if {each.replace("--no-", "--") for each in unknown} - known else ""
    try:
        cli.parse(command.config, prog=module, args=arguments)
    except (HalftoneError, SystemExit) as error:
        return f"{module}: {error}"
    except Exception as error:
        # The commands of load tests have an error of their own.
        if type(error).__name__ != "CompareError":
            raise
        return f"{module}: {error}"
    return ""


@cache
def _targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _target(arguments: list[str]) -> str:
    name = arguments[0]
    return "" if "=" in name or name in _targets() else f"there is no target {name}"


def _extra(arguments: list[str]) -> str:
    extras = set(re.findall(r"^\.\[(\w+)\]$", arguments[-1]))
    unknown = extras - set(PROJECT["optional-dependencies"])
    return f"there is no extra {unknown}" if unknown else ""


def _address(arguments: list[str]) -> str:
    (path,) = (found[1] for each in arguments if (found := re.match(r"(?:http://)?127\.0\.0\.1:3000([^?]*)", each)))
    patterns = [re.sub(r"\{\w+\}", "[^/]+", each) for each in served()]
    known = path.startswith("/admin/") or any(re.fullmatch(pattern, path) for pattern in patterns)
    return "" if known else f"the service has no path {path}"


CHECKS: dict[str, Callable[[list[str]], str]] = {
    "bentoml": lambda arguments: "" if arguments[0] in BENTOML else f"bentoml has no command {arguments[0]}",
    "curl": _address,
    "halftone": lambda arguments: "" if arguments[0] == "serve" else f"halftone has no command {arguments[0]}",
    "make": _target,
    "pip": _extra,
}
"""Program to the check of its arguments."""


@cache
def served() -> tuple[str, ...]:
    """Return the paths of the OpenAPI document."""
    return tuple(document(Settings())["paths"])

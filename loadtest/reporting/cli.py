"""Errors and exit codes of the commands that measure: a mistake of the user becomes one line."""

from __future__ import annotations

import os
import signal
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

WRONG_REQUEST, INTERRUPTED, TERMINATED = 2, 130, 143

_MAX_NAME, _MAX_PATH = 255, 4095

Config = TypeVar("Config")


class CompareError(Exception):
    """A request that can't be carried out; the message says what happened and what to do."""


class PeerError(CompareError):
    """A server that can't be installed, started or measured; in a comparison it becomes a row with this reason."""


def run(main: Callable[[Config], int], parse: Callable[[], Config]) -> NoReturn:
    """Exit with the code that `main` returns; 2 for a wrong request, 130 after Ctrl-C, 143 after SIGTERM.

    In any case the servers that `main` started are stopped first.

    Args:
        main: the work.
        parse: reads the command line; may raise CompareError too.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        config = parse()
        _check_paths(config)
        code = main(config)
    except CompareError as error:
        print(f"error: {line(error)}", file=sys.stderr)
        code = WRONG_REQUEST
    except OSError as error:
        if error.errno is None or not isinstance(error.filename, str | bytes):
            raise
        name = os.fsdecode(error.filename)
        print(
            f"error: {line(name[:200])}: {error.strerror}: choose another path, or change its rights", file=sys.stderr
        )
        code = WRONG_REQUEST
    except KeyboardInterrupt:
        print("interrupted: the servers were stopped, and no report was written", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that context managers stop the servers."""
    sys.exit(TERMINATED)


def line(text: object) -> str:
    """Return a message as one line: characters that end lines or control terminals are escaped."""
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") else each
        for each in str(text)
    )


def _check_paths(config: Any) -> None:
    """Refuse paths that no file system takes, before anything is measured."""
    for field in fields(config) if is_dataclass(config) else ():
        value = getattr(config, field.name)
        if not isinstance(value, Path):
            continue
        longest = max((len(os.fsencode(part)) for part in value.parts), default=0)
        if longest > _MAX_NAME or len(os.fsencode(value)) > _MAX_PATH:
            flag = f"--{field.name.replace('_', '-')}"
            raise CompareError(f"{flag}: {str(value)[:60]}… is too long for a file system: choose a shorter path")

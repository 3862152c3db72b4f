"""Errors and exit codes of the commands that measure: a mistake of the user becomes one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

WRONG_REQUEST, INTERRUPTED = 2, 130

Config = TypeVar("Config")


class CompareError(Exception):
    """A request that can't be carried out; the message says what happened and what to do."""


class PeerError(CompareError):
    """A server that can't be installed, started or measured; in a comparison it becomes a row with this reason."""


def run(main: Callable[[Config], int], parse: Callable[[], Config]) -> NoReturn:
    """Exit with the code that `main` returns; 2 for a wrong request, 130 after Ctrl-C.

    Args:
        main: the work.
        parse: reads the command line; may raise CompareError too.
    """
    try:
        code = main(parse())
    except CompareError as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_REQUEST
    except KeyboardInterrupt:
        print("interrupted: the servers were stopped, and no report was written", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)

"""How every `python -m …` of this project starts and ends: tyro reads the flags, mistakes become one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from models.common.errors import HalftoneError

DONE, ANSWER_IS_NO, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

Config = TypeVar("Config")


def run(command: Callable[[Config], int], config_type: type[Config], *, prog: str) -> NoReturn:
    """Parse the command line into `config_type`, run `command` on it and exit with the code it returns.

    Exit codes: 0 done, 1 the work was done and the answer is no, 2 the request was wrong, 130 interrupted.
    A `HalftoneError`, also one raised while the flags are checked, is printed as one line without a traceback, and so
    is a full disk.

    Args:
        command: takes the parsed configuration, returns the exit code.
        config_type: keyword-only dataclass whose field docstrings are the help texts.
        prog: what the user typed, for the usage line.
    """
    # The service imports this module for an exit code alone, and tyro is a tenth of a second of its start.
    import tyro

    try:
        code = command(tyro.cli(config_type, prog=prog))
        sys.stdout.flush()
    except HalftoneError as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_REQUEST
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was left behind", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`… | head`): what it asked for was delivered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: the disk is full{where}: free some space, then repeat the command", file=sys.stderr)
        code = WRONG_REQUEST
    sys.exit(code)

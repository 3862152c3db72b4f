"""Entry point of every `python -m …` command: tyro parses the flags, user errors become one line and an exit code."""

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
    """Parse the command line into `config_type`, run `command` with it and exit with its return value.

    Exit codes: 0 done, 1 the work was done and the answer is no, 2 the request was wrong, 130 interrupted.
    A `HalftoneError`, from the flags' checks or from the command, is printed as one line without a traceback. So is a
    full disk.

    Args:
        command: takes the parsed configuration, returns the exit code.
        config_type: keyword-only dataclass whose field docstrings are the help texts.
        prog: the command as the user types it, for the usage line.
    """
    # Imported here: the service uses only an exit code of this module, and tyro takes a tenth of a second to import.
    import tyro

    try:
        code = command(tyro.cli(config_type, prog=prog))
        sys.stdout.flush()
    except HalftoneError as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_REQUEST
    except KeyboardInterrupt:
        print("interrupted: no incomplete files were left behind", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`… | head`): it has received all the output that it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: the disk is full{where}: free some space, then repeat the command", file=sys.stderr)
        code = WRONG_REQUEST
    sys.exit(code)

"""Entry point of every `python -m …` command: tyro parses the flags, user errors become one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from models.common.errors import HalftoneError
from models.common.files import check_length
from models.common.text import line

DONE, ANSWER_IS_NO, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

Config = TypeVar("Config")


def run(command: Callable[[Config], int], config_type: type[Config], *, prog: str) -> NoReturn:
    """Parse the command line into `config_type`, run `command` with it and exit with its return value.

    Exit codes: 0 done, 1 the work was done and the answer is no, 2 the request was wrong, 130 interrupted.
    A `HalftoneError`, from the flags' checks or from the command, is printed as one line without a traceback. So is
    what the operating system refuses: a full disk, a folder that can't be written, a path that is too long.

    Args:
        command: takes the parsed configuration, returns the exit code.
        config_type: keyword-only dataclass whose field docstrings are the help texts.
        prog: the command as the user types it, for the usage line.
    """
    try:
        code = command(parse(config_type, prog=prog))
        sys.stdout.flush()
    except HalftoneError as error:
        print(f"error: {line(error)}", file=sys.stderr)
        code = WRONG_REQUEST
    except KeyboardInterrupt:
        print("interrupted: no incomplete files were left behind", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`… | head`): it has received all the output that it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except OSError as error:
        print(f"error: {line(_explained(error))}", file=sys.stderr)
        code = WRONG_REQUEST
    sys.exit(code)


def parse(
    config_type: type[Config], *, prog: str, args: Sequence[str] | None = None, default: Config | None = None
) -> Config:
    """Parse a command line, by default that of this process, and check the lengths of its paths.

    Args:
        config_type: as for `run`.
        prog: as for `run`.
        args: the flags.
        default: values of the flags that are not given.

    Raises:
        HalftoneError: from the flags' checks, or a path is too long for a file system.
        SystemExit: the flags can't be parsed, and a message is on the standard error stream; or after `--help`.
    """
    # Imported here: the service uses only an exit code of this module, and tyro takes a tenth of a second to import.
    import tyro

    given: dict[str, Any] = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config: Config = tyro.cli(config_type, prog=prog, args=args, **given)
    except SystemExit as end:
        if mistake := _mistake(end):
            raise mistake from None
        sys.stderr.write(said.getvalue())
        raise
    for flag, path in _paths(config):
        check_length(path, flag)
    return config


def _mistake(error: BaseException | None) -> HalftoneError | None:
    """Return the error of a check that tyro has turned into the end of the process."""
    while error is not None and not isinstance(error, HalftoneError):
        error = error.__cause__ or error.__context__
    return error


def _paths(config: Any) -> Iterator[tuple[str, Path]]:
    for field in fields(config) if is_dataclass(config) else ():
        value = getattr(config, field.name)
        if isinstance(value, Path):
            yield f"--{field.name.strip('_').replace('_', '-')}", value
        yield from _paths(value)


def _explained(error: OSError) -> str:
    """Return the message for an error of the operating system; raise one that has no number, a library's own."""
    if error.errno is None:
        raise error
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({name})" if name else ""
        return f"the disk is full{where}: free some space, then repeat the command"
    if error.errno == errno.ENAMETOOLONG:
        return f"a name or path is too long for the file system ({name[:60]}…): choose a shorter one"
    if name:
        return f"{name}: {error.strerror}: choose another path, or change what is there or its rights"
    return f"the operating system refused: {error.strerror}"

"""Entry point of every `python -m …` command: tyro parses the flags, user errors become one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from models.common.errors import HalftoneError
from models.common.extras import missing
from models.common.files import check_length, check_writable
from models.common.text import line

DONE, ANSWER_IS_NO, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

OUTPUTS = ("--output", "--report", "--settings")
"""Flags that name what a command writes."""

Config = TypeVar("Config")


_document: ContextVar[list[Any]] = ContextVar("_document")


@dataclass(frozen=True, kw_only=True)
class JsonOutput:
    """Base of the configurations of commands whose results scripts read."""

    json: bool = False
    """Print the result as one JSON document on the standard output; everything else goes to the standard error
    stream."""


def publish(document: Any) -> None:
    """Give `run` the result of the command, JSON-ready, for `--json`; nothing is printed without it."""
    if (documents := _document.get(None)) is not None:
        documents.append(document)


def run(
    command: Callable[[Config], int],
    config_type: type[Config],
    *,
    prog: str,
    example: str,
    defaults: Callable[[Sequence[str]], Config | None] = lambda arguments: None,
) -> NoReturn:
    """Parse the command line into `config_type`, run `command` with it and exit with its return value.

    Exit codes: 0 done, 1 the work was done and the answer is no, 2 the request was wrong, 130 interrupted.
    A `HalftoneError`, from the flags' checks or from the command, is printed as one line without a traceback. So is
    what the operating system refuses: a full disk, a folder that can't be written, a path that is too long. A package
    that is not installed is named with the extra that brings it. With `--json` (see `JsonOutput`), standard output gets
    one document: the one that the command has published, or `{"error": …}`.

    Args:
        command: takes the parsed configuration, returns the exit code.
        config_type: keyword-only dataclass whose field docstrings are the help texts.
        prog: the command as the user types it, for the usage line.
        example: flags of a typical use, for the help.
        defaults: returns the values of the flags that the command line leaves out; None for those of `config_type`.
    """
    with _one_document(wanted="--json" in sys.argv[1:] and issubclass(config_type, JsonOutput)) as documents:
        code = _code(command, config_type, documents, prog=prog, example=example, defaults=defaults)
    sys.exit(code)


def _code(
    command: Callable[[Config], int],
    config_type: type[Config],
    documents: list[Any],
    *,
    prog: str,
    example: str,
    defaults: Callable[[Sequence[str]], Config | None],
) -> int:
    try:
        _check_started_as_module(prog)
        code = command(parse(config_type, prog=prog, example=example, default=defaults(sys.argv[1:])))
        sys.stdout.flush()
        return code
    except HalftoneError as error:
        return _refused(str(error), documents)
    except ModuleNotFoundError as error:
        mistake = missing(error, prog=prog)
        if mistake is None:
            raise
        return _refused(str(mistake), documents)
    except KeyboardInterrupt:
        print("interrupted: no incomplete files were left behind", file=sys.stderr)
        documents[:] = [{"error": "interrupted"}]
        return INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`… | head`): it has received all the output that it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        return _refused(_explained(error), documents)


def _check_started_as_module(prog: str) -> None:
    """Refuse a file that is run by its path: Python then finds our folders instead of packages of the same name."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    package = Path(__file__).parents[2] / prog.removeprefix("python -m ").partition(".")[0]
    by_path = spec is None or spec.name == "__main__"
    if file is not None and by_path and Path(file).resolve().is_relative_to(package):
        raise HalftoneError(f"{file} is a module: run it as `{prog}`")


def _refused(message: str, documents: list[Any]) -> int:
    print(f"error: {line(message)}", file=sys.stderr)
    documents[:] = [{"error": message}]
    return WRONG_REQUEST


@contextlib.contextmanager
def _one_document(*, wanted: bool) -> Iterator[list[Any]]:
    """Yield the list of published documents; if wanted, print the last one and nothing else on standard output."""
    documents: list[Any] = []
    token = _document.set(documents)
    try:
        if not wanted:
            yield documents
            return
        with _output_to_errors():
            yield documents
        if documents:
            print(json.dumps(_finite(documents[-1]), indent=1, ensure_ascii=False))
            sys.stdout.flush()
    finally:
        _document.reset(token)


def _finite(value: Any) -> Any:
    """Return the value with null for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _output_to_errors() -> Iterator[None]:
    """Send standard output to the standard error stream, also that of libraries which know nothing of Python's."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def parse(
    config_type: type[Config],
    *,
    prog: str,
    example: str = "",
    args: Sequence[str] | None = None,
    default: Config | None = None,
) -> Config:
    """Parse a command line, by default that of this process, and check its paths.

    No path may be too long for a file system, and outputs must be in a place that can be written: this is known before
    the work.

    Args:
        config_type: as for `run`.
        prog: as for `run`.
        example: as for `run`.
        args: the flags.
        default: values of the flags that are not given.

    Raises:
        HalftoneError: from the flags' checks, or a path is too long or can't be written.
        SystemExit: the flags can't be parsed, and a message is on the standard error stream; or after `--help`.
    """
    # Imported here: the service uses only an exit code of this module, and tyro takes a tenth of a second to import.
    import tyro

    given: dict[str, Any] = {} if default is None else {"default": default}
    if example:
        about = (inspect.getdoc(config_type) or "").partition("\n\nRaises:")[0]
        given["description"] = f"{about}\n\nExample:\n    {prog} {example}"
    shown = _Shown(colours=sys.stdout.isatty() and sys.stderr.isatty(), encoding=sys.stdout.encoding)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
            config: Config = tyro.cli(config_type, prog=prog, args=args, **given)
    except SystemExit as end:
        if mistake := _mistake(end):
            raise mistake from None
        sys.stdout.write(shown.getvalue())
        sys.stderr.write(said.getvalue())
        raise
    for flag, value in _values(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise HalftoneError(f"{flag} must be a finite number, not {value}")
        if isinstance(value, Path):
            check_length(value, flag)
            if flag in OUTPUTS:
                check_writable(value, flag)
    return config


class _Shown(io.StringIO):
    """Captured standard output, by which tyro chooses colours and lines.

    Args:
        colours: True if both streams are terminals.
        encoding: that of the real standard output.
    """

    def __init__(self, *, colours: bool, encoding: str) -> None:
        super().__init__()
        self._colours, self._encoding = colours, encoding

    def isatty(self) -> bool:
        """Return True unless colours are unwanted (https://no-color.org)."""
        return self._colours and not os.environ.get("NO_COLOR")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Name of the encoding."""
        return self._encoding


def _mistake(error: BaseException | None) -> HalftoneError | None:
    """Return the error of a check that tyro has turned into the end of the process."""
    while error is not None and not isinstance(error, HalftoneError):
        error = error.__cause__ or error.__context__
    return error


def _values(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield each flag with its value; a flag of several values once for each."""
    for field in fields(config) if is_dataclass(config) else ():
        value, flag = getattr(config, field.name), f"--{field.name.strip('_').replace('_', '-')}"
        yield from ((flag, each) for each in (value if isinstance(value, tuple) else (value,)))
        yield from _values(value)


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

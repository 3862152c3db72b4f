"""Entry point of the commands that measure: tyro parses the flags, a mistake of the user becomes one line."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import math
import os
import signal
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import tyro

from loadtest.reporting.tables import finite

_IN_CHECKOUT = Path("export", "photos")
PHOTOS = _IN_CHECKOUT if _IN_CHECKOUT.is_dir() else Path(str(files("export"))) / "photos"
"""Folder of the sample photographs, which come with the package: found from any folder."""

WRONG_REQUEST, INTERRUPTED, TERMINATED = 2, 130, 143
OUTPUTS = ("--output", "--settings")
"""Flags that name what a command writes."""

_MAX_NAME, _MAX_PATH = 255, 4095

Config = TypeVar("Config")

_document: ContextVar[list[Any]] = ContextVar("_document")


class CompareError(Exception):
    """A request that can't be carried out; the message says what happened and what to do."""


class PeerError(CompareError):
    """A server that can't be installed, started or measured; in a comparison it becomes a row with this reason."""


@dataclass(frozen=True, kw_only=True)
class JsonOutput:
    """Base of the configurations of the commands."""

    json: bool = False
    """Print the result as one JSON document on the standard output; everything else goes to the standard error
    stream."""


def publish(document: Any) -> None:
    """Give `run` the result of the command, JSON-ready, for `--json`; nothing is printed without it."""
    if (documents := _document.get(None)) is not None:
        documents.append(document)


def check_least(config: Any, least: int, *names: str) -> None:
    """Raise CompareError if one of these fields of the configuration is below `least`."""
    for name in names:
        if not (value := getattr(config, name)) >= least:
            raise CompareError(f"{_flag(name)} must be {least} or more, not {value}")


def check_positive(config: Any, *names: str) -> None:
    """Raise CompareError if one of these fields of the configuration is not above 0."""
    for name in names:
        if not (value := getattr(config, name)) > 0:
            raise CompareError(f"{_flag(name)} must be positive, not {value}")


def check_picture(path: Path, flag: str) -> None:
    """Raise CompareError if there is no such file."""
    if not path.is_file():
        raise CompareError(f"{flag} {path}: {'it is a folder, not a picture' if path.is_dir() else 'no such file'}")


def check_writable(path: Path, flag: str) -> None:
    """Raise CompareError if the file can't be written, before the work whose result it is for."""
    parent = next(each for each in path.absolute().parents if os.path.exists(each))
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise CompareError(
            f"{flag} {path}: {parent} can't be written ({error.strerror}): choose another place, or change its rights"
        ) from None


def run(main: Callable[[Config], int], config_type: type[Config], *, prog: str, example: str = "") -> NoReturn:
    """Parse the command line and exit with the code that `main` returns.

    It is 2 for a wrong request, 130 after Ctrl-C and 143 after SIGTERM. In any case the servers that `main` started are
    stopped first. With `--json`, standard output gets one document: the one that the command has published, or
    `{"error": …}`.

    Args:
        main: the work.
        config_type: keyword-only dataclass whose field docstrings are the help texts; may raise CompareError.
        prog: the command as the user types it, for the usage line.
        example: flags of a typical use, for the help.
    """
    signal.signal(signal.SIGTERM, _terminated)
    documents: list[Any] = []
    token = _document.set(documents)
    wanted = "--json" in sys.argv[1:] and issubclass(config_type, JsonOutput)
    try:
        with _output_to_errors() if wanted else contextlib.nullcontext():
            code = _code(main, config_type, documents, prog=prog, example=example)
    finally:
        _document.reset(token)
        if wanted and documents:
            print(json.dumps(finite(documents[-1]), indent=1, ensure_ascii=False, default=str))
    sys.exit(code)


def _code(
    main: Callable[[Config], int], config_type: type[Config], documents: list[Any], *, prog: str, example: str
) -> int:
    try:
        _check_started_as_module(prog)
        config = _parse(config_type, prog=prog, example=example)
        _check_values(config)
        return main(config)
    except CompareError as error:
        return _refused(str(error), documents)
    except OSError as error:
        if error.errno is None or not isinstance(error.filename, str | bytes):
            raise
        name = os.fsdecode(error.filename)
        return _refused(f"{name[:200]}: {error.strerror}: choose another path, or change its rights", documents)
    except KeyboardInterrupt:
        print("interrupted: the servers were stopped, and no report was written", file=sys.stderr)
        documents[:] = [{"error": "interrupted"}]
        return INTERRUPTED


def _refused(message: str, documents: list[Any]) -> int:
    print(f"error: {line(message)}", file=sys.stderr)
    documents[:] = [{"error": message}]
    return WRONG_REQUEST


def _check_started_as_module(prog: str) -> None:
    """Refuse a file that is run by its path: Python then finds our folders instead of packages of the same name."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    by_path = spec is None or spec.name == "__main__"
    if file is not None and by_path and Path(file).resolve().is_relative_to(Path(__file__).parents[1]):
        raise CompareError(f"{file} is a module: run it as `{prog}`")


def _parse(config_type: type[Config], *, prog: str, example: str) -> Config:
    about = (inspect.getdoc(config_type) or "").partition("\n\nRaises:")[0]
    description = f"{about}\n\nExample:\n    {prog} {example}".rstrip()
    shown = _Shown(colours=sys.stdout.isatty() and sys.stderr.isatty(), encoding=sys.stdout.encoding)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
            return tyro.cli(config_type, prog=prog, description=description)
    except SystemExit:
        sys.stdout.write(shown.getvalue())
        sys.stderr.write(said.getvalue())
        raise


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


@contextlib.contextmanager
def _output_to_errors() -> Iterator[None]:
    """Send standard output to the standard error stream, also that of child processes."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that context managers stop the servers."""
    sys.exit(TERMINATED)


def line(text: object) -> str:
    """Return a message as one line: characters that end lines or control terminals are escaped."""
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") else each
        for each in str(text)
    )


def _check_values(config: Any) -> None:
    """Refuse numbers that are none, and paths that no file system takes or that can't be written."""
    for field in fields(config) if is_dataclass(config) else ():
        value, flag = getattr(config, field.name), _flag(field.name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, float) and not math.isfinite(each):
                raise CompareError(f"{flag} must be a finite number, not {each}")
            if isinstance(each, Path):
                _check_path(each, flag)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_path(path: Path, flag: str) -> None:
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > _MAX_NAME or len(os.fsencode(path)) > _MAX_PATH:
        raise CompareError(f"{flag}: {str(path)[:60]}… is too long for a file system: choose a shorter path")
    if flag in OUTPUTS:
        check_writable(path, flag)

"""Run `python -m MODULE …`: in the test's process by default, in one of its own where the process is the subject.

A new interpreter costs a third of a second, and three seconds once it imports PyTorch. `run` gives the same exit code
and output without one: `runpy` executes the module as `__main__`, and everything a command may change is put back.
Tests of signals, of kills, of several processes and of what a command imports need `run_process`.
"""

import contextlib
import logging
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tests.servers import ROOT

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def run(
    module: str, *arguments: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Execute a module as `python -m` would.

    Args:
        module: dotted name.
        arguments: what follows it on the command line.
        cwd: the working directory.
        env: the whole environment; None for that of the tests.
    """
    command = [module, *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _streams(out, err), _process_state(command, cwd, os.environ.copy() if env is None else env):
            code = _exit_code(module)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(command, code, out.read().decode(), err.read().decode())


def run_process(
    module: str, *arguments: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Execute `python -m MODULE ARGUMENTS` in a process of its own; the arguments are those of `run`."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    # From any folder the working tree is what runs.
    environment = {"PYTHONPATH": str(ROOT), **(os.environ if env is None else env)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def _exit_code(module: str) -> int:
    """Execute the module; print what Python prints when a program ends with an error."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _streams(out: IO[bytes], err: IO[bytes]) -> Iterator[None]:
    """Send standard output and error to files, also that of libraries that know nothing of Python's streams."""
    before = sys.stdout, sys.stderr
    for stream in before:
        stream.flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    try:
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
    finally:
        sys.stdout, sys.stderr = before
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def _process_state(command: list[str], cwd: Path, env: Mapping[str, str]) -> Iterator[None]:
    """Give a command the state of a new interpreter, and the tests their own afterwards."""
    folder, path, environment, generator = Path.cwd(), sys.path.copy(), dict(os.environ), random.getstate()
    argv, handlers = sys.argv, {number: signal.getsignal(number) for number in SIGNALS}
    with _default_warnings(), _bare_logging(), _torch_state():
        try:
            os.chdir(cwd)
            _set_environment(env)
            sys.argv = command
            yield
        finally:
            sys.argv, sys.path[:] = argv, path
            os.chdir(folder)
            _set_environment(environment)
            random.setstate(generator)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _set_environment(values: Mapping[str, str]) -> None:
    """Change what differs only: pytest's own variable is read by other threads."""
    for name in set(os.environ) - set(values):
        del os.environ[name]
    for name, value in values.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


@contextlib.contextmanager
def _default_warnings() -> Iterator[None]:
    """Warnings are printed as Python does it by default: pytest makes them errors, or keeps them for its summary."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)

    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
        # A test may have imported the module already.
        warnings.filterwarnings("ignore", ".* found in sys.modules after import of package", RuntimeWarning, "runpy")
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _bare_logging() -> Iterator[None]:
    """Logging as nobody set it up: with pytest's handlers in place it would print nothing."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _torch_state() -> Iterator[None]:
    """Keep the number of PyTorch's threads and the state of its generator, if it is loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(generator)

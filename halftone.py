"""`halftone COMMAND …`: every command of the installed distribution, from any folder.

    halftone serve --port 3000                                   the service, as `bentoml serve`
    halftone train --data photos --output artifacts/photos       `python -m training`, and so on: see COMMANDS

The command runs the module in this process. It imports nothing from the current folder, which may hold a package with
the name of one of ours, and it says which folder of bundles it means.
"""

from __future__ import annotations

import atexit
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

COMMANDS = {
    "train": "training",
    "evaluate": "training.evaluate",
    "data": "training.data",
    "preview": "training.preview",
    "export": "export",
    "onnx": "export.onnx",
    "openvino": "export.openvino",
    "trt": "export.trt",
    "parity": "export.parity",
    "benchmark": "export.benchmark",
    "explain": "export.explain",
    "report": "export.report",
    "push": "export.push",
    "pull": "export.pull",
    "models": "models",
    "batch": "serving.batch",
    "ask": "loadtest.ask",
}
"""Name to the module that it runs; `serve` is added to them."""

SERVICE = "serving.service:HalftoneService"
WRONG_REQUEST = 2

_HERE = Path(__file__).parent
_ARTIFACTS, _SETTINGS, _KEYS, _COLLECT = (
    f"HALFTONE_{name}" for name in ("ARTIFACTS", "SETTINGS", "API_KEYS", "COLLECT")
)
_HOME = "BENTOML_HOME"
_TEMPORARY = "_HALFTONE_TEMPORARY"
"""The service removes it: its supervisor is another program in the same process."""


def main() -> NoReturn:
    """Run the command that the first argument names; the process ends with its exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
        sys.exit(0)
    if name != "serve" and name not in COMMANDS:
        print(f"error: there is no command {name!r}: choose one of serve, {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(WRONG_REQUEST)
    _prepare()
    if name == "serve":
        _serve(arguments)
    print(f"artifacts: {os.environ[_ARTIFACTS]}", file=sys.stderr)
    _run(COMMANDS[name], arguments)


def _usage() -> str:
    commands = "\n".join(f"  {name:<11}python -m {module}" for name, module in COMMANDS.items())
    return (
        f"usage: halftone COMMAND [OPTION …]\n\n  {'serve':<11}bentoml serve\n{commands}\n\n"
        f"`halftone COMMAND --help` lists its options.\nartifacts: {_artifacts()} ({_ARTIFACTS} names another folder)"
    )


def _artifacts() -> Path:
    return Path(os.environ.get(_ARTIFACTS) or "artifacts").absolute()


def _prepare() -> None:
    """Set the environment of this process and of those that it starts."""
    # For `python -m` in a process that the command starts: it would import from the current folder first.
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ[_ARTIFACTS] = str(_artifacts())
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    _find_home()


def _find_home() -> None:
    """Give BentoML a folder that it can write to: it makes one when it is imported, and its error is a traceback."""
    os.environ.pop(_TEMPORARY, None)
    if named := os.environ.get(_HOME):
        if not _is_writable(Path(named)):
            print(f"error: can't write to {named}: set {_HOME} to a folder that can be written", file=sys.stderr)
            sys.exit(WRONG_REQUEST)
    elif not _is_writable(Path("~/bentoml")):
        os.environ[_HOME] = os.environ[_TEMPORARY] = tempfile.mkdtemp(prefix="halftone-bentoml-")
        atexit.register(_remove, os.environ[_HOME], os.getpid())


def _remove(folder: str, owner: int) -> None:
    """Remove a folder at the end of the process that made it, not of a worker that was forked from it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _is_writable(folder: Path) -> bool:
    """Return True if the folder is there or can be made, and holds what is written to it."""
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    # The user has no home, as in containers under a number that no account has.
    except (OSError, RuntimeError):
        return False


def _serve(arguments: list[str]) -> NoReturn:
    """Run `bentoml serve` with our service; it listens on this machine alone unless told otherwise."""
    os.environ.setdefault("BENTOML_HOST", "127.0.0.1")
    # BentoML puts the working directory before everything that can be imported, and its workers run there.
    for variable, sign in ((_SETTINGS, ""), (_COLLECT, ""), (_KEYS, "@")):
        value = os.environ.get(variable, "")
        if value and value.startswith(sign):
            os.environ[variable] = sign + str(Path(value.removeprefix(sign)).absolute())
    _run("bentoml", ["serve", SERVICE, "--working-dir", str(_HERE), *arguments])


def _run(module: str, arguments: list[str]) -> NoReturn:
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    main()

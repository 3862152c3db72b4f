"""Run `python -m MODULE …` in a process of its own, as a user does.

In the test's process a command would start a second sooner. But the runtimes, PyTorch and what they load stay in the
process then, and after some dozens of commands it crashed (SIGSEGV) on whatever came next.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.servers import ROOT


def run(
    module: str, *arguments: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Execute `python -m MODULE ARGUMENTS`.

    Args:
        module: dotted name.
        arguments: what follows it on the command line.
        cwd: the working directory.
        env: the whole environment; None for that of the tests.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    # From any folder the working tree is what runs.
    environment = {**(os.environ if env is None else env), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

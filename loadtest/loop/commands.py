"""Commands of Halftone as a user types them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType

from loadtest.reporting.cli import PeerError

_LAST_LINES = 5


def command(module: str, *arguments: object, environment: Mapping[str, str] = MappingProxyType({})) -> str:
    """Run `python -m MODULE ARGUMENTS` with these variables in addition; return its standard output.

    Raises:
        PeerError: it ends with another exit code than 0; the message has its last lines.
    """
    words = [sys.executable, "-m", module, *map(str, arguments)]
    result = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)
    if result.returncode:
        last = " | ".join(result.stderr.strip().splitlines()[-_LAST_LINES:])
        raise PeerError(f"`python -m {module} {' '.join(words[3:])}` ends with {result.returncode}: {last}")
    return result.stdout

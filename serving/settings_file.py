"""The file of settings that HALFTONE_SETTINGS names: lines of HALFTONE_NAME=VALUE, as `loadtest.tune` writes them.

The form is that of `docker run --env-file` and of systemd's EnvironmentFile, so that the same file serves there too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from models.errors import HalftoneError

VARIABLE = "HALFTONE_SETTINGS"
PREFIX = "HALFTONE_"
# These are read before the file, or name it.
_NOT_IN_FILE = {VARIABLE, "HALFTONE_ARTIFACTS"}
_MAX_BYTES = 64 * 1024


def read(path: Path) -> dict[str, str]:
    """The variables of a file; empty lines and lines that begin with `#` say nothing.

    Raises:
        HalftoneError: the file can't be read, or a line is not a setting; the message names the line.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        where = f"{VARIABLE}: line {number} of {path}"
        if not equals or not name.startswith(PREFIX):
            raise HalftoneError(f"{where} must be HALFTONE_NAME=VALUE, not {line.strip()[:60]!r}")
        if name in _NOT_IN_FILE:
            raise HalftoneError(f"{where}: {name} can't be set in the file: set it in the environment")
        if name in found:
            raise HalftoneError(f"{where} sets {name} a second time: keep one of the lines")
        found[name] = value
    return found


def merged(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment, with the settings of the file that it names where it has none itself (or an empty one).

    Raises:
        HalftoneError: see `read`.
    """
    path = environment.get(VARIABLE)
    from_file = read(Path(path)) if path else {}
    return from_file | {name: value for name, value in environment.items() if value or name not in from_file}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise HalftoneError(
            f"{VARIABLE}: {path.resolve()} can't be read ({error.strerror}): name one that is there, such as what "
            "`python -m loadtest.tune` wrote"
        ) from None
    if len(data) > _MAX_BYTES:
        raise HalftoneError(f"{VARIABLE}: {path} has more than {_MAX_BYTES} bytes: it is no file of settings")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HalftoneError(f"{VARIABLE}: {path} is not UTF-8 text: it is no file of settings") from None

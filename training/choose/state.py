"""State of an unfinished choice in the folder `.NAME.choose/` next to the bundle, so that a killed one continues."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.common.errors import HalftoneError
from models.common.files import LockedError, locked, write_atomic
from models.common.text import printable

STATE = "state.json"


class State:
    """What was found so far, JSON-ready, and the time that it took.

    Args:
        output: folder of the bundle that will be written.
        identity: settings on which what was found depends.

    Raises:
        HalftoneError: the folder holds a choice with other settings, or can't be read.
    """

    def __init__(self, output: Path, identity: dict[str, Any]) -> None:
        self.folder = output.parent / f".{output.name}.choose"
        self._file, self._started = self.folder / STATE, time.monotonic()
        identity = json.loads(json.dumps(identity))
        self._values: dict[str, Any] = {"identity": identity, "seconds": 0.0}
        if self._file.is_file():
            self._values = self._read()
            if self._values["identity"] != identity:
                raise HalftoneError(
                    f"{printable(self.folder)} holds an unfinished choice with other settings: repeat that command, or "
                    "remove the folder to start again"
                )
        self._before = float(self._values["seconds"])

    def _read(self) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads(self._file.read_text())
            return values | {"seconds": float(values["seconds"]), "identity": values["identity"]}
        except (OSError, ValueError, KeyError, TypeError):
            raise HalftoneError(f"{printable(self._file)} is damaged: remove it to start again") from None

    @property
    def seconds(self) -> float:
        """Time of this choice so far, without that between a kill and the next command."""
        return self._before + time.monotonic() - self._started

    def start_clock(self) -> None:
        """Count the time from now on, beside that of earlier processes."""
        self._started = time.monotonic()

    def get(self, name: str) -> Any:
        """Return what was found; None if it is not known yet."""
        return self._values.get(name)

    def set(self, name: str, value: Any) -> None:
        """Record what was found."""
        self._values |= {name: value, "seconds": self.seconds}
        write_atomic(self._file, f"{json.dumps(self._values)}\n".encode())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the choice.

        Raises:
            HalftoneError: another process holds it.
        """
        try:
            with locked(self.folder.with_name(f"{self.folder.name}.lock")):
                yield
        except LockedError:
            raise HalftoneError(
                f"another choice uses {printable(self.folder)}: wait until it ends, or choose another --output"
            ) from None

    def finish(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

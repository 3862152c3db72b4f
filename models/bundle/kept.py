"""A file in a bundle's folder that saves work and is no content of the bundle: the compiled form of a graph.

The manifest doesn't name it. It counts only under the conditions that it was written with, and if its hash is right;
whatever is wrong with it, the work is done again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.common.errors import HalftoneError
from models.common.files import open_plain, sha256, write_atomic
from models.common.strict_json import json_object

_HEADER = 4096
"""Bytes of the header."""

MOST_BYTES = 2**27

Blob = npt.NDArray[np.uint8]


class KeptFile:
    """Bytes that count under some conditions.

    Args:
        path: the file.
        conditions: everything that the bytes depend on, ready for JSON.
    """

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        self._path = path
        self._key = sha256(json.dumps(conditions, sort_keys=True).encode())

    def read(self) -> Blob | None:
        """Return the bytes, uint8 (N,); None if there are none that count now."""
        try:
            with open_plain(self._path) as file:
                header = json_object(file.read(_HEADER))
                size = header["bytes"]
                if header["key"] != self._key or not isinstance(size, int) or not 0 < size <= MOST_BYTES:
                    return None
                blob = np.empty(size, np.uint8)
                complete = file.readinto(blob.data) == size and not file.read(1)
        except (OSError, KeyError, HalftoneError):
            return None
        return blob if complete and header["sha256"] == sha256(blob.data) else None

    def write(self, blob: Blob) -> None:
        """Replace the file.

        Raises:
            OSError: the folder can't be written.
        """
        header = {"key": self._key, "sha256": sha256(blob.data), "bytes": len(blob)}
        write_atomic(self._path, json.dumps(header).encode().ljust(_HEADER) + blob.tobytes())

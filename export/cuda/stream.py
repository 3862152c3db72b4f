"""A CUDA stream: work that is put on it is done in its order."""

from __future__ import annotations

import weakref
from typing import Any

from export.cuda.device import checked


class Stream:
    """A stream that lasts as long as anything holds this object; `int` gives its handle.

    Args:
        api: the CUDA runtime API.

    Raises:
        RuntimeError: there is no room for it.
    """

    def __init__(self, api: Any) -> None:
        # One that the legacy default stream does not wait for: while it is recorded, work there would be an error.
        self.handle = checked(api.cudaStreamCreateWithFlags(api.cudaStreamNonBlocking))
        weakref.finalize(self, api.cudaStreamDestroy, self.handle).atexit = False

    def __int__(self) -> int:
        return int(self.handle)

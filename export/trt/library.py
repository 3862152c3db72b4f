"""Import either edition of TensorRT and keep its last errors; both editions have the same API.

`tensorrt` builds and runs on NVIDIA's data-centre GPUs; `tensorrt_rtx` runs on RTX GPUs and builds on any machine.
"""

from __future__ import annotations

import functools
import importlib
from collections import deque
from dataclasses import dataclass
from typing import Any

from models.common.errors import HalftoneError

PACKAGES = {"tensorrt": "tensorrt>=11", "tensorrt_rtx": "tensorrt-rtx-cu13"}
"""Runtime, which is also the name of the module, to the argument of `pip install`."""

FIRST_STRONGLY_TYPED = 11
"""First major version of TensorRT whose precision depends on the graph alone."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """An imported edition of TensorRT."""

    name: str
    """`tensorrt` or `tensorrt_rtx`."""

    api: Any
    """The module; both editions define the same names."""

    logger: Any
    """An `ILogger` that keeps the last errors; one per process, as the library ignores any further logger."""

    @property
    def version(self) -> str:
        """Version reported by the library, such as `1.7.1.116`; a plan loads in this version only."""
        return str(self.api.__version__)

    def last_errors(self) -> str:
        """Return the errors since the last call in one line."""
        messages = "; ".join(" ".join(message.split()) for message in self.logger.errors)
        self.logger.errors.clear()
        return messages or "it gave no reason"


@functools.cache
def library(name: str) -> Library:
    """Import an edition of TensorRT.

    Args:
        name: `tensorrt` or `tensorrt_rtx`.

    Raises:
        HalftoneError: the library is not installed, can't be loaded, or is too old.
    """
    install = f"`pip install '{PACKAGES[name]}'`"
    try:
        api = importlib.import_module(name)
    except ModuleNotFoundError:
        raise HalftoneError(f"the runtime {name} needs its library, which is not installed: {install}") from None
    except (ImportError, OSError) as error:
        raise HalftoneError(f"the library {name} can't be loaded ({error}): install it again with {install}") from None
    if name == "tensorrt" and int(str(api.__version__).partition(".")[0]) < FIRST_STRONGLY_TYPED:
        raise HalftoneError(
            f"TensorRT {api.__version__} is too old, it must be {FIRST_STRONGLY_TYPED} or newer: {install}"
        )
    return Library(name=name, api=api, logger=_logger(api))


def installed(name: str) -> bool:
    """Return True if `library(name)` would succeed."""
    try:
        library(name)
    except HalftoneError:
        return False
    return True


def known_capabilities(library: Library) -> list[str]:
    """Return the compute capabilities that TensorRT-RTX can build for, lowest first."""
    numbers = sorted(
        int(name.removeprefix("SM"))
        for name in library.api.ComputeCapability.__members__
        if name.removeprefix("SM").isdigit()
    )
    return [f"{number // 10}.{number % 10}" for number in numbers]


def _logger(api: Any) -> Any:
    class Errors(api.ILogger):  # type: ignore[misc]
        """Logger that keeps errors for our own messages and drops everything else."""

        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            """Keep an error; the library calls this from any thread."""
            if severity <= api.ILogger.ERROR:
                self.errors.append(message)

    return Errors()

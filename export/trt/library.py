"""TensorRT in its two editions, one API: which of them is here, its version, and what it complained about.

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

"""Runtime, which is also the module, to what `pip install` needs."""

FIRST_STRONGLY_TYPED = 11

"""The first TensorRT in which the graph alone decides on the precision."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """An imported edition of TensorRT."""

    name: str
    """`tensorrt` or `tensorrt_rtx`."""

    api: Any
    """The module; both editions have the same names in it."""

    logger: Any
    """An `ILogger` that keeps the last errors; a process has one, as the library ignores every other."""

    @property
    def version(self) -> str:
        """As the library gives it, such as `1.7.1.116`; plans hold for this version alone."""
        return str(self.api.__version__)

    def complaints(self) -> str:
        """The errors since the last call in one line."""
        messages = "; ".join(" ".join(message.split()) for message in self.logger.errors)
        self.logger.errors.clear()
        return messages or "it gave no reason"


@functools.cache
def library(name: str) -> Library:
    """Import an edition of TensorRT.

    Args:
        name: `tensorrt` or `tensorrt_rtx`.

    Raises:
        HalftoneError: it is not installed, can't be loaded, or is too old.
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
    """Whether `library(name)` would succeed."""
    try:
        library(name)
    except HalftoneError:
        return False
    return True


def _logger(api: Any) -> Any:
    class Errors(api.ILogger):  # type: ignore[misc]
        """Keeps errors for our own messages and drops the rest."""

        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            """Called by the library, from any thread."""
            if severity <= api.ILogger.ERROR:
                self.errors.append(message)

    return Errors()


def known_capabilities(library: Library) -> list[str]:
    """The compute capabilities that TensorRT-RTX can build for, lowest first."""
    numbers = sorted(
        int(name.removeprefix("SM"))
        for name in library.api.ComputeCapability.__members__
        if name.removeprefix("SM").isdigit()
    )
    return [f"{number // 10}.{number % 10}" for number in numbers]

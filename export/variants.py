"""Runtimes by name, and variants: `RUNTIME-PRECISION`, such as `openvino-bf16`."""

from __future__ import annotations

import importlib
import pkgutil

import export.runtimes
from export.runtime import Runtime
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError

REFERENCE = "torch-fp32"


def runtime_names() -> list[str]:
    """The names of all runtimes, from the files of this folder; none of them is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(export.runtimes.__path__))


def runtime_of(variant: str) -> tuple[type[Runtime], str]:
    """The runtime's class and the precision that a variant names.

    Raises:
        HalftoneError: no such runtime or precision, or the runtime's library is not installed.
    """
    name, _, precision = variant.rpartition("-")
    if name not in runtime_names():
        raise HalftoneError(
            f"{variant!r} is not a variant: write RUNTIME-PRECISION with a runtime of {', '.join(runtime_names())}"
        )
    runtime = runtime_class(name)
    runtime.check_precision(precision)
    return runtime, precision


def runtime_class(name: str) -> type[Runtime]:
    """The class of a runtime of `runtime_names()`; its library is imported now or when it is needed.

    Raises:
        HalftoneError: the runtime's library is not installed.
    """
    try:
        runtime: type[Runtime] = importlib.import_module(f"export.runtimes.{name}").RUNTIME
    except ModuleNotFoundError as error:
        raise HalftoneError(
            f"the runtime {name} needs the package {error.name}, which is not installed: "
            f"`pip install {error.name}`, or choose a variant of another runtime"
        ) from None
    return runtime


def load(bundle: Bundle, variant: str, *, threads: int, streams: int = 1) -> Runtime:
    """Open a variant of the bundle; its files' hashes are checked first.

    Args:
        bundle: the opened bundle.
        variant: `RUNTIME-PRECISION`.
        threads: processor threads in all.
        streams: `run` calls expected at once.

    Raises:
        HalftoneError: as `runtime_of` and `Runtime`.
    """
    runtime, precision = runtime_of(variant)
    return runtime.load(bundle, precision=precision, threads=threads, streams=streams)

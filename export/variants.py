"""Registry of runtimes and loader of variants, which are named `RUNTIME-PRECISION`, such as `openvino-bf16`."""

from __future__ import annotations

import importlib
import pkgutil

import export.runtimes
from export.runtime import Runtime
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.extras import install

REFERENCE = "torch-fp32"


def runtime_names() -> list[str]:
    """List the names of all runtimes, from the files of `export/runtimes/`, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(export.runtimes.__path__))


def runtime_of(variant: str) -> tuple[type[Runtime], str]:
    """Return the runtime class and the precision of a variant.

    Raises:
        HalftoneError: the runtime or the precision does not exist, or the runtime's library is not installed.
    """
    name, _, precision = variant.rpartition("-")
    if name not in runtime_names():
        raise HalftoneError(
            f"{variant!r} is not a variant: use RUNTIME-PRECISION with one of the runtimes {', '.join(runtime_names())}"
        )
    runtime = runtime_class(name)
    runtime.check_precision(precision)
    return runtime, precision


def runtime_class(name: str) -> type[Runtime]:
    """Import the class of a runtime of `runtime_names()`; some runtimes import their library later.

    Raises:
        HalftoneError: the runtime's library is not installed.
    """
    try:
        runtime: type[Runtime] = importlib.import_module(f"export.runtimes.{name}").RUNTIME
    except ModuleNotFoundError as error:
        raise HalftoneError(
            f"the runtime {name} needs the package {error.name}, which is not installed: "
            f"{install(error)}, or choose a variant of another runtime"
        ) from None
    return runtime


def load(bundle: Bundle, variant: str, *, threads: int, streams: int = 1) -> Runtime:
    """Load a variant of the bundle, after checking the hashes of its files.

    Args:
        bundle: the opened bundle.
        variant: `RUNTIME-PRECISION`.
        threads: total number of processor threads.
        streams: expected number of concurrent `run` calls.

    Raises:
        HalftoneError: as `runtime_of` and `Runtime`.
    """
    runtime, precision = runtime_of(variant)
    return runtime.load(bundle, precision=precision, threads=threads, streams=streams)

"""The first visible GPU and checked CUDA calls, through CUDA's Python bindings."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from models.common.errors import HalftoneError

BINDINGS = "cuda-bindings>=13"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A CUDA device."""

    name: str
    """As the driver gives it, such as `NVIDIA GeForce RTX 4090`."""

    compute_capability: str
    """`MAJOR.MINOR`, such as `8.9`."""


class GpuError(RuntimeError):
    """A GPU operation failed; the message is CUDA's or the library's."""


class GpuLostError(GpuError):
    """The GPU no longer works in this process; it may still work in another process."""


# Values of `cudaError_t` after which, according to the CUDA Runtime API, "to continue using CUDA, the process must be
# terminated and relaunched", such as an illegal address or instruction. Also an uncorrectable error of the GPU's memory
# (214), as its content is then unreliable.
_LOST = frozenset({214, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911})


def cudart() -> Any:
    """Import the CUDA runtime API.

    Raises:
        HalftoneError: the bindings are not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise HalftoneError(f"CUDA's Python bindings can't be imported ({error}): `pip install '{BINDINGS}'`") from None


def checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call's result (status, value).

    Raises:
        GpuError: the call failed; GpuLostError if every later call in this process will fail too.
    """
    status, *values = result
    if int(status):
        raise (GpuLostError if int(status) in _LOST else GpuError)(f"CUDA: {status.name}")
    return values[0] if values else None


def gpu() -> Gpu:
    """Return the first visible GPU.

    Raises:
        HalftoneError: there is no GPU, or its driver or the bindings are missing.
    """
    api = cudart()
    try:
        if not checked(api.cudaGetDeviceCount()):
            raise RuntimeError("no device is visible")
        properties = checked(api.cudaGetDeviceProperties(0))
    except RuntimeError as error:
        raise HalftoneError(
            f"this machine has no CUDA GPU that is usable ({error}): use a machine with an NVIDIA GPU and a current "
            "driver, or choose a variant of onnxruntime or openvino"
        ) from None
    return Gpu(name=_text(properties.name), compute_capability=f"{properties.major}.{properties.minor}")


def has_gpu() -> bool:
    """Return True if `gpu()` would succeed."""
    try:
        gpu()
    except HalftoneError:
        return False
    return True


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name

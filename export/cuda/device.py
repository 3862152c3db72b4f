"""The GPU that plans run on, through CUDA's own Python bindings."""

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
    """The GPU failed at what it was asked for; the message is CUDA's or the library's."""


class GpuLostError(GpuError):
    """The GPU failed so that nothing works any more in this process, while another one may go on."""


# Of `cudaError_t`: those of which the CUDA Runtime API says that "to continue using CUDA, the process must be
# terminated and relaunched", such as an illegal address or instruction; and an error of the GPU's memory that could not
# be corrected (214), as what lies there can't be trusted any more.
_LOST = frozenset({214, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911})


def cudart() -> Any:
    """The CUDA runtime API.

    Raises:
        HalftoneError: the bindings are not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise HalftoneError(f"CUDA's Python bindings can't be imported ({error}): `pip install '{BINDINGS}'`") from None


def checked(answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, which returns (status, value).

    Raises:
        GpuError: the call failed; GpuLostError where no other one will work in this process.
    """
    status, *values = answer
    if int(status):
        raise (GpuLostError if int(status) in _LOST else GpuError)(f"CUDA: {status.name}")
    return values[0] if values else None


def gpu() -> Gpu:
    """The first visible GPU.

    Raises:
        HalftoneError: there is none, or its driver or the bindings are missing.
    """
    api = cudart()
    try:
        if not checked(api.cudaGetDeviceCount()):
            raise RuntimeError("no device is visible")
        properties = checked(api.cudaGetDeviceProperties(0))
    except RuntimeError as error:
        raise HalftoneError(
            f"this machine has no CUDA GPU that can be used ({error}): run on a machine with an NVIDIA GPU and a "
            "current driver, or choose a variant of onnxruntime or openvino"
        ) from None
    return Gpu(name=_text(properties.name), compute_capability=f"{properties.major}.{properties.minor}")


def has_gpu() -> bool:
    """Whether `gpu()` would succeed."""
    try:
        gpu()
    except HalftoneError:
        return False
    return True


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name

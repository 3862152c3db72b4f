"""Upper limits of the machine: arithmetic, copies and decoding, measured in the same run as the models."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from export.parity.images import PHOTOS
from models.common.host import cores
from models.preprocess.transform import load
from models.spec import InputSpec

_REPEATS = 20
_DECODED_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Highest rates that an engine on this machine can reach."""

    tflops: float
    """10^12 floating-point operations/s in a large matrix product; a multiply and an add are two."""

    copy: float
    """10^9 bytes/s, read plus written, of a copy within the device's memory."""

    upload: float
    """10^9 bytes/s of a copy from page-locked memory of the host to the device."""

    decoded_on_cpu: float
    """Photographs/s from file to pixels of the model's size, on all CPU cores."""

    decoded_on_gpu: float | None
    """Photographs/s by nvJPEG and a resize on the GPU; None if torchvision can't."""


def measured(spec: InputSpec, *, device: str, dtype: torch.dtype, size: int = 8192) -> Ceilings:
    """Measure all limits; takes a few seconds on a GPU.

    Args:
        spec: model input to decode photographs for.
        device: `cuda`, or `cpu` for a trial without a GPU.
        dtype: element type of the matrices.
        size: side of the matrices.
    """
    # Random: ones or zeros switch fewer transistors, which lets the clock rise higher than for a model.
    matrix = torch.randn(size, size, dtype=dtype, device=device)
    product = torch.empty_like(matrix)
    host = torch.ones(matrix.nbytes, dtype=torch.uint8, pin_memory=device == "cuda")
    target = torch.empty(matrix.nbytes, dtype=torch.uint8, device=device)
    return Ceilings(
        tflops=2 * size**3 / _seconds(partial(torch.matmul, matrix, matrix, out=product), device) / 1e12,
        copy=2 * matrix.nbytes / _seconds(partial(product.copy_, matrix), device) / 1e9,
        upload=host.nbytes / _seconds(partial(target.copy_, host, non_blocking=True), device) / 1e9,
        decoded_on_cpu=_decoded_on_cpu(spec),
        decoded_on_gpu=_decoded_on_gpu(spec) if device == "cuda" else None,
    )


def _seconds(call: Callable[[], object], device: str) -> float:
    """Return the seconds per call of many calls in flight."""
    for _ in range(2):
        call()
    _wait(device)
    start = time.perf_counter()
    for _ in range(_REPEATS):
        call()
    _wait(device)
    return (time.perf_counter() - start) / _REPEATS


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _photographs() -> list[bytes]:
    files = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    return [files[index % len(files)] for index in range(_DECODED_AT_ONCE)]


def _decoded_on_cpu(spec: InputSpec) -> float:
    photographs = _photographs()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(partial(load, spec=spec), photographs))
        start = time.perf_counter()
        list(pool.map(partial(load, spec=spec), photographs))
    return len(photographs) / (time.perf_counter() - start)


def _decoded_on_gpu(spec: InputSpec) -> float | None:
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2.functional import center_crop, resize

    files = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in _photographs()]

    def decode() -> Any:
        planes = decode_jpeg(files, mode=ImageReadMode.RGB, device="cuda")
        return [center_crop(resize(each, [spec.resize_to], antialias=True), [spec.size]) for each in planes]

    try:
        decode()
    except RuntimeError:
        return None
    return _DECODED_AT_ONCE / _seconds(decode, "cuda")

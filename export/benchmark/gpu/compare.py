"""Comparison of engines on a GPU, next to the limits of the GPU."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from export.benchmark.gpu.ceilings import Ceilings
from export.benchmark.gpu.engines import COMPILED, Engine, Entry, PyTorch, entries
from export.benchmark.gpu.timing import Timing, timed
from export.parity.gate import Gate
from export.parity.images import Integers, sample_crops
from export.parity.metrics import compare
from export.runtime import Logits, Pixels
from models.bundle.bundle import Bundle
from models.catalog import network_of

BATCHES = (1, 8, 64, 256)
PROOF_BATCH = 64
LATE = "not measured: the time limit of --minutes was reached"
LOST = "not measured: {engine} of {model} left the GPU unusable for this process; name this model alone"


def compare_engines(
    bundles: Sequence[Bundle],
    ceilings: Ceilings,
    *,
    device: str,
    dtype: torch.dtype,
    precision: str,
    batches: Sequence[int] = BATCHES,
    seconds: float = 0.5,
    compiled: bool = True,
    deadline: float = float("inf"),
    advance: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Prove and time every engine of every bundle; engines that compile for minutes come last.

    Args:
        bundles: the opened bundles.
        ceilings: limits of the machine.
        device: `cuda`, or `cpu` for a trial without a GPU.
        dtype: element type of PyTorch's networks.
        precision: second half of the variants' names; the gate is that of this precision.
        batches: batch sizes.
        seconds: duration of a measurement: one engine and batch size.
        compiled: True to include `torch.compile`.
        deadline: on the monotonic clock; measurements that would start later are skipped, with a `reason`.
        advance: called with a description of the next measurement.

    Returns:
        JSON-ready rows, one per engine: `model`, `trained`, `engine`, and `agreement` (of all images),
        `decided_agreement` (None if none is decided), `verdict`, `reasons`, `megabytes` and `batches`. An engine or a
        batch that can't run has a `reason` instead.
    """
    pairs = [
        (bundle, entry)
        for bundle in bundles
        for entry in entries(bundle, device=device, dtype=dtype, precision=precision)
    ]
    references: dict[str, tuple[Pixels, Integers, Logits]] = {}
    rows = []
    lost = ""
    _tidy(device)
    for bundle, entry in _in_order(pairs, compiled=compiled):
        name = bundle.name
        row: dict[str, Any] = {"model": name, "trained": bundle.manifest.trained, "engine": entry.name}
        advance(f"{name}: {entry.name}")
        if lost or time.monotonic() > deadline:
            rows.append(row | {"reason": lost or LATE})
            continue
        # An engine that lacks memory or a kernel must not cost the others their figures. The exceptions of ONNX Runtime
        # derive from Exception only.
        try:
            if name not in references:
                references[name] = _reference(bundle, device)
                _tidy(device)
            rows.append(row | _measured(bundle, entry, references[name], ceilings, device, batches, seconds, deadline))
        except Exception as error:
            rows.append(row | {"reason": _one_line(error)})
        if not _tidy(device):
            lost = LOST.format(engine=entry.name, model=name)
    return rows


def _in_order(pairs: Sequence[tuple[Bundle, Entry]], *, compiled: bool) -> list[tuple[Bundle, Entry]]:
    """Return the pairs with `torch.compile` last, or without it."""
    chosen = [pair for pair in pairs if compiled or pair[1].name != COMPILED]
    return sorted(chosen, key=lambda pair: pair[1].name == COMPILED)


def _reference(bundle: Bundle, device: str) -> tuple[Pixels, Integers, Logits]:
    """Return crops of the sample photographs, their photographs, and FP32's logits on the same device."""
    crops = list(sample_crops(bundle.manifest.input))
    pixels, photographs = np.stack([crop for crop, _ in crops]), np.array([number for _, number in crops])
    # TF32 rounds products to a mantissa of ten bits: that would be no reference.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return pixels, photographs, _logits(PyTorch(bundle, device=device, dtype=torch.float32), pixels)


def _logits(engine: Engine, pixels: Pixels) -> Logits:
    parts = [engine.run(pixels[start : start + PROOF_BATCH]) for start in range(0, len(pixels), PROOF_BATCH)]
    return np.concatenate(parts)


def _measured(
    bundle: Bundle,
    entry: Entry,
    reference: tuple[Pixels, Integers, Logits],
    ceilings: Ceilings,
    device: str,
    batches: Sequence[int],
    seconds: float,
    deadline: float,
) -> dict[str, Any]:
    before = _free(device)
    engine = entry.load()
    pixels, photographs, expected = reference
    figures = compare(
        expected, _logits(engine, pixels), None, pictures=photographs, temperature=bundle.manifest.temperature
    )
    reasons = Gate.for_precision(entry.precision).reasons_to_fail(figures, trained=bundle.manifest.trained)
    random = np.random.default_rng(0)
    rows = []
    for batch in batches:
        given = random.integers(0, 256, (batch, *pixels.shape[1:]), dtype=np.uint8)
        if time.monotonic() > deadline:
            rows.append({"batch": batch, "reason": LATE})
            continue
        try:
            rows.append(_figures(bundle, timed(partial(engine.run, given), batch, seconds), ceilings))
        # A batch that lacks memory says nothing about the other sizes.
        except Exception as error:
            rows.append({"batch": batch, "reason": _one_line(error)})
    return {
        "agreement": figures["top1_agreement"]["value"],
        "decided_agreement": figures["decided_agreement"]["value"] if figures["decided_images"] else None,
        "verdict": "FAILED" if reasons else "PASSED",
        "reasons": reasons,
        "megabytes": (before - _free(device)) / 1e6,
        "batches": rows,
    }


def _figures(bundle: Bundle, timing: Timing, ceilings: Ceilings) -> dict[str, Any]:
    """Return the rate, the latencies and the shares of the limits for one batch size.

    A multiply and an add are two operations, as many as the input has pixels next to the published size. Only the
    bytes of the pixels count as upload.
    """
    manifest = bundle.manifest
    network = network_of(manifest)
    macs = network.macs * (manifest.input.size / network.input.size) ** 2
    tflops = 2 * macs * timing.images_per_second / 1e12
    upload = manifest.input.size**2 * 3 * timing.images_per_second / 1e9
    return {
        "batch": timing.batch,
        "calls": len(timing.seconds),
        "images_per_second": timing.images_per_second,
        "p50_ms": timing.p50,
        "p99_ms": timing.p99,
        "tflops": tflops,
        "share_of_product": tflops / ceilings.tflops,
        "upload": upload,
        "share_of_upload": upload / ceilings.upload,
    }


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _free(device: str) -> float:
    """Return the free bytes of the GPU's memory; 0 on the CPU."""
    return float(torch.cuda.mem_get_info()[0]) if device == "cuda" else 0.0


def _tidy(device: str) -> bool:
    """Free unused memory; return False if the GPU is no longer usable in this process (CUDA's sticky errors)."""
    gc.collect()
    if device == "cuda":
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError:
            return False
    return True

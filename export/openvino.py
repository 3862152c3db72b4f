"""Prove a bundle for OpenVINO on the CPU: `python -m export.openvino --model NAME [--precision fp32|bf16|int8]`.

OpenVINO loads the ONNX graphs directly: `model.fp32.onnx` for FP32 and bfloat16 (to which it converts while
compiling), `model.int8.onnx` for INT8. The command exports the graph if it is missing or stale, then proves it with
OpenVINO. Takes 30 s for EfficientNet-Lite0 on two cores, two minutes for INT8. Exit code 1 if the parity gate fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.parity.prove import prove_and_print
from export.variants import runtime_of
from models.common.cli import run
from models.common.errors import HalftoneError
from models.resolve import open_or_create


@dataclass(frozen=True, kw_only=True)
class OpenVinoConfig:
    """Export the graph that OpenVINO loads, and prove it."""

    model: str
    """Bundle under artifacts/, or architecture of the catalogue (`python -m models`), or `timm:NAME`."""

    precision: Literal["fp32", "bf16", "int8"] = "bf16"
    """Number format of the arithmetic."""

    weights: str | None = None
    """For a model without a bundle: `pretrained` (default), `random`, or a .safetensors, .pth or .ckpt file."""

    data: Path | None = None
    """Folder of labelled pictures to prove on, one folder per class; default: the sample photographs."""

    calibrate_on: Path | None = None
    """INT8: folder of training pictures; default: those of --data, or other crops of the sample photographs."""


def _main(config: OpenVinoConfig) -> int:
    variant = f"openvino-{config.precision}"
    runtime, precision = runtime_of(variant)
    # Checked first, before a graph is exported in vain.
    if not runtime.supported(precision):
        raise HalftoneError(
            f"this processor does not support {precision} arithmetic in OpenVINO: use --precision fp32, or run this "
            "command on the machine that serves"
        )
    bundle = open_or_create(config.model, weights=config.weights, data=config.data)
    # Imported here: they need packages that help and requests that are refused do without.
    from export.onnx.export import ensure_fp32
    from export.onnx.int8 import TARGET, export_int8_and_print

    ensure_fp32(bundle)
    if precision == "int8" and not bundle.has(TARGET):
        return export_int8_and_print(bundle, data=config.data, calibrate_on=config.calibrate_on)
    return prove_and_print(bundle, [variant], data=config.data)


if __name__ == "__main__":
    run(
        _main,
        OpenVinoConfig,
        prog="python -m export.openvino",
        example="--model photos --precision bf16 --data photos",
    )

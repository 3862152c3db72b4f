"""`python -m export.onnx --model NAME [--precision fp32|fp16|int8]`: a bundle's weights to an ONNX graph and its proof.

Writes `model.PRECISION.onnx` into the bundle and proves the ONNX Runtime variant as `export.parity` does. FP16 is made
by halving the torch module before tracing (normalisation stays FP32), because TensorRT 11 takes the precision from the
graph; if it fails its gate, the nodes that need FP32 are found and keep it (`export.onnx.fp16.repair`). INT8 is
calibrated on training images (`export.onnx.int8`). About 10 s for EfficientNet-Lite0 on two cores, two minutes for
INT8. Exit code 1 if the gate fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.common.cli import DONE, run
from models.common.text import printable
from models.resolve import open_or_create


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export a model to ONNX and prove the result."""

    model: str
    """Bundle under artifacts/, or architecture of the catalogue (`python -m models`), or `timm:NAME`."""

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Number format of the network's weights and arithmetic."""

    weights: str | None = None
    """For a model without a bundle: `pretrained` (default), `random`, or a .safetensors, .pth or .ckpt file."""

    data: Path | None = None
    """Folder of labelled pictures to prove on, one folder per class; default: the sample photographs."""

    parity: bool = True
    """Prove the exported graph right away; INT8 is always proved."""

    repair: bool = True
    """FP16: if plain FP16 fails, find the nodes that need FP32, keep them in FP32 and prove again."""

    calibrate_on: Path | None = None
    """INT8: folder of training pictures; default: those of --data, or other crops of the sample photographs."""


def _main(config: ExportConfig) -> int:
    bundle = open_or_create(config.model, weights=config.weights, data=config.data)
    # Imported here: they need packages that help and requests that are refused do without. Also, with this file run by
    # its path, the module `export` is the neighbour of that name until `run` has refused it.
    from export.onnx.export import ensure_fp32, export_onnx
    from export.onnx.fp16.repair import repair_and_print
    from export.onnx.int8 import export_int8_and_print
    from export.parity.prove import prove_and_print

    if config.precision == "int8":
        ensure_fp32(bundle)
        return export_int8_and_print(bundle, data=config.data, calibrate_on=config.calibrate_on)
    name = export_onnx(bundle, config.precision)
    print(f"wrote {printable(bundle.folder / name)} ({bundle.manifest.files[name].size / 1e6:.1f} MB)")
    if not config.parity:
        return DONE
    code = prove_and_print(bundle, [f"onnxruntime-{config.precision}"], data=config.data)
    if config.precision != "fp16" or not config.repair:
        return code
    ensure_fp32(bundle)
    return repair_and_print(bundle, data=config.data)


if __name__ == "__main__":
    run(_main, ExportConfig, prog="python -m export.onnx", example="--model photos --precision fp16 --data photos")

"""NEEDS A DOCSTRING."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.onnx.export import ensure_fp32, export_onnx
from export.onnx.fp16.repair import repair_and_print
from export.onnx.int8 import export_int8_and_print
from export.parity.prove import prove_and_print
from models.common.cli import DONE, run
from models.resolve import open_or_create


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export a model to ONNX and prove the result."""

    model: str
    """Bundle under artifacts/, or architecture of the catalogue (`python -m models`)."""

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Number format of the network's weights and arithmetic."""

    weights: str | None = None
    """For a model without a bundle: `pretrained` (default), `random`, or a .safetensors file."""

    data: Path | None = None
    """Folder of labelled pictures to prove on, one folder per class; default: the sample photographs."""

    parity: bool = True
    """Prove the exported graph right away; INT8 is always proved."""

    repair: bool = True
    """FP16: where plain FP16 fails, find what needs FP32, keep that and prove again."""

    calibrate_on: Path | None = None
    """INT8: folder of training pictures; default: `train` in --data, or other crops of the sample photographs."""


def _main(config: ExportConfig) -> int:
    bundle = open_or_create(config.model, weights=config.weights)
    if config.precision == "int8":
        ensure_fp32(bundle)
        return export_int8_and_print(bundle, data=config.data, calibrate_on=config.calibrate_on)
    name = export_onnx(bundle, config.precision)
    print(f"wrote {bundle.folder / name} ({bundle.manifest.files[name].size / 1e6:.1f} MB)")
    if not config.parity:
        return DONE
    code = prove_and_print(bundle, [f"onnxruntime-{config.precision}"], data=config.data)
    if config.precision != "fp16" or not config.repair:
        return code
    ensure_fp32(bundle)
    return repair_and_print(bundle, data=config.data)


if __name__ == "__main__":
    run(_main, ExportConfig, prog="python -m export.onnx")

"""`python -m export.onnx --model NAME [--precision fp32|fp16|int8]`: a bundle's weights to an ONNX graph and its proof.

Writes `model.PRECISION.onnx` into the bundle and runs `export.parity` on the ONNX Runtime variant. FP16 is made by
halving the torch module before tracing (normalisation stays FP32), because TensorRT 11 takes the precision from the
graph; where that fails its gate, what needs FP32 is found and kept (`export.repair`). INT8 is calibrated on training
pictures (`export.int8`). For EfficientNet-Lite0 on two cores about 10 s, for INT8 two minutes. Exit code 1 where the
gate says no.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import onnx

from export.graph_size import check_graph_size
from export.graphs import describe, precision_histogram
from export.int8 import export_int8_and_print
from export.parity import prove_and_print
from export.repair import repair_and_print
from models.bundle import WEIGHTS, Bundle
from models.cli import DONE, run
from models.errors import HalftoneError
from models.opening import open_or_create

Precision = Literal["fp32", "fp16"]
MIN_FP16_SHARE = 0.99


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


def export_onnx(bundle: Bundle, precision: Precision) -> str:
    """Trace the bundle's network into `model.PRECISION.onnx`; returns that name.

    Raises:
        HalftoneError: an unknown precision, a graph too large for one file, or weights that did not come out in the
            precision asked for.
    """
    if precision not in get_args(Precision):
        raise HalftoneError(f"precision must be one of {', '.join(get_args(Precision))}, not {precision!r}")
    check_graph_size(bundle, precision)
    manifest = bundle.manifest
    # Imported here, as it takes seconds: neither help nor a request that is refused needs PyTorch.
    from export.tracing import traced

    graph = traced(bundle, precision)
    describe(graph, bundle, precision)
    onnx.checker.check_model(graph, full_check=True)
    if precision == "fp16":
        _check_fp16(graph)
    name = f"model.{precision}.onnx"
    command = f"`python -m export.onnx --model {manifest.name} --precision {precision}`"
    bundle.write(name, graph.SerializeToString(), made_by=command, made_from=[WEIGHTS])
    return name


def _check_fp16(graph: onnx.ModelProto) -> None:
    sizes = precision_histogram(graph)
    floats = {name: size for name, size in sizes.items() if name in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")}
    share = floats.get("FLOAT16", 0) / max(1, sum(floats.values()))
    if share < MIN_FP16_SHARE:
        raise HalftoneError(
            f"FP16 was asked for, but only {share:.1%} of the graph's weights came out FP16 ({floats}): "
            "export with --precision fp32 instead"
        )


def ensure_fp32(bundle: Bundle) -> None:
    """Make `model.fp32.onnx` where it is missing or stale."""
    if not bundle.has("model.fp32.onnx"):
        export_onnx(bundle, "fp32")


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

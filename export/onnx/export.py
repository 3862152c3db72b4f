"""`python -m export.onnx --model NAME [--precision fp32|fp16|int8]`: a bundle's weights to an ONNX graph and its proof.

Writes `model.PRECISION.onnx` into the bundle and runs `export.parity` on the ONNX Runtime variant. FP16 is made by
halving the torch module before tracing (normalisation stays FP32), because TensorRT 11 takes the precision from the
graph; where that fails its gate, what needs FP32 is found and kept (`export.onnx.fp16.repair`). INT8 is calibrated on training
pictures (`export.onnx.int8`). For EfficientNet-Lite0 on two cores about 10 s, for INT8 two minutes. Exit code 1 where the
gate says no.
"""

# MERGED-DOC """Whether a graph fits into one ONNX file, known before minutes are spent on tracing it.
#
# An ONNX file is one protobuf message and therefore smaller than 2 GiB (https://protobuf.dev/programming-guides/encoding/,
# "Size Limits"). Larger graphs would keep their tensors in files beside them, which the runtimes here refuse.
# """

from __future__ import annotations

from typing import Literal, get_args

import onnx

from export.onnx.metadata import describe, precision_histogram
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError

Precision = Literal["fp32", "fp16"]

MIN_FP16_SHARE = 0.99


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
    from export.onnx.tracing import traced

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


PROTOBUF_LIMIT = 2**31 - 1

STRUCTURE = 32 * 2**20

"""Room in bytes for nodes, names, labels, and what tracing folds into constants (masks, position tables)."""

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def graph_bytes(bundle: Bundle, precision: str) -> int:
    """How long the ONNX file will be, at most, estimated from the FP32 checkpoint.

    Raises:
        FileMissingError: the bundle has no weights.
    """
    bundle.locate(WEIGHTS)
    return bundle.manifest.files[WEIGHTS].size * BYTES[precision] // BYTES["fp32"] + STRUCTURE


def check_graph_size(bundle: Bundle, precision: str, limit: int = PROTOBUF_LIMIT) -> None:
    """Refuse a precision in which the graph would not fit into one ONNX file.

    Args:
        bundle: the opened bundle.
        precision: `fp32`, `fp16` or `int8`.
        limit: of a file, in bytes.

    Raises:
        HalftoneError: it would not; the message names the precision that does, if there is one.
    """
    size = graph_bytes(bundle, precision)
    if size <= limit:
        return
    model = bundle.manifest.name
    if graph_bytes(bundle, "fp16") <= limit:
        way_out = f"run `python -m export.onnx --model {model} --precision fp16`"
    else:
        way_out = "take a smaller architecture (`python -m models --sort params` lists them)"
    raise HalftoneError(
        f"the {precision.upper()} graph of {model} would hold {size / 1e9:.1f} GB, and an ONNX file holds at most "
        f"{limit / 1e9:.1f} GB: {way_out}"
    )

"""Export a bundle's weights to `model.PRECISION.onnx`, after a check that the graph fits into one file.

An ONNX file is one protobuf message and therefore smaller than 2 GiB (https://protobuf.dev/programming-guides/encoding/,
"Size Limits"). Larger graphs would keep their tensors in separate files, which the runtimes here refuse. The size is
estimated before minutes are spent on tracing.
"""

from __future__ import annotations

from typing import Literal, get_args

import onnx

from export.onnx.metadata import describe, normalisation, precision_histogram
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError

Precision = Literal["fp32", "fp16"]

MIN_FP16_SHARE = 0.99

PROTOBUF_LIMIT = 2**31 - 1

STRUCTURE = 32 * 2**20
"""Bytes allowed for nodes, names, labels, and what tracing folds into constants (masks, position tables)."""

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of a weight by precision."""


def export_onnx(bundle: Bundle, precision: Precision) -> str:
    """Trace the bundle's network into `model.PRECISION.onnx` and return that name.

    Raises:
        HalftoneError: the precision is unknown, the graph is too large for one file, or its weights are not in the
            requested precision.
    """
    if precision not in get_args(Precision):
        raise HalftoneError(f"precision must be one of {', '.join(get_args(Precision))}, not {precision!r}")
    check_graph_size(bundle, precision)
    # Imported here, as PyTorch takes seconds to load: neither help nor a refused request needs it.
    from export.onnx.tracing import traced

    graph = traced(bundle, precision)
    describe(graph, bundle, precision)
    onnx.checker.check_model(graph, full_check=True)
    if precision == "fp16":
        _check_fp16(graph)
    name = f"model.{precision}.onnx"
    command = f"`python -m export.onnx --model {bundle.name} --precision {precision}`"
    bundle.write(name, graph.SerializeToString(), made_by=command, made_from=[WEIGHTS])
    return name


def _check_fp16(graph: onnx.ModelProto) -> None:
    # What prepares the image is FP32 in every graph, and an ensemble has matrices there.
    before = normalisation(graph)
    own = {name for node in graph.graph.node if node.name not in before for name in node.input}
    sizes = precision_histogram(graph, of=own)
    floats = {name: size for name, size in sizes.items() if name in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")}
    share = floats.get("FLOAT16", 0) / max(1, sum(floats.values()))
    if share < MIN_FP16_SHARE:
        raise HalftoneError(
            f"FP16 was requested, but only {share:.1%} of the graph's weights are FP16 ({floats}): "
            "export with --precision fp32 instead"
        )


def ensure_fp32(bundle: Bundle) -> None:
    """Export `model.fp32.onnx` if it is missing or stale."""
    if not bundle.has("model.fp32.onnx"):
        export_onnx(bundle, "fp32")


def graph_bytes(bundle: Bundle, precision: str) -> int:
    """Return an upper estimate of the ONNX file's size in bytes, from the size of the FP32 checkpoint.

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
        limit: largest file in bytes.

    Raises:
        HalftoneError: the graph would be larger; the message names FP16 if that fits.
    """
    size = graph_bytes(bundle, precision)
    if size <= limit:
        return
    model = bundle.name
    if graph_bytes(bundle, "fp16") <= limit:
        way_out = f"run `python -m export.onnx --model {model} --precision fp16`"
    else:
        way_out = "take a smaller architecture (`python -m models --sort params` lists them)"
    raise HalftoneError(
        f"the {precision.upper()} graph of {model} would hold {size / 1e9:.1f} GB, and an ONNX file holds at most "
        f"{limit / 1e9:.1f} GB: {way_out}"
    )

"""Number formats of a TensorRT network, read back from its layers.

Tools that silently build FP32 when FP16 was requested are a known failure. TensorRT 11 takes the precision from the
graph alone, so the parsed network decides.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from models.common.errors import HalftoneError

ARITHMETIC = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION_OUTPUT")
"""Layer types that do the arithmetic; the others move, reshape or bound values."""

DTYPES = {"fp16": "HALF", "fp32": "FLOAT"}
"""Precision to TensorRT's name of the number format."""

Histogram = dict[str, dict[str, int]]
"""Layer type to number format of the first output to number of layers."""


def precision_histogram(network: Any) -> Histogram:
    """Count an `INetworkDefinition`'s layers by type and number format, such as {"CONVOLUTION": {"HALF": 49}}."""
    counts: dict[str, Counter[str]] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.num_outputs:
            counts.setdefault(layer.type.name, Counter())[layer.get_output(0).dtype.name] += 1
    return {kind: dict(formats) for kind, formats in sorted(counts.items())}


def arithmetic(histogram: Histogram) -> dict[str, int]:
    """Count the layers that do the arithmetic by number format."""
    total: Counter[str] = Counter()
    for kind in ARITHMETIC:
        total.update(histogram.get(kind, {}))
    return dict(total)


def check_precision(histogram: Histogram, precision: str, graph: str) -> None:
    """Reject a network that computes mainly in another format than requested.

    A graph may keep single layers in FP32 on purpose, so the majority decides.

    Args:
        histogram: of the parsed network.
        precision: `fp16` or `fp32`.
        graph: name of the graph, for the error message.

    Raises:
        HalftoneError: at least half of the arithmetic layers are not in `precision`.
    """
    formats = arithmetic(histogram)
    if 2 * formats.get(DTYPES[precision], 0) <= sum(formats.values()):
        counts = ", ".join(f"{count} {name}" for name, count in sorted(formats.items())) or "none at all"
        raise HalftoneError(
            f"{precision.upper()} was requested, but the convolutions and matrix products that TensorRT read from "
            f"{graph} are {counts}: export the graph again with `python -m export.onnx --precision {precision}`, or "
            "choose the other --precision"
        )

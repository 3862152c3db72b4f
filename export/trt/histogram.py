"""Which number formats a TensorRT network really computes in, read back from its layers.

A tool that was asked for FP16 and quietly builds FP32 is a known failure; TensorRT 11 takes the precision from the
graph alone, so what counts is what the parsed network says.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from models.common.errors import HalftoneError

ARITHMETIC = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION_OUTPUT")
"""The layers that do the work; the others move, shape or bound it."""

DTYPES = {"fp16": "HALF", "fp32": "FLOAT"}
"""Precision to TensorRT's name of the number format."""

Histogram = dict[str, dict[str, int]]
"""Kind of layer to number format of its first output to number of layers."""


def precision_histogram(network: Any) -> Histogram:
    """Count an `INetworkDefinition`'s layers by kind and number format, such as {"CONVOLUTION": {"HALF": 49}}."""
    counts: dict[str, Counter[str]] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.num_outputs:
            counts.setdefault(layer.type.name, Counter())[layer.get_output(0).dtype.name] += 1
    return {kind: dict(formats) for kind, formats in sorted(counts.items())}


def arithmetic(histogram: Histogram) -> dict[str, int]:
    """Number format to number of layers, of the layers that do the work."""
    total: Counter[str] = Counter()
    for kind in ARITHMETIC:
        total.update(histogram.get(kind, {}))
    return dict(total)


def check_precision(histogram: Histogram, precision: str, graph: str) -> None:
    """Refuse a network that computes mostly in another format than was asked for.

    A graph may keep single layers in FP32 on purpose, so the majority decides.

    Args:
        histogram: of the parsed network.
        precision: `fp16` or `fp32`.
        graph: name of the graph, for the message.

    Raises:
        HalftoneError: half of the arithmetic or more is not in `precision`.
    """
    formats = arithmetic(histogram)
    if 2 * formats.get(DTYPES[precision], 0) <= sum(formats.values()):
        found = ", ".join(f"{count} {name}" for name, count in sorted(formats.items())) or "none at all"
        raise HalftoneError(
            f"{precision.upper()} was asked for, but the convolutions and matrix products that TensorRT read from "
            f"{graph} are {found}: export the graph again with `python -m export.onnx --precision {precision}`, or "
            "choose the other --precision"
        )

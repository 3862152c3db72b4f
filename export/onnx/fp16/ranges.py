"""Find the nodes whose values exceed FP16's range, from the largest magnitude of every tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from export.onnx.fp16.convert import FP16_MAX
from export.onnx.metadata import WEIGHTED, float_tensors
from models.common.host import cores

BATCH = 8

HEADROOM = 2.0
"""Factor by which other images may exceed the magnitudes measured on these."""

MAX_WEIGHT_ERROR = 0.01
"""Largest relative error of a weight tensor's norm by rounding to FP16; above it, values are too small for FP16."""


def infer(
    model: onnx.ModelProto,
    pixels: npt.NDArray[np.uint8],
    outputs: Sequence[str],
    *,
    combine: Callable[..., npt.NDArray[Any]] = np.concatenate,
) -> list[npt.NDArray[Any]]:
    """Run a graph that is not in the bundle in ONNX Runtime on the CPU, `BATCH` images at a time.

    Args:
        model: graph of the contract.
        pixels: uint8 (N, S, S, 3).
        outputs: names of the graph's outputs.
        combine: joins the arrays of all batches along `axis=0`.

    Returns:
        One array per name in `outputs`.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    results = [session.run(list(outputs), {"pixels": batch}) for batch in batches]
    return [combine(column, axis=0) for column in zip(*results, strict=True)]


def magnitudes(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Return the largest |value| of each FP32 tensor on the images, weights included.

    Args:
        model: FP32 graph of the contract.
        pixels: uint8 (N, S, S, 3).
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    floats = float_tensors(model)
    names = sorted(floats - set(weights))
    for name in names:
        watched.graph.node.extend(
            [
                helper.make_node("Abs", [name], [f"{name}.abs"], name=f"abs {name}"),
                helper.make_node("ReduceMax", [f"{name}.abs"], [f"{name}.max"], name=f"max {name}", keepdims=0),
            ]
        )
        watched.graph.output.append(helper.make_tensor_value_info(f"{name}.max", onnx.TensorProto.FLOAT, []))
    largest = infer(watched, pixels, [f"{name}.max" for name in names], combine=np.max)
    found = {name: float(value) for name, value in zip(names, largest, strict=True)}
    return found | {name: float(np.abs(weights[name]).max(initial=0)) for name in sorted(floats & set(weights))}


def beyond_fp16(model: onnx.ModelProto, largest: dict[str, float]) -> set[str]:
    """Return the names of nodes with an input or output near or above FP16's maximum, or weights too small for FP16.

    Args:
        model: FP32 graph.
        largest: result of `magnitudes`.
    """
    too_large = {name for name, value in largest.items() if not value <= FP16_MAX / HEADROOM}
    too_small = {tensor.name for tensor in model.graph.initializer if _weight_error(tensor) > MAX_WEIGHT_ERROR}
    return {
        node.name
        for node in model.graph.node
        # Only factors: small summands vanish next to the others in any format.
        if too_large & {*node.input, *node.output} or (node.op_type in WEIGHTED and too_small & set(node.input))
    }


def _weight_error(tensor: onnx.TensorProto) -> float:
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return 0.0
    weight = numpy_helper.to_array(tensor).astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = weight.astype(np.float16).astype(np.float64)
    norm = float(np.linalg.norm(weight))
    return float(np.linalg.norm(rounded - weight)) / norm if norm else 0.0

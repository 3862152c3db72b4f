"""`explain.onnx`: the FP32 graph with its heat maps as a second output, so that a service without torch explains.

The graph is extended, not traced again. If the logits are a linear layer on the mean of a grid of features, the same
layer on each place of the grid gives the class activation maps (Zhou et al., arXiv:1512.04150); with such a head they
equal Grad-CAM. If they come from the first token of a Vision Transformer, the attention of its blocks is rolled out, as
`export.explain.rollout` does. Other networks have no such graph.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.explain.heat import ATTENTION, CAM, MAPS, METHOD, Method
from models.bundle.bundle import EXPLAIN, Bundle

SOURCE = "model.fp32.onnx"

_PASSED = frozenset({"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze"})
"""Operators that only change the shape or the type between pooling and the last layer."""

_FIRST_OPTIONAL_INPUT = 2


class _Head(NamedTuple):
    """The last linear layer of a network, and the node that makes its input."""

    weight: str
    """Name of the weights, float32 (classes, features) if `transposed`, else (features, classes)."""

    transposed: bool
    classes: int

    node: onnx.NodeProto


def export_explanation(bundle: Bundle) -> Method | None:
    """Write `explain.onnx` into the bundle; return its method, or None if the network has no such graph.

    Raises:
        BundleError: the FP32 graph is missing or damaged.
    """
    graph = onnx.load_from_string(bundle.read(SOURCE))
    method = extend(graph)
    if method is None:
        return None
    onnx.checker.check_model(graph)
    helper.set_model_props(graph, {each.key: each.value for each in graph.metadata_props} | {METHOD: method})
    bundle.write(
        EXPLAIN, graph.SerializeToString(), made_by=f"`python -m export --model {bundle.name}`", made_from=[SOURCE]
    )
    return method


def extend(model: onnx.ModelProto) -> Method | None:
    """Add the output `maps` to a graph with `pixels` and `logits`; return how they are made.

    The maps are float32, (N, classes, H, W) for class activation maps and (N, H, W) for attention rollout.

    Returns:
        None if the network is of neither kind; the graph is then as before.
    """
    head = _head(model)
    if head is None:
        return None
    if _activation_maps(model, head):
        return CAM
    return ATTENTION if _rollout(model, head) else None


def _head(model: onnx.ModelProto) -> _Head | None:
    """Return the head, from the logits backwards."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = _skip(made_by, "logits")
    if node is None or node.op_type != "Gemm":
        return None
    options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    weight, transposed = _constant(model, node.input[1]), bool(options.get("transB"))
    before = _skip(made_by, node.input[0])
    if weight is None or before is None or options.get("transA") or options.get("alpha", 1.0) != 1.0:
        return None
    return _Head(node.input[1], transposed, weight.shape[0 if transposed else 1], before)


def _activation_maps(model: onnx.ModelProto, head: _Head) -> bool:
    pooling = head.node
    if pooling.op_type == "GlobalAveragePool":
        axes = [2, 3]
    elif pooling.op_type == "ReduceMean":
        axes = sorted(axis % 4 for axis in _axes(model, pooling))
    else:
        return False
    # Channels last: the order in which the layer takes the features of a place.
    if axes == [2, 3]:
        nodes = [helper.make_node("Transpose", [pooling.input[0]], ["explain.features"], perm=[0, 2, 3, 1])]
    elif axes == [1, 2]:
        nodes = [helper.make_node("Identity", [pooling.input[0]], ["explain.features"])]
    else:
        return False
    # The weights are not copied, as they may be most of a small network.
    kernel = "explain.kernel" if head.transposed else head.weight
    if head.transposed:
        nodes.append(helper.make_node("Transpose", [head.weight], [kernel], perm=[1, 0]))
    nodes += [
        helper.make_node("MatMul", ["explain.features", kernel], ["explain.places"]),
        helper.make_node("Transpose", ["explain.places"], [MAPS], perm=[0, 3, 1, 2]),
    ]
    model.graph.node.extend(nodes)
    _add_output(model, ["batch", head.classes, "height", "width"])
    return True


def _rollout(model: onnx.ModelProto, head: _Head) -> bool:
    gather = head.node
    if gather.op_type != "Gather" or _constant(model, gather.input[1]) != 0:
        return False
    attentions, tokens = _attentions(model)
    side = math.isqrt(tokens)
    # Without a class token before them, the patches would fill the square, and the head would see their mean.
    if not attentions or side * side == tokens:
        return False
    nodes, total = [], ""
    _add_constant(model, "explain.identity", np.eye(tokens, dtype=np.float32))
    _add_constant(model, "explain.half", np.float32(0.5))
    _add_constant(model, "explain.heads", np.array([1]))
    for number, attention in enumerate(attentions):
        mean, sum_, mixed, product = (f"explain.{step}.{number}" for step in ("mean", "sum", "mixed", "product"))
        nodes += [
            helper.make_node("ReduceMean", [attention, "explain.heads"], [mean], keepdims=0),
            helper.make_node("Add", [mean, "explain.identity"], [sum_]),
            helper.make_node("Mul", [sum_, "explain.half"], [mixed]),
        ]
        if total:
            nodes.append(helper.make_node("MatMul", [mixed, total], [product]))
        total = product if total else mixed
    for name, values in (("starts", [0, tokens - side * side]), ("ends", [1, tokens]), ("axes", [1, 2])):
        _add_constant(model, f"explain.{name}", np.array(values))
    _add_constant(model, "explain.shape", np.array([-1, side, side]))
    slice_ = ["explain.starts", "explain.ends", "explain.axes"]
    nodes += [
        helper.make_node("Slice", [total, *slice_], ["explain.patches"]),
        helper.make_node("Reshape", ["explain.patches", "explain.shape"], [MAPS]),
    ]
    model.graph.node.extend(nodes)
    _add_output(model, ["batch", side, side])
    return True


def _attentions(model: onnx.ModelProto) -> tuple[list[str], int]:
    """Return the attention weights (N, heads, T, T) of all blocks in order, and T; nothing if they are not alike."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    }
    names = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    sides = {tuple(shapes.get(name, [])[2:]) for name in names}
    if len(sides) != 1 or any(len(shapes[name]) != 4 for name in names):
        return [], 0
    (rows, columns) = sides.pop()
    return (names, rows) if rows == columns > 0 else ([], 0)


def _skip(made_by: dict[str, onnx.NodeProto], name: str) -> onnx.NodeProto | None:
    """Return the node that makes a tensor, before those that only pass it on."""
    node = made_by.get(name)
    while node is not None and node.op_type in _PASSED:
        node = made_by.get(node.input[0])
    return node


def _axes(model: onnx.ModelProto, node: onnx.NodeProto) -> list[int]:
    if len(node.input) < _FIRST_OPTIONAL_INPUT or not node.input[1]:
        return []
    axes = _constant(model, node.input[1])
    return [] if axes is None else np.atleast_1d(axes).tolist()


def _constant(model: onnx.ModelProto, name: str) -> np.ndarray | None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    return None


def _add_constant(model: onnx.ModelProto, name: str, value: np.ndarray | np.generic) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))


def _add_output(model: onnx.ModelProto, shape: list[int | str]) -> None:
    model.graph.output.append(helper.make_tensor_value_info(MAPS, onnx.TensorProto.FLOAT, shape))

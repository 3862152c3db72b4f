"""Multiply-accumulates of an ONNX graph for one image, from the shapes of its tensors."""

from __future__ import annotations

import math

import onnx

from export.onnx.metadata import WEIGHTED


def multiply_accumulates(graph: bytes) -> int:
    """Return the multiply-accumulates of convolutions and matrix products for one image.

    Args:
        graph: FP32 or FP16 graph of the contract, serialised.

    Raises:
        onnx.shape_inference.InferenceError: the graph's shapes do not fit together.
    """
    model = onnx.load_from_string(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[0].ClearField("value")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    return sum(_products(node, shapes) for node in inferred.node if node.op_type in WEIGHTED)


def _products(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    outputs = math.prod(shapes[node.output[0]])
    if node.op_type == "Conv":
        # (output channels, input channels of a group, height, width)
        return outputs * math.prod(shapes[node.input[1]][1:])
    first = shapes[node.input[0]]
    turned = any(each.name == "transA" and each.i for each in node.attribute)
    return outputs * first[-2 if turned else -1]

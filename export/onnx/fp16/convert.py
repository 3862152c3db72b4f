"""Convert an FP32 graph to FP16 with FP32 islands: nodes that stay FP32, with casts at their inputs and outputs.

The result is strongly typed, as TensorRT 11 requires. An island's output stays FP32 until a node outside reads it, so a
value that overflows FP16 can pass from one FP32 node to the next.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.onnx.metadata import float_tensors

FP16_MAX = 65504.0
_SUFFIX: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def to_fp16(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """Return the graph in FP16 except for the nodes of `kept`; inputs and outputs keep their types.

    Args:
        model: FP32 graph without subgraphs, its nodes named and in execution order; it is not changed.
        kept: names of the nodes that compute in FP32 with FP32 weights.

    Raises:
        onnx.checker.ValidationError: a converted node has no FP16 form.
    """
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    _Conversion(converted, float_tensors(model)).convert(frozenset(kept))
    onnx.checker.check_model(converted, full_check=True)
    return converted


def emulate_fp16(half: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP16 graph that computes every node in FP32 and rounds its results to FP16, as FP16 hardware does.

    ONNX Runtime has no FP16 kernels for most operators on the CPU. It runs chains of them in FP32 without rounding in
    between, which hides an overflow that a GPU would have. Here every rounding is an explicit pair of casts.

    Args:
        half: graph by `to_fp16` or the exporter; it is not changed.
    """
    explicit = onnx.ModelProto()
    explicit.CopyFrom(half)
    halves = float_tensors(half, TensorProto.FLOAT16)
    nodes: list[onnx.NodeProto] = []
    for node in half.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        before = [name for name in dict.fromkeys(node.input) if name in halves]
        after = [name for name in node.output if name in halves]
        if node.op_type != "Cast" and (before or after):
            copy.input[:] = [f"{node.name}/{name}" if name in before else name for name in node.input]
            copy.output[:] = [f"{node.name}/{name}" if name in after else name for name in node.output]
            nodes += [_cast(name, f"{node.name}/{name}", TensorProto.FLOAT) for name in before]
            _retype(copy)
            nodes += [copy, *(_cast(f"{node.name}/{name}", name, TensorProto.FLOAT16) for name in after)]
        else:
            nodes.append(copy)
    del explicit.graph.node[:], explicit.graph.value_info[:]
    explicit.graph.node.extend(nodes)
    return explicit


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast {target}", to=to)


def _retype(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(attribute.t).astype(np.float32)
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


class _Conversion:
    """One pass over the nodes that keeps the current type of every value."""

    def __init__(self, model: onnx.ModelProto, floats: set[str]) -> None:
        self.graph = model.graph
        self.floats = floats
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in floats}
        self.types: dict[str, int] = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, onnx.TensorProto] = {}
        self.casts: set[str] = set()

    def convert(self, kept: frozenset[str]) -> None:
        """Convert the graph in place; the nodes of `kept` stay FP32."""
        for node in list(self.graph.node):
            wanted = TensorProto.FLOAT if node.name in kept else TensorProto.FLOAT16
            for position, name in enumerate(node.input):
                if name in self.floats:
                    node.input[position] = self._as(name, wanted)
            if wanted == TensorProto.FLOAT16:
                _convert_attributes(node)
            self.nodes.append(node)
            for name in node.output:
                self.types[name] = wanted
        self._restore_outputs()
        others = [tensor for tensor in self.graph.initializer if tensor.name not in self.weights]
        for field, values in ((self.graph.node, self.nodes), (self.graph.initializer, [*others, *self.made.values()])):
            del field[:]
            field.extend(values)
        del self.graph.value_info[:]

    def _as(self, name: str, wanted: int) -> str:
        """Return the name of a tensor in the wanted type; add the cast or the converted weight if it is missing."""
        if name in self.weights:
            return self._weight(self.weights[name], wanted)
        if self.types[name] == wanted:
            return name
        other = f"{name}.{_SUFFIX[wanted]}"
        if other not in self.casts:
            self.casts.add(other)
            self.nodes.append(_cast(name, other, wanted))
        return other

    def _weight(self, tensor: onnx.TensorProto, wanted: int) -> str:
        if wanted == TensorProto.FLOAT:
            self.made[tensor.name] = tensor
            return tensor.name
        name = f"{tensor.name}.fp16"
        if name not in self.made:
            self.made[name] = _half_tensor(tensor, name)
        return name

    def _restore_outputs(self) -> None:
        for output in self.graph.output:
            if output.name in self.floats and self.types[output.name] != TensorProto.FLOAT:
                half = f"{output.name}.fp16"
                for node in self.nodes:
                    for names in (node.input, node.output):
                        names[:] = [half if name == output.name else name for name in names]
                self.nodes.append(_cast(half, output.name, TensorProto.FLOAT))


def _half_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    # A weight beyond FP16's range becomes infinity, as in torch: the proof must see it.
    with np.errstate(over="ignore"):
        return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _convert_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_half_tensor(attribute.t, attribute.t.name))

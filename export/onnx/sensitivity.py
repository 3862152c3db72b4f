"""The nodes that need FP32 so that the rest of a graph can be INT8: what is tried, in order.

What loses accuracy in most networks comes first. Then the nodes are measured: each in turn reads its inputs and weights
in 8 bits in a graph that is FP32 otherwise. So a node that 8 bits ruin does not hide another one, and no node is blamed
for the noise of those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx

from export.onnx.fp16.ranges import infer
from export.onnx.metadata import WEIGHTED, end_layers, layers

MAX_FP32_SHARE = 0.5
"""Largest share of the weights between first and last layer to keep; above it, the graph would be INT8 by name only."""

_QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_MOVING = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat"})
"""Operators that only choose or move values: what a quantiser before them rounds, they pass on."""

_PREFIX = "int8."

Producers = Mapping[str, onnx.NodeProto]


def candidates(graph: onnx.ModelProto, measure: Callable[[], list[str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield sets of nodes to keep in FP32, in words and by name.

    Args:
        graph: FP32 graph of the contract.
        measure: returns the nodes' names as `most_disturbing` does; called only if the cheap sets were not enough.
    """
    weighted = [layer[0] for layer in layers(graph)]
    ends = end_layers(graph)
    yield "the first and the last layer", ends
    fragile = [name for name in _fragile(graph, weighted) if name not in ends]
    if fragile:
        yield "the first and the last layer, depthwise convolutions and attention's products", ends + fragile
    order = [name for name in measure() if name not in ends]
    sizes = {name: size for name, size in _weights(graph).items() if name not in ends}
    for count in (2**power for power in range(len(order).bit_length())):
        worst = order[:count]
        if sum(sizes.get(name, 0) for name in worst) > MAX_FP32_SHARE * sum(sizes.values()):
            return
        # A part of what was not enough is not enough.
        if not set(worst) <= set(fragile):
            which = "node" if count == 1 else f"{count} nodes"
            yield f"the first and the last layer and the {which} whose quantisation disturbs most", ends + worst


def _fragile(graph: onnx.ModelProto, weighted: Collection[str]) -> Iterator[str]:
    """Yield the names of depthwise convolutions and of products of two activations."""
    for node in graph.graph.node:
        depthwise = node.op_type == "Conv" and any(each.name == "group" and each.i > 1 for each in node.attribute)
        if depthwise or (node.op_type in WEIGHTED and node.name not in weighted):
            yield node.name


def _weights(graph: onnx.ModelProto) -> dict[str, int]:
    """Return the number of values in the weights of each node that multiplies by some."""
    kernels = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer if len(tensor.dims) >= 2}
    return {
        node.name: sum(kernels.get(name, 0) for name in node.input)
        for node in graph.graph.node
        if node.op_type in WEIGHTED
    }


def most_disturbing(graph: onnx.ModelProto, quantised: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> list[str]:
    """Return the names of the nodes that read 8-bit values, those whose quantisation disturbs the logits most first.

    Args:
        graph: FP32 graph of the contract.
        quantised: the same graph with pairs of QuantizeLinear and DequantizeLinear.
        pixels: uint8 (N, S, S, 3) to measure on.
    """
    (expected,) = infer(graph, pixels, ["logits"])
    own = {node.name for node in graph.graph.node}
    producers = {tensor: node for node in quantised.graph.node for tensor in node.output}
    noise: dict[str, float] = {}
    for twin in quantised.graph.node:
        paths = [_path(tensor, producers, own) for tensor in twin.input]
        if twin.name in own and any(map(_rounds, paths)):
            (logits,) = infer(_alone(graph, quantised, twin, paths), pixels, ["logits"])
            error = float(np.square(logits.astype(np.float64) - expected).sum())
            noise[twin.name] = error if np.isfinite(error) else np.inf
    return sorted(noise, key=noise.__getitem__, reverse=True)


def _path(tensor: str, producers: Producers, own: Collection[str]) -> list[onnx.NodeProto]:
    """Return the nodes of the quantised graph that make a tensor from those of the FP32 graph, in execution order."""
    node = producers.get(tensor)
    if node is None or (node.name in own and node.op_type not in _MOVING):
        return []
    return [*(each for name in node.input for each in _path(name, producers, own)), node]


def _rounds(path: list[onnx.NodeProto]) -> bool:
    return any(node.op_type in _QUANTISERS for node in path)


def _alone(
    graph: onnx.ModelProto, quantised: onnx.ModelProto, twin: onnx.NodeProto, paths: list[list[onnx.NodeProto]]
) -> onnx.ModelProto:
    """Return the FP32 graph in which one node reads what its twin in the quantised graph reads.

    Args:
        graph: FP32 graph; it is not changed.
        quantised: quantised graph.
        twin: the node in the quantised graph.
        paths: `_path` of each of its inputs.
    """
    nodes = {node.name: node for path in paths if _rounds(path) for node in path}
    constants = {each.name: each for each in quantised.graph.initializer}
    renamed = {tensor for node in nodes.values() for tensor in (*node.input, *node.output) if tensor in constants}
    renamed |= {tensor for node in nodes.values() for tensor in node.output}
    alone = onnx.ModelProto()
    alone.CopyFrom(graph)
    place = [node.name for node in graph.graph.node].index(twin.name)
    for index, (tensor, path) in enumerate(zip(twin.input, paths, strict=True)):
        # Other inputs stay as they are: the quantised graph's bias also makes up for the noise of other nodes.
        if _rounds(path):
            alone.graph.node[place].input[index] = _PREFIX + tensor
    for node in reversed(nodes.values()):
        alone.graph.node.insert(place, _renamed(node, renamed))
    for name in sorted(renamed & set(constants)):
        alone.graph.initializer.add().CopyFrom(constants[name])
        alone.graph.initializer[-1].name = _PREFIX + name
    return alone


def _renamed(node: onnx.NodeProto, tensors: Collection[str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = _PREFIX + node.name
    for names in (copy.input, copy.output):
        names[:] = [_PREFIX + name if name in tensors else name for name in names]
    return copy

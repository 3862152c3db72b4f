"""Metadata and structure of the exported ONNX graphs: labels and lineage, element types, layers. Needs no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator

import onnx

from models.bundle.bundle import WEIGHTS, Bundle

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that multiply by a kernel or a weight matrix."""

_NORMALISING = {"Cast", "Transpose", "Mul", "Add", "MatMul", "Clip"}
"""Products with a matrix and limits are the resampling of an ensemble's members."""


def describe(graph: onnx.ModelProto, bundle: Bundle, precision: str) -> None:
    """Write labels, input and lineage into the graph's metadata, so that the file describes itself."""
    manifest = bundle.manifest
    # torch writes the paths of its source files into the metadata of every node.
    for node in graph.graph.node:
        del node.metadata_props[:]
    del graph.graph.metadata_props[:]
    onnx.helper.set_model_props(
        graph,
        {
            "halftone.name": manifest.name,
            "halftone.architecture": manifest.architecture,
            "halftone.version": manifest.version,
            "halftone.precision": precision,
            "halftone.weights_sha256": manifest.files[WEIGHTS].sha256,
            "halftone.input": json.dumps(manifest.input.to_dict()),
            "halftone.labels": json.dumps(manifest.labels, ensure_ascii=False),
        },
    )


def precision_histogram(graph: onnx.ModelProto, of: Collection[str] | None = None) -> dict[str, int]:
    """Return the bytes of weights by element type, such as {"FLOAT16": 9300000, "FLOAT": 48}.

    Args:
        graph: the graph.
        of: names of the weights to count; None for all.
    """
    sizes: Counter[str] = Counter()
    for tensor in graph.graph.initializer:
        if of is not None and tensor.name not in of:
            continue
        sizes[onnx.TensorProto.DataType.Name(tensor.data_type)] += onnx.numpy_helper.to_array(tensor).nbytes
    return dict(sizes)


def float_tensors(model: onnx.ModelProto, kind: int = onnx.TensorProto.FLOAT) -> set[str]:
    """Return the names of all tensors of an element type, weights included.

    Args:
        model: the graph.
        kind: element type; FP32 by default.

    Raises:
        onnx.shape_inference.InferenceError: the graph's types do not fit together.
    """
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    typed = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return typed | {tensor.name for tensor in graph.initializer if tensor.data_type == kind}


def consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes that read each tensor, by the tensor's name."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def normalisation(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes that turn `pixels` into the network's input: cast, transpose, resample, scale."""
    readers, names, waiting = consumers(model), set[str](), ["pixels"]
    while waiting:
        for node in readers.get(waiting.pop(), []):
            if node.op_type in _NORMALISING and node.name not in names:
                names.add(node.name)
                waiting.extend(node.output)
    return names


def resampling(model: onnx.ModelProto) -> list[str]:
    """Return the names of the products that resample the image for a member of an ensemble."""
    before = normalisation(model)
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name in before]


def layers(model: onnx.ModelProto) -> list[list[str]]:
    """Return the node names by layer, in execution order.

    A layer starts with a node that has a weight matrix or kernel. Normalisation belongs to none.
    """
    before = normalisation(model)
    kernels = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    found: list[list[str]] = []
    for node in (each for each in model.graph.node if each.name not in before):
        if node.op_type in WEIGHTED and kernels & set(node.input):
            found.append([node.name])
        elif found:
            found[-1].append(node.name)
    return found


def end_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the first and the last nodes with weights, in execution order: two for each network.

    The first have no other weights before them, the last none after. An ensemble has two for each member.
    """
    weighted = {layer[0] for layer in layers(model)}
    found = _without_weights_before(model.graph.node, weighted, lambda node: (node.input, node.output))
    found |= _without_weights_before(model.graph.node[::-1], weighted, lambda node: (node.output, node.input))
    return [node.name for node in model.graph.node if node.name in found]


def _without_weights_before(
    nodes: Iterable[onnx.NodeProto],
    weighted: Collection[str],
    ends: Callable[[onnx.NodeProto], tuple[Iterable[str], Iterable[str]]],
) -> set[str]:
    """Return the names of the nodes of `weighted` to which no path leads from another one.

    Args:
        nodes: in the order of the paths.
        weighted: names.
        ends: returns the tensors by which a path enters a node, and those by which it leaves.
    """
    found, behind = set[str](), set[str]()
    for node in nodes:
        entries, exits = ends(node)
        passed = any(name in behind for name in entries)
        if node.name in weighted and not passed:
            found.add(node.name)
        if passed or node.name in weighted:
            behind.update(exits)
    return found


def squeeze_excite(model: onnx.ModelProto) -> set[str]:
    """Return the names of squeeze-excite nodes: from a global pooling to the product that scales (Hu et al. 2018)."""
    readers = consumers(model)
    pools = (node for node in model.graph.node if node.op_type in ("GlobalAveragePool", "ReduceMean"))
    return {name for pool in pools for name in _gate_below(pool, readers)}


def _gate_below(pool: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> Iterator[str]:
    """Yield the pooling and the nodes after it up to a `Mul`; nothing if it leads to the logits."""
    inside, waiting = {pool.name}, list(pool.output)
    while waiting:
        name = waiting.pop()
        if name == "logits":
            return
        for node in readers.get(name, []):
            if node.name not in inside:
                inside.add(node.name)
                waiting.extend([] if node.op_type == "Mul" else node.output)
    yield from inside

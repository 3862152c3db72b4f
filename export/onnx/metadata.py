"""What an ONNX graph of ours says about itself, and questions that every precision asks of it; needs no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import onnx

from models.bundle.bundle import WEIGHTS, Bundle

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that multiply by a kernel or a weight matrix."""

_NORMALISING = {"Cast", "Transpose", "Mul", "Add"}


def describe(graph: onnx.ModelProto, bundle: Bundle, precision: str) -> None:
    """Write labels, input and lineage into the graph's metadata, so that the file explains itself."""
    manifest = bundle.manifest
    # The exporter leaves the paths of its source files on every node.
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


def precision_histogram(graph: onnx.ModelProto) -> dict[str, int]:
    """Bytes of weights per element type of the graph, such as {"FLOAT16": 9300000, "FLOAT": 48}."""
    sizes: Counter[str] = Counter()
    for tensor in graph.graph.initializer:
        sizes[onnx.TensorProto.DataType.Name(tensor.data_type)] += onnx.numpy_helper.to_array(tensor).nbytes
    return dict(sizes)


def float_tensors(model: onnx.ModelProto, kind: int = onnx.TensorProto.FLOAT) -> set[str]:
    """Names of all tensors of the graph of a floating-point type, weights among them.

    Args:
        model: the graph.
        kind: FP32 unless told otherwise.

    Raises:
        onnx.shape_inference.InferenceError: the graph's types do not fit together.
    """
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    typed = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return typed | {tensor.name for tensor in graph.initializer if tensor.data_type == kind}


def consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def normalisation(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that turn `pixels` into the planes that the network sees: cast, transpose, scale, shift."""
    readers, names, waiting = consumers(model), set[str](), ["pixels"]
    while waiting:
        for node in readers.get(waiting.pop(), []):
            if node.op_type in _NORMALISING and node.name not in names:
                names.add(node.name)
                waiting.extend(node.output)
    return names


def layers(model: onnx.ModelProto) -> list[list[str]]:
    """The node names in layers: each starts with a node that holds a weight matrix or kernel, in execution order.

    Normalisation comes before the first layer and belongs to none.
    """
    kernels = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    found: list[list[str]] = []
    for node in model.graph.node:
        if node.op_type in WEIGHTED and kernels & set(node.input):
            found.append([node.name])
        elif found:
            found[-1].append(node.name)
    return found


def squeeze_excite(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes from a pooling over the whole plane to the product that it scales (Hu et al. 2018)."""
    readers = consumers(model)
    pools = (node for node in model.graph.node if node.op_type in ("GlobalAveragePool", "ReduceMean"))
    return {name for pool in pools for name in _gate_below(pool, readers)}


def _gate_below(pool: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> Iterator[str]:
    """The pool and what follows it up to a `Mul`; nothing where it leads to the logits instead."""
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

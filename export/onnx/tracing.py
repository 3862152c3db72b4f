"""Trace a bundle's network into an ONNX graph with PyTorch."""

from __future__ import annotations

from typing import Any, Literal

import onnx
import torch

from export.onnx.quiet import suppress_output
from models.bundle.bundle import Bundle
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.common.text import printable
from models.graph import ServingGraph

OPSET = 20
TRACE_BATCH = 2

MOST_REASON = 200
"""Characters of the exporter's message that are shown."""

_DTYPE = {"fp32": torch.float32, "fp16": torch.float16}


def traced(bundle: Bundle, precision: Literal["fp32", "fp16"]) -> onnx.ModelProto:
    """Return the ONNX graph of the bundle's network, with uint8 pixels in and FP32 logits out.

    FP16 is made by halving the module; normalisation stays FP32.

    Raises:
        HalftoneError: the weights don't fit the architecture, or PyTorch can't export it.
    """
    spec = bundle.manifest.input
    network = load_module(bundle).to(_DTYPE[precision])
    try:
        return _exported(ServingGraph(network, spec), spec.size)
    # The exporter raises many types, some of which derive from Exception alone.
    except Exception as error:
        reason = printable(" ".join(str(error).split())[:MOST_REASON])
        raise HalftoneError(
            f"PyTorch {torch.__version__} can't export {bundle.manifest.architecture} to ONNX in {precision.upper()} "
            f"({type(error).__name__}: {reason}): choose another architecture; docs/models.md names some of timm's "
            "that were tried"
        ) from error


def _exported(graph: ServingGraph, size: int) -> onnx.ModelProto:
    # Batch 2, because torch would treat a batch of 1 as a constant.
    example = torch.zeros(TRACE_BATCH, size, size, 3, dtype=torch.uint8)
    _plain_attention(graph.network)
    _out_of_place(graph.network)
    # If pixels are only permuted, not copied, torch keeps that memory layout after pooling. It exports this as a Gather
    # by indices that need the batch size at run time.
    planes = graph.network.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    with planes, suppress_output(), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1, max=65536)}},
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return program.model_proto


def _plain_attention(network: torch.nn.Module) -> None:
    """Export attention as products and softmax.

    torch's fused operator is exported with a dozen shape operators in each block, which run on the CPU in between the
    GPU's kernels.
    """
    attention: Any
    for attention in network.modules():
        if hasattr(attention, "fused_attn"):
            attention.fused_attn = False


def _out_of_place(network: torch.nn.Module) -> None:
    """Let activations return new tensors: torch takes as long again to trace those that change their input.

    The exported graph is the same.
    """
    module: Any
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False

"""Small models as Hugging Face transformers saves them, with weights that are a function of their names."""

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

Shape = tuple[int, ...]

LABELS = {"0": "ant", "1": "bee", "2": "cow"}

SQUASHING = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 1 / 255, "resample": 3}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}

VIT = {
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 32,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "ViTForImageClassification": {"model_type": "vit", "patch_size": 16, **VIT},
    "DeiTForImageClassification": {"model_type": "deit", "patch_size": 16, **VIT},
    "DeiTForImageClassificationWithTeacher": {"model_type": "deit", "patch_size": 16, **VIT},
    "SwinForImageClassification": {"model_type": "swin"},
    "ConvNextForImageClassification": {
        "model_type": "convnext",
        "depths": [2, 2, 6, 2],
        "hidden_sizes": [40, 80, 160, 320],
    },
    "ResNetForImageClassification": {
        "model_type": "resnet",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
        "layer_type": "basic",
    },
}
"""Settings of the smallest of each class."""

PROCESSORS: dict[str, dict[str, Any]] = {
    "ViTForImageClassification": SQUASHING | HALF | {"size": {"height": 32, "width": 32}, "resample": 2},
    "DeiTForImageClassification": SQUASHING
    | HALF
    | {"size": {"height": 36, "width": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
    "DeiTForImageClassificationWithTeacher": SQUASHING | HALF | {"size": 32, "do_center_crop": False},
    "SwinForImageClassification": SQUASHING | HALF | {"size": {"height": 224, "width": 224}},
    "ConvNextForImageClassification": SQUASHING
    | HALF
    | {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}, "crop_pct": 0.875},
    "ResNetForImageClassification": SQUASHING
    | {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}, "do_normalize": False},
}


def save(kind: str, folder: Path) -> dict[str, np.ndarray]:
    """Write the three files of a model of a class; return its weights."""
    state = {name: _values(name, shape) for name, shape in SHAPES[kind]()}
    folder.mkdir(exist_ok=True)
    config = CONFIGS[kind] | {"architectures": [kind], "id2label": LABELS}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
    safetensors.numpy.save_file(state, folder / "model.safetensors")
    return state


def _values(name: str, shape: Shape) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    inputs = math.prod(shape[1:])
    # Tokens as far from zero as trained ones: the epsilon of the norms, which timm has 1e-6 of, is nothing to them.
    token = "embeddings." in name and "token" in name
    small = generator.normal(0, 0.5 if token else min(0.05, inputs**-0.5), shape)
    norm = "norm" in name and name.endswith(".weight")
    scale = 0.3 if "layer_scale" in name else 0.0
    return (small + norm + scale).astype(np.float32)


def _layer(name: str, outputs: int, *inputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, *inputs)
    yield f"{name}.bias", (outputs,)


def _transformer_block(name: str, width: int, attention: str) -> Iterator[tuple[str, Shape]]:
    for part in ("query", "key", "value"):
        yield from _layer(f"{name}.attention.{attention}.{part}", width, width)
    yield from _layer(f"{name}.attention.output.dense", width, width)
    yield from _layer(f"{name}.intermediate.dense", 4 * width, width)
    yield from _layer(f"{name}.output.dense", width, 4 * width)
    yield from _layer(f"{name}.layernorm_before", width)
    yield from _layer(f"{name}.layernorm_after", width)


def _vit(prefix: str, heads: tuple[str, ...]) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.embeddings.cls_token", (1, 1, 192)
    tokens = 5
    if prefix == "deit":
        yield "deit.embeddings.distillation_token", (1, 1, 192)
        tokens = 6
    yield f"{prefix}.embeddings.position_embeddings", (1, tokens, 192)
    yield from _layer(f"{prefix}.embeddings.patch_embeddings.projection", 192, 3, 16, 16)
    for block in range(12):
        yield from _transformer_block(f"{prefix}.encoder.layer.{block}", 192, "attention")
    yield from _layer(f"{prefix}.layernorm", 192)
    for head in heads:
        yield from _layer(head, 3, 192)


def _swin() -> Iterator[tuple[str, Shape]]:
    yield from _layer("swin.embeddings.patch_embeddings.projection", 96, 3, 4, 4)
    yield from _layer("swin.embeddings.norm", 96)
    for stage, (depth, heads) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
        width, name = 96 * 2**stage, f"swin.encoder.layers.{stage}"
        for block in range(depth):
            yield from _transformer_block(f"{name}.blocks.{block}", width, "self")
            yield f"{name}.blocks.{block}.attention.self.relative_position_bias_table", (169, heads)
        if stage < 3:
            yield f"{name}.downsample.reduction.weight", (2 * width, 4 * width)
            yield from _layer(f"{name}.downsample.norm", 4 * width)
    yield from _layer("swin.layernorm", 768)
    yield from _layer("classifier", 3, 768)


def _convnext() -> Iterator[tuple[str, Shape]]:
    widths = (40, 80, 160, 320)
    yield from _layer("convnext.embeddings.patch_embeddings", 40, 3, 4, 4)
    yield from _layer("convnext.embeddings.layernorm", 40)
    for stage, (depth, width) in enumerate(zip((2, 2, 6, 2), widths, strict=True)):
        name = f"convnext.encoder.stages.{stage}"
        if stage:
            yield from _layer(f"{name}.downsampling_layer.0", widths[stage - 1])
            yield from _layer(f"{name}.downsampling_layer.1", width, widths[stage - 1], 2, 2)
        for block in range(depth):
            yield f"{name}.layers.{block}.layer_scale_parameter", (width,)
            yield from _layer(f"{name}.layers.{block}.dwconv", width, 1, 7, 7)
            yield from _layer(f"{name}.layers.{block}.layernorm", width)
            yield from _layer(f"{name}.layers.{block}.pwconv1", 4 * width, width)
            yield from _layer(f"{name}.layers.{block}.pwconv2", width, 4 * width)
    yield from _layer("convnext.layernorm", 320)
    yield from _layer("classifier", 3, 320)


def _convolution(name: str, outputs: int, inputs: int, side: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.convolution.weight", (outputs, inputs, side, side)
    yield from _layer(f"{name}.normalization", outputs)
    for each in ("running_mean", "running_var"):
        yield f"{name}.normalization.{each}", (outputs,)
    yield f"{name}.normalization.num_batches_tracked", ()


def _resnet() -> Iterator[tuple[str, Shape]]:
    yield from _convolution("resnet.embedder.embedder", 64, 3, 7)
    for stage in range(4):
        width = 64 * 2**stage
        for block in range(2):
            name, inputs = f"resnet.encoder.stages.{stage}.layers.{block}", width if block or not stage else width // 2
            if inputs != width:
                yield from _convolution(f"{name}.shortcut", width, inputs, 1)
            yield from _convolution(f"{name}.layer.0", width, inputs, 3)
            yield from _convolution(f"{name}.layer.1", width, width, 3)
    yield from _layer("classifier.1", 3, 512)


SHAPES: dict[str, Any] = {
    "ViTForImageClassification": lambda: _vit("vit", ("classifier",)),
    "DeiTForImageClassification": lambda: _vit("deit", ("classifier",)),
    "DeiTForImageClassificationWithTeacher": lambda: _vit("deit", ("cls_classifier", "distillation_classifier")),
    "SwinForImageClassification": _swin,
    "ConvNextForImageClassification": _convnext,
    "ResNetForImageClassification": _resnet,
}
"""Names and shapes of the tensors that each class has."""

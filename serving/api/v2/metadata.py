"""Metadata of the server and its models in the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from serving.bento import version
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel

PIXELS, IMAGE = "pixels", "image"
LOGITS, PROBABILITIES = "logits", "probabilities"


def server() -> dict[str, Any]:
    """Return the server's name, version and extensions."""
    return {"name": "halftone", "version": version(), "extensions": ["binary_tensor_data", "classification"]}


def model_tensors(model: ServedModel) -> dict[str, Any]:
    """Return a model's tensors; a request sends one of the two inputs. -1 is the number of images."""
    size, classes = model.manifest.input.size, len(model.manifest.labels)
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": f"halftone_{model.variant}",
        "inputs": [_tensor(PIXELS, "UINT8", size, size, 3), _tensor(IMAGE, "BYTES")],
        "outputs": [_tensor(LOGITS, "FP32", classes), _tensor(PROBABILITIES, "FP32", classes)],
    }


def index(models: Registry, *, only_ready: bool) -> list[dict[str, str]]:
    """Return the models with their state in Triton's terms."""
    loaded = {
        each.name: {"name": each.name, "version": each.version, "state": "READY", "reason": ""} for each in models.all()
    }
    if only_ready:
        return list(loaded.values())
    return [loaded.get(name, {"name": name, "state": "LOADING", "reason": "being loaded"}) for name in models.names]


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1, *shape]}

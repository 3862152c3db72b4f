"""What the Open Inference Protocol tells about the server and its models."""

from __future__ import annotations

from typing import Any

from serving.bento import version
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel

PIXELS, IMAGE = "pixels", "image"
LOGITS, PROBABILITIES = "logits", "probabilities"


def server() -> dict[str, Any]:
    """The server's name, version and extensions."""
    return {"name": "halftone", "version": version(), "extensions": ["binary_tensor_data", "classification"]}


def model(served: ServedModel) -> dict[str, Any]:
    """A model's tensors; a request sends one of the two inputs. -1 is the number of pictures."""
    size, classes = served.manifest.input.size, len(served.manifest.labels)
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": f"halftone_{served.variant}",
        "inputs": [_tensor(PIXELS, "UINT8", size, size, 3), _tensor(IMAGE, "BYTES")],
        "outputs": [_tensor(LOGITS, "FP32", classes), _tensor(PROBABILITIES, "FP32", classes)],
    }


def index(models: Registry, *, only_ready: bool) -> list[dict[str, str]]:
    """The models that there are, with their state in Triton's words."""
    loaded = {
        each.name: {"name": each.name, "version": each.version, "state": "READY", "reason": ""} for each in models.all()
    }
    if only_ready:
        return list(loaded.values())
    return [loaded.get(name, {"name": name, "state": "LOADING", "reason": "being loaded"}) for name in models.names]


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1, *shape]}

"""Metadata of the server and its models in the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving.bento import version
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel
from serving.telemetry.inference_totals import Duration, Totals

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


def config(model: ServedModel, most: int) -> dict[str, Any]:
    """Return a model's configuration in Triton's terms, whose dimensions leave out the number of images.

    Args:
        model: the model.
        most: images in one request.
    """
    size, classes = model.manifest.input.size, len(model.manifest.labels)
    return {
        "name": model.name,
        "platform": f"halftone_{model.variant}",
        "backend": "halftone",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": most,
        # Optional, as a request sends one of the two.
        "input": [
            _configured(PIXELS, "TYPE_UINT8", size, size, 3) | {"format": "FORMAT_NHWC", "optional": True},
            _configured(IMAGE, "TYPE_STRING", 1) | {"format": "FORMAT_NONE", "optional": True},
        ],
        "output": [_configured(name, "TYPE_FP32", classes) for name in (LOGITS, PROBABILITIES)],
        "dynamic_batching": {},
        "model_transaction_policy": {"decoupled": False},
    }


def statistics(models: Iterable[ServedModel]) -> dict[str, Any]:
    """Return what the models have done in this process since they were loaded, in Triton's terms."""
    return {"model_stats": [_statistics(model, model.totals.read()) for model in models]}


def _statistics(model: ServedModel, totals: Totals) -> dict[str, Any]:
    none = _duration(Duration())
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": round(totals.last * 1000),
        "inference_count": totals.infer.count,
        "execution_count": sum(runs.count for runs in totals.runs.values()),
        "inference_stats": {
            "success": _duration(totals.success),
            "fail": _duration(totals.fail),
            "queue": _duration(totals.queue),
            "compute_input": _duration(totals.decode),
            "compute_infer": _duration(totals.infer),
            "compute_output": none,
            "cache_hit": none,
            "cache_miss": none,
        },
        "batch_stats": [
            {"batch_size": size, "compute_input": none, "compute_infer": _duration(runs), "compute_output": none}
            for size, runs in sorted(totals.runs.items())
        ],
        "memory_usage": [],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.nanoseconds}


def index(models: Registry, *, only_ready: bool) -> list[dict[str, str]]:
    """Return the models with their state in Triton's terms."""
    loaded = {
        each.name: {"name": each.name, "version": each.version, "state": "READY", "reason": ""} for each in models.all()
    }
    if only_ready:
        return list(loaded.values())
    return [loaded.get(name, {"name": name, "state": "LOADING", "reason": "being loaded"}) for name in models.names]


def _configured(name: str, datatype: str, *dims: int) -> dict[str, Any]:
    return {"name": name, "data_type": datatype, "dims": [*dims]}


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1, *shape]}

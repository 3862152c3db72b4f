"""What the service says about its models."""

from __future__ import annotations

from typing import Any

from serving.lifecycle.served_model import ServedModel


def head(model: ServedModel) -> dict[str, Any]:
    """What every answer says about the model that made it."""
    return {"model": model.name, "version": model.version, "variant": model.variant}


def description(model: ServedModel) -> dict[str, Any]:
    """Everything that a client may want to know: its proof, the input it expects and its labels."""
    manifest, record = model.manifest, model.record
    return {
        "name": model.name,
        "version": model.version,
        "variant": model.variant,
        "architecture": manifest.architecture,
        "trained": manifest.trained,
        "source": manifest.source,
        "license": manifest.license,
        "parity": {
            "verdict": record.verdict,
            "date": record.date,
            "runtime": record.runtime,
            "reference": record.reference,
            "data": record.data,
            "figures": record.figures,
        },
        "input": manifest.input.to_dict(),
        "labels": list(manifest.labels),
    }

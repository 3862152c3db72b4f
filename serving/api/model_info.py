"""Descriptions of the served models for responses."""

from __future__ import annotations

from typing import Any

from serving.lifecycle.served_model import ServedModel


def identity(model: ServedModel) -> dict[str, Any]:
    """Return the members of every response that identify the model."""
    return {"model": model.name, "version": model.version, "variant": model.variant}


def loaded(model: ServedModel) -> dict[str, Any]:
    """Return what administrators learn of a model in memory."""
    return {
        "name": model.name,
        "version": model.version,
        "variant": model.variant,
        "bundle": model.bundle,
        "loaded_at": model.loaded_at.isoformat(timespec="seconds"),
    }


def description(model: ServedModel) -> dict[str, Any]:
    """Return everything about a model for clients, with its parity record, input and labels."""
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
            "notes": record.notes,
            "host": record.host,
        },
        "promises": model.promises.description() if model.promises else None,
        "input": manifest.input.to_dict(),
        "labels": list(manifest.labels),
    }

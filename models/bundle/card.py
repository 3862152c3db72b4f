"""Model card: the bundle's README.md in the Hugging Face format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.bundle.accuracy import best_known
from models.bundle.manifest import Manifest
from models.spec import Architecture

CARD = "README.md"

_CARD = """---
pipeline_tag: image-classification
library_name: timm
license: {license}
base_model:{base_models}
tags:
- image-classification
- halftone
---

# {name}

{family} `{architecture}` ({timm_name}), {parameters:.1f} M parameters, {macs:.2f} GMACs an image, {classes} classes.

- Weights: {source}.
{members}- Input: RGB, {size} x {size} pixels, {interpolation} resize of the short side to {resize}, centre crop.
{accuracy}- Version: `{version}`.
{warning}{proofs}
{use}"""

_USE = """Use it: `HALFTONE_MODEL={name} bentoml serve`, then `curl -F image=@photo.jpg http://127.0.0.1:3000/classify`.
The exported graphs take uint8 pixels and normalise inside; their parity records are in `parity/`.
"""

_PROOFS = "\n## Proofs: each variant beside the FP32 network\n\n"

_MEMBERS = "- The answer is the mean of the calibrated probabilities of {names}.\n"

_UNTRAINED = "- **Untrained**: the weights are random and the predictions mean nothing; for latency studies only.\n"


def _accuracy(metrics: dict[str, Any]) -> str:
    """Return the line of the accuracy that flatters least; empty for other weights."""
    known = best_known(metrics)
    if known is None or known.interval is None:
        return ""
    low, high = known.interval
    return f"- Accuracy: {known.value:.2%} (95 % interval {low:.1%} to {high:.1%}) on {known.pictures}, {known.role}.\n"


def _members(manifest: Manifest) -> str:
    """Return the line about the members of an ensemble; empty for a single network."""
    names = [
        f"`{member.name}` ({member.architecture}, {member.input.size} px, version `{member.version}`)"
        for member in manifest.members
    ]
    return _MEMBERS.format(names=" and ".join([", ".join(names[:-1]), names[-1]])) if names else ""


def _base_models(network: Architecture) -> str:
    names = network.timm_name.split(", ")
    return f" timm/{names[0]}" if len(names) == 1 else "".join(f"\n- timm/{name}" for name in dict.fromkeys(names))


def model_card(manifest: Manifest, network: Architecture, use: str | None = None, proofs: Sequence[str] = ()) -> bytes:
    """Return the card as UTF-8 Markdown with YAML front matter (https://huggingface.co/docs/hub/model-cards).

    Args:
        manifest: of the bundle.
        network: its architecture.
        use: closing paragraph with instructions for use; by default those for a bundle.
        proofs: a line for each variant that was proved.
    """
    return _CARD.format(
        license=manifest.license,
        base_models=_base_models(network),
        timm_name=network.timm_name,
        members=_members(manifest),
        name=manifest.name,
        family=network.family,
        architecture=network.name,
        parameters=network.parameters / 1e6,
        macs=network.macs / 1e9,
        classes=len(manifest.labels),
        source=manifest.source,
        size=manifest.input.size,
        interpolation=manifest.input.interpolation,
        resize=manifest.input.resize_to,
        accuracy=_accuracy(manifest.training.get("metrics", {})),
        version=manifest.version,
        warning="" if manifest.trained else _UNTRAINED,
        proofs=_PROOFS + "".join(f"- {line}\n" for line in proofs) if proofs else "",
        use=_USE.format(name=manifest.name) if use is None else use,
    ).encode()

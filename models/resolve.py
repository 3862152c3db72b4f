"""What `--model NAME` means where a bundle may be made: the one of that name, else the catalogue's architecture."""

from __future__ import annotations

from models.bundle.bundle import Bundle
from models.bundle.store import has_bundle, open_bundle
from models.catalog import architecture
from models.common.errors import HalftoneError


def open_or_create(model: str, *, weights: str | None) -> Bundle:
    """The bundle `artifacts/MODEL`; where there is none, a new one from the catalogue's architecture of that name.

    Args:
        model: name of a bundle, or of an architecture of the catalogue.
        weights: `pretrained` (also for None), `random`, or a `.safetensors` file; only for a new bundle.

    Raises:
        HalftoneError: neither a bundle nor an architecture, the weights can't be had, or weights are named for a
            bundle that has its own.
    """
    if not has_bundle(model):
        network = architecture(model)
        # Imported here, as it takes seconds: neither a bundle that is there nor a name that nothing has needs PyTorch.
        from models.checkpoint import create

        return create(network, weights or "pretrained")
    bundle = open_bundle(model)
    if weights is not None:
        raise HalftoneError(
            f"{bundle.folder} has weights already ({bundle.manifest.source}): leave --weights out, or remove the "
            "folder to start it anew"
        )
    return bundle

"""Resolve `--model NAME` for commands that may create a bundle: the bundle NAME, or a catalogue architecture."""

from __future__ import annotations

from pathlib import Path

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.store import bundle_folder, has_bundle, open_bundle
from models.catalog import architecture
from models.common.errors import HalftoneError
from models.common.files import check_writable
from models.dataset import check_folder, unseen_images
from models.spec import NAMED_WEIGHTS


def open_or_create(model: str, *, weights: str | None, data: Path | None = None) -> Bundle:
    """Open the bundle `artifacts/MODEL`, or create it from the catalogue architecture of that name.

    Args:
        model: name of a bundle, or of an architecture of the catalogue.
        weights: for a new bundle only: `pretrained` (also for None), `random`, or a `.safetensors` file.
        data: folder of labelled images that the caller will use: refused before minutes of work.

    Raises:
        HalftoneError: `model` is neither a bundle nor an architecture, the weights are not available, weights are
            given for a bundle that has others, or `data` can't be used for it.
    """
    if data is not None:
        check_folder(data)
    bundle = _open_or_create(model, weights)
    if data is not None:
        unseen_images(data, bundle)
    return bundle


def _open_or_create(model: str, weights: str | None) -> Bundle:
    if not has_bundle(model):
        network = architecture(model)
        check_writable(bundle_folder(model), "the bundle")
        # Imported here, as PyTorch takes seconds: neither an existing bundle nor an unknown name needs it.
        from models.checkpoint import create

        return create(network, weights or "pretrained")
    bundle = open_bundle(model)
    # The same command again, after a kill for example, continues.
    if weights is not None and not (weights in NAMED_WEIGHTS and _made_with(bundle, weights)):
        raise HalftoneError(
            f"{bundle.folder} already has weights ({bundle.manifest.source}): omit --weights, or remove the folder to "
            "create the bundle again"
        )
    return bundle


def _made_with(bundle: Bundle, weights: str) -> bool:
    record = bundle.manifest.files.get(WEIGHTS)
    return record is not None and record.made_by.endswith(f" --weights {weights}`")

"""Write a bundle's checkpoint to a folder in Hugging Face layout, for `timm.create_model("local-dir:FOLDER")`."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from timm.models._hub import save_config_for_hf

from export.exchange.hf_layout import CONFIG, SECTION, WEIGHTS_FILE, Section
from export.exchange.staging import new_folder
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.card import CARD, model_card
from models.bundle.manifest import Manifest
from models.catalog import network_of
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.common.files import write_atomic

_USE = """Use it with timm, from this folder or after uploading it to a hub:

```python
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

or with Halftone: `python -m export.pull --from FOLDER --name {name}`.
"""


def push_folder(bundle: Bundle, folder: Path) -> None:
    """Write the bundle's checkpoint, configuration and model card into a new folder, or nothing.

    Before the folder appears, timm loads it and must compute exactly the logits of the bundle.

    Args:
        bundle: the opened bundle.
        folder: must be missing or empty.

    Raises:
        HalftoneError: the bundle is an ensemble, the folder is not empty, or timm does not rebuild the same network
            from it.
        BundleError: the weights are missing or differ from the manifest.
    """
    if bundle.manifest.members:
        names = ", ".join(member.name for member in bundle.manifest.members)
        raise HalftoneError(
            f"{bundle.name} is an ensemble, and timm's format holds one network: push its members ({names}), or the "
            "whole bundle with --to bentoml"
        )
    manifest, weights, module = bundle.manifest, bundle.read(WEIGHTS), load_module(bundle)
    with new_folder(folder) as stage:
        write_atomic(stage / WEIGHTS_FILE, weights)
        _write_config(stage / CONFIG, manifest, module, Section.of(manifest, weights))
        card = model_card(manifest, network_of(manifest), _USE.format(name=manifest.name))
        write_atomic(stage / CARD, card)
        _check_round_trip(stage, module, manifest.input.size)


def _write_config(path: Path, manifest: Manifest, module: torch.nn.Module, section: Section) -> None:
    spec = manifest.input
    save_config_for_hf(
        module,
        str(path),
        model_config={
            "label_names": list(manifest.labels),
            "pretrained_cfg": {"license": manifest.license},
            SECTION: section.to_dict(),
        },
        data_config={
            "input_size": (3, spec.size, spec.size),
            "interpolation": spec.interpolation,
            "crop_pct": spec.crop_fraction,
            "crop_mode": "center",
            "mean": spec.mean,
            "std": spec.std,
        },
    )


def _check_round_trip(folder: Path, module: torch.nn.Module, size: int) -> None:
    rebuilt = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    planes = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        same = torch.equal(rebuilt(planes), module(planes))
    if not same:
        raise HalftoneError(
            f"timm {timm.__version__} rebuilds another network from the folder than the bundle holds: nothing was "
            "written; install the versions of constraints.txt and push again"
        )

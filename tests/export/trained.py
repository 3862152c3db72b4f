"""Small bundles with all fields and files of a trained one."""

from pathlib import Path

import torch

from models.bundle.bundle import Bundle
from models.bundle.card import CARD, model_card
from models.bundle.manifest import Manifest
from models.catalog import architecture
from models.checkpoint import build, fit_input_size, save_weights
from models.spec import InputSpec

LABELS = ("straße", "cat", "猫", 'a "quoted" dog', "T-shirt/top")


def trained_bundle(folder: Path, network: str = "mobilenetv3_small", size: int = 64, *, trained: bool = True) -> Bundle:
    """Return a bundle like a trained one, with random weights whose logits differ by several units if `trained`."""
    torch.manual_seed(3)
    entry = architecture(network)
    manifest = Manifest(
        name=folder.name,
        architecture=network,
        input=InputSpec(
            size=size, interpolation="bilinear", crop_fraction=0.9, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
        ),
        labels=LABELS,
        label_ids=tuple(f"n{index}" for index in range(len(LABELS))),
        trained=trained,
        source="trained on a test",
        license="bsd-3-clause",
        training={"config": {"epochs": 3, "mixup": None}, "metrics": {"accuracy": 0.9123456789012345}},
        temperature=1.37,
    )
    module = build(entry, classes=len(LABELS))
    fit_input_size(module, entry, size)
    if trained:
        _spread(module, entry.head, size)
    with Bundle.creating(folder, manifest) as bundle:
        save_weights(bundle, module, made_by="`python -m training`")
        bundle.write(CARD, model_card(bundle.manifest, entry), made_by="`python -m training`")
    return bundle


def _spread(module: torch.nn.Module, head: str, size: int) -> None:
    """Scale the head so that the logits of noise have a standard deviation of three."""
    with torch.no_grad():
        logits = module(torch.randn(4, 3, size, size))
        module.get_submodule(head).weight.mul_(3 / logits.std())  # type: ignore[operator]

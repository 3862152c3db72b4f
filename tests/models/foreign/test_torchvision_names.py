"""Test that weights with torchvision's names give in timm's network what they give in torchvision's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from models.catalog import architecture
from models.common.errors import HalftoneError
from models.spec import IMAGENET_MEAN, TORCHVISION_INPUT
from models.weights import load_checkpoint, start

SIZE = 64


def tiny_transformer(num_classes: int = 1000) -> nn.Module:
    """torchvision's ViT with the dimensions of ViT-Ti/16, which it has no function for."""
    return torchvision.models.VisionTransformer(
        image_size=SIZE, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=num_classes
    )


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    "mobilenetv2": torchvision.models.mobilenet_v2,
    "mobilenetv3_small": torchvision.models.mobilenet_v3_small,
    "mobilenetv3_large": torchvision.models.mobilenet_v3_large,
    "efficientnet_b0_torch": torchvision.models.efficientnet_b0,
    "vit_ti16": tiny_transformer,
}


def as_trained(name: str, classes: int) -> nn.Module:
    """Return torchvision's network with random weights and norms that are not the identity."""
    torch.manual_seed(0)
    module = NETWORKS[name](num_classes=classes)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            # Some channels hardly vary, so that the norms' epsilon matters.
            nn.init.uniform_(layer.running_var, 0.001, 1.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
        if isinstance(layer, nn.LayerNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.05)
    return module.eval()


@torch.no_grad()
def differ(ours: nn.Module, theirs: nn.Module) -> float:
    """Return the largest difference of the logits as a share of their spread."""
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    expected = theirs(images)
    return float((ours(images) - expected).abs().max() / expected.std())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_outputs_are_torchvisions(name: str, tmp_path: Path) -> None:
    theirs = as_trained(name, 7)
    torch.save({"epoch": 3, "model_state_dict": theirs.state_dict()}, tmp_path / "best_model.pth")

    loaded = load_checkpoint(architecture(name), tmp_path / "best_model.pth", size=SIZE)

    assert differ(loaded.module, theirs) < 1e-3
    if not name.startswith("resnet"):
        # With these names, the normalisation is torchvision's too.
        assert (loaded.input.mean, loaded.input.interpolation) == (IMAGENET_MEAN, TORCHVISION_INPUT.interpolation)


def test_a_file_without_an_order_is_sorted(tmp_path: Path) -> None:
    theirs = as_trained("mobilenetv2", 7)
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")

    loaded = load_checkpoint(architecture("mobilenetv2"), tmp_path / "weights.safetensors", size=SIZE)

    assert differ(loaded.module, theirs) < 1e-3


def test_a_head_behind_dropout_is_kept(tmp_path: Path) -> None:
    theirs = as_trained("resnet18", 7)
    theirs.fc = nn.Sequential(nn.Dropout(0.3), nn.Linear(512, 5))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")

    loaded = load_checkpoint(architecture("resnet18"), tmp_path / "weights.pth", size=SIZE)

    assert differ(loaded.module, theirs.eval()) < 1e-3


def test_a_head_of_several_layers_is_replaced_in_training_and_refused_elsewhere(tmp_path: Path) -> None:
    theirs, network = as_trained("resnet18", 7), architecture("resnet18")
    theirs.fc = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 5))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")

    module = start(network, str(tmp_path / "weights.pth"), classes=4, size=SIZE, seed=0).module

    assert torch.equal(module.state_dict()["layer4.1.conv2.weight"], theirs.state_dict()["layer4.1.conv2.weight"])
    assert module.get_submodule("fc").out_features == 4
    with pytest.raises(HalftoneError, match=r"has no head of resnet18 with one layer"):
        load_checkpoint(network, tmp_path / "weights.pth", size=None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_b0", r"pads the images of each layer evenly.*: use --model efficientnet_b0_torch"),
        ("efficientnet_b7", r"no architecture of the catalogue pads as they do"),
        ("efficientnet_b2_torch", r"311 tensors, but efficientnet_b2_torch has"),
        ("mobilenetv3_large", r"tensors, but mobilenetv3_large has"),
    ],
)
def test_another_network_of_torchvision_is_named(name: str, message: str, tmp_path: Path) -> None:
    torch.save(as_trained("efficientnet_b0_torch", 7).state_dict(), tmp_path / "weights.pth")

    with pytest.raises(HalftoneError, match=message):
        load_checkpoint(architecture(name), tmp_path / "weights.pth", size=None)

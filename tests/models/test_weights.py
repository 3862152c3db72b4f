"""Test the initial network of a training run."""

import argparse
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from models.catalog import architecture
from models.common.errors import HalftoneError
from models.weights import start


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small", "efficientnet_b0", "vit_ti16"])
def test_random_weights_start_with_nearly_equal_probabilities(name):
    network = architecture(name)
    module = start(network, "random", classes=4, size=32, seed=0).module.train()
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = float(cross_entropy(module(images), torch.arange(16) % 4))
    assert math.log(4) - 0.2 < loss < math.log(4) + 0.5


def test_a_start_is_a_function_of_its_seed():
    network = architecture("mobilenetv3_small")
    first, again, other = (
        start(network, "random", classes=4, size=32, seed=seed).module.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_a_transformers_file_of_another_size_fits_a_run_of_that_size_only(tmp_path):
    network = architecture("vit_ti16")
    trained = start(network, "random", classes=4, size=96, seed=0).module
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    again = start(network, str(tmp_path / "weights.safetensors"), classes=4, size=96, seed=1).module
    assert torch.equal(again.state_dict()["pos_embed"], trained.state_dict()["pos_embed"])
    smaller = start(network, "random", classes=4, size=32, seed=0).module
    save_file(smaller.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(HalftoneError, match="pos_embed"):
        start(network, str(tmp_path / "weights.safetensors"), classes=4, size=96, seed=1)


class Opaque:
    """What weights_only refuses to load."""


def test_checkpoints_of_torch_save_are_unwrapped(tmp_path):
    network = architecture("mobilenetv3_small")
    trained = start(network, "random", classes=4, size=32, seed=0).module.state_dict()
    other = {name: torch.zeros_like(value) for name, value in trained.items()}
    forms = {
        "plain.pth": trained,
        "lightning.ckpt": {"state_dict": {f"model.{name}": value for name, value in trained.items()}, "epoch": 3},
        "parallel.pt": {"model": {f"module.{name}": value for name, value in trained.items()}, "step": 1},
        "named.pth": {"model_state_dict": trained, "optimizer": {"lr": 0.1}},
        "timm.pth.tar": {"state_dict": other, "state_dict_ema": trained, "args": argparse.Namespace(lr=0.1)},
    }
    for name, form in forms.items():
        torch.save(form, tmp_path / name)
        module = start(network, str(tmp_path / name), classes=4, size=32, seed=1).module
        assert all(torch.equal(value, trained[key]) for key, value in module.state_dict().items()), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds no tensors by name"),
        (Opaque(), r"can't be read without running code.*torch\.save\(model\.state_dict\(\)"),
        ({"features.weight": torch.zeros(1)}, "has no weights of mobilenetv3_small"),
        (
            {"state_dict": {"classifier.bias": torch.zeros(4), "stem.weight": torch.zeros(1)}},
            r"do not fit the network, which has \d+ tensors: \d+ are missing.* 1 are unknown, such as stem",
        ),
    ],
)
def test_checkpoints_that_can_not_be_used(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(HalftoneError, match=message):
        start(architecture("mobilenetv3_small"), str(tmp_path / "weights.pth"), classes=4, size=32, seed=0)


@pytest.mark.parametrize("content", [b"PK damaged", b"\x80 damaged", b"junk", b""])
def test_files_that_are_no_weights(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(HalftoneError, match=r"weights\.pth (can't be read|is neither)"):
        start(architecture("mobilenetv3_small"), str(tmp_path / "weights.pth"), classes=4, size=32, seed=0)

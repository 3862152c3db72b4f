"""Test the initial network of a training run."""

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

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.catalog import architecture
from models.start import start


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small", "efficientnet_b0", "vit_ti16"])
def test_random_weights_begin_without_an_opinion(name):
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

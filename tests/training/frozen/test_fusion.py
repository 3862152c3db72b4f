"""Batch norms merged into convolutions: the same answers, or the network as it is."""

import pytest
import timm
import torch

from training.frozen.fusion import fused


def trained(name: str) -> torch.nn.Module:
    """Make a network whose batch norms don't look like new ones."""
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=5).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean, std=0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.1)
    return module


def norms(module: torch.nn.Module) -> int:
    return sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    # densenet's other norms read what several layers wrote.
    [("resnet18", 0), ("tf_efficientnet_lite0", 0), ("mobilenetv3_small_100", 0), ("densenet121", 62)],
)
def test_a_network_answers_the_same_with_fewer_norms(name: str, left: int) -> None:
    module, images = trained(name), torch.rand(2, 3, 64, 64)
    before = norms(module)

    merged = fused(module, images[:1])

    assert (before > norms(merged), norms(merged)) == (True, left)
    with torch.no_grad():
        torch.testing.assert_close(merged(images), module(images), rtol=1e-3, atol=1e-4)
    assert norms(module) == before


class Twice(torch.nn.Module):
    """Network that reads a convolution's output beside the norm, as maxvit does."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        read = self.convolution(images)
        return read + self.norm(read)


class Shared(torch.nn.Module):
    """Network with one convolution before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 3, 1)
        self.norms = torch.nn.ModuleList([torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norms[1](self.convolution(self.norms[0](self.convolution(images))))


class Curious(torch.nn.Module):
    """Network that reads an attribute of its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(images)) + self.norm.bias[:, None, None]


def without_statistics() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3, track_running_stats=False))


@pytest.mark.parametrize("made", [Twice, Shared, Curious, without_statistics, lambda: torch.nn.Conv2d(3, 3, 1)])
def test_a_network_that_can_t_be_merged_stays_as_it_is(made) -> None:
    torch.manual_seed(0)
    module = made().eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d) and layer.running_var is not None:
            torch.nn.init.uniform_(layer.running_var, 0.2, 0.5)

    assert fused(module, torch.rand(1, 3, 8, 8)) is module

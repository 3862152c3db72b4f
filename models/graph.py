"""The graph contract: `pixels: uint8 [N, S, S, 3]` RGB in, `logits: float32 [N, classes]` out, normalised inside."""

from __future__ import annotations

import torch

from models.spec import InputSpec


class Normalise(torch.nn.Module):
    """Pixels as `models.preprocess` makes them to the planes that a network was trained on.

    Args:
        spec: gives mean and standard deviation.
    """

    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1))
        self.register_buffer("bias", (-mean / std).reshape(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (N, S, S, 3) to float32 (N, 3, S, S)."""
        # Cast before the transpose: TensorRT takes uint8 into nothing but a cast.
        planes = pixels.to(torch.float32).permute(0, 3, 1, 2)
        return planes * self.scale + self.bias


class ServingGraph(torch.nn.Module):
    """A classifier as it is exported: it takes the pixels that `models.preprocess` makes.

    Normalisation always runs in FP32, also when the network itself is FP16, because pixel / 255 loses digits there.

    Args:
        network: takes (N, 3, S, S) of its own dtype, returns (N, classes).
        spec: gives mean and standard deviation.
    """

    def __init__(self, network: torch.nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.network = network
        self.dtype = next(network.parameters()).dtype
        self.normalise = Normalise(spec)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (N, S, S, 3) to float32 (N, classes)."""
        logits: torch.Tensor = self.network(self.normalise(pixels).to(self.dtype))
        return logits.to(torch.float32)

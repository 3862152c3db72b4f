"""The graph contract: `pixels: uint8 [N, S, S, 3]` RGB in, `logits: float32 [N, classes]` out.

Normalisation is inside the graph.
"""

from __future__ import annotations

import torch

from models.spec import InputSpec


class Normalise(torch.nn.Module):
    """Normalise the pixels from `models.preprocess` to the planes that a network was trained on.

    Args:
        spec: mean and standard deviation.
    """

    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1))
        self.register_buffer("bias", (-mean / std).reshape(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Convert uint8 (N, S, S, 3) to float32 (N, 3, S, S)."""
        # Cast before the transpose: TensorRT accepts uint8 only as the input of a cast.
        planes = pixels.to(torch.float32).permute(0, 3, 1, 2)
        return planes * self.scale + self.bias


class ServingGraph(torch.nn.Module):
    """The exported form of a classifier: it takes the pixels that `models.preprocess` produces.

    Normalisation runs in FP32 even if the network is FP16, because pixel / 255 loses digits in FP16.

    Args:
        network: takes (N, 3, S, S) of its own dtype, returns (N, classes).
        spec: mean and standard deviation.
    """

    def __init__(self, network: torch.nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.network = network
        self.dtype = next(network.parameters()).dtype
        self.normalise = Normalise(spec)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Classify uint8 (N, S, S, 3) to float32 (N, classes)."""
        logits: torch.Tensor = self.network(self.normalise(pixels).to(self.dtype))
        return logits.to(torch.float32)

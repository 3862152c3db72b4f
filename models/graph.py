"""The graph contract: `pixels: uint8 [N, S, S, 3]` RGB in, `logits: float32 [N, classes]` out.

Normalisation is inside the graph. So is what an ensemble's members see: each gets its part of the ensemble's image, at
its own size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from models.bundle.manifest import Member
from models.preprocess.resample import resampling_weights
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
        # An ensemble resamples and normalises before its members convert.
        self.dtype = torch.float32 if isinstance(network, Ensemble) else next(network.parameters()).dtype
        self.normalise = Normalise(spec)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Classify uint8 (N, S, S, 3) to float32 (N, classes)."""
        logits: torch.Tensor = self.network(self.normalise(pixels).to(self.dtype))
        return logits.to(torch.float32)


class Ensemble(torch.nn.Module):
    """Networks whose answer is the mean of their calibrated probabilities.

    Args:
        networks: take (N, 3, S, S) of their own size and dtype, return (N, classes).
        members: their descriptions, in the same order.
        spec: the ensemble's input, with mean 0 and standard deviation 1.
    """

    def __init__(self, networks: Sequence[torch.nn.Module], members: Sequence[Member], spec: InputSpec) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(networks)
        self.views = [_View(spec, member.input) for member in members]
        self.temperatures = [float(member.temperature) for member in members]
        self.orders = [list(member.order) for member in members]

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Classify float32 (N, 3, S, S) in 0..1; the softmax of the result is the mean of the probabilities."""
        logits = [self._logits(index, planes) for index in range(len(self.members))]
        scaled = [each / temperature for each, temperature in zip(logits, self.temperatures, strict=True)]
        together = torch.stack([torch.log_softmax(each, dim=1) for each in scaled])
        likelihood = torch.logsumexp(together, dim=0) - math.log(len(logits))
        # Log-probabilities have no energy, by which serving notices unfamiliar images: they get the members' mean.
        energy = torch.stack([torch.logsumexp(each, dim=1, keepdim=True) for each in logits]).mean(dim=0)
        return likelihood + energy

    def _logits(self, index: int, planes: torch.Tensor) -> torch.Tensor:
        network, order = self.members[index], self.orders[index]
        view = self.views[index](planes).contiguous()
        logits: torch.Tensor = network(view.to(next(network.parameters()).dtype)).to(torch.float32)
        return logits[:, torch.tensor(order, device=logits.device)] if order else logits


class _View:
    """What a member sees of the ensemble's image, normalised.

    No module, so that its values stay FP32 when the networks become FP16.
    """

    def __init__(self, spec: InputSpec, own: InputSpec) -> None:
        mean, std = torch.tensor(own.mean), torch.tensor(own.std)
        self.scale, self.bias = (1 / std).reshape(1, 3, 1, 1), (-mean / std).reshape(1, 3, 1, 1)
        left, right = spec.window
        span = tuple((edge - left) / (right - left) * spec.size for edge in own.window)
        self.weights: torch.Tensor | None = None
        if own.size != spec.size or own.window != spec.window:
            self.weights = torch.tensor(resampling_weights(spec.size, own.size, (span[0], span[1]), own.interpolation))

    def __call__(self, planes: torch.Tensor) -> torch.Tensor:
        """Return float32 (N, 3, s, s) of float32 (N, 3, S, S) in 0..1."""
        device = planes.device
        if self.weights is not None:
            weights = self.weights.to(device)
            # As on 8 bits, the filter's overshoots are cut off.
            planes = torch.matmul(torch.matmul(weights, planes), weights.T).clamp(0, 1)
        return planes * self.scale.to(device) + self.bias.to(device)

"""Number format and memory layout: mixed precision if it is faster, channels-last for convolutions.

Measured on a 2-core AMD EPYC with avx512_bf16 (no AMX), torch 2.14, training images/s FP32 to bf16, channels-last:
resnet18 at 224 px 17 to 33, vit_ti16 at 224 px 19 to 27, but efficientnet_lite0 at 64 px 222 to 168 and at 224 px 17 to
9, because depthwise convolutions have no bf16 gradient kernels; forward passes alone gain 1.4 to 1.9 times everywhere.
Channels-last alone doubles FP32 efficientnet_lite0 (105 to 222).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.common.errors import HalftoneError
from training.config.recipe import Amp


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Device, number format and memory layout of a network."""

    device: torch.device
    dtype: torch.dtype
    """Of the arithmetic under autocast; float32 without autocast."""

    memory_format: torch.memory_format

    def autocast(self) -> torch.autocast:
        """Return the context for forward passes and losses."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler against underflow, enabled only for fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """Move the module to the device, in the memory format."""
        return module.to(self.device).to(memory_format=self.memory_format)


def precision(amp: Amp, module: torch.nn.Module, device: torch.device, *, backbone_trained: bool) -> Precision:
    """Return the requested precision, with `auto` resolved for this device and network.

    Raises:
        HalftoneError: fp16 on a CPU.
    """
    if amp == "fp16" and device.type == "cpu":
        raise HalftoneError("--amp fp16 needs a GPU: use --amp bf16 or --amp off on a CPU")
    convolutions = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
    depthwise = any(layer.groups > 1 for layer in convolutions)
    layout = torch.channels_last if len(convolutions) > 1 else torch.contiguous_format
    dtype = {
        "off": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "auto": _best_dtype(device, slow_gradients=depthwise and backbone_trained),
    }[amp]
    return Precision(device=device, dtype=dtype, memory_format=layout)


def _best_dtype(device: torch.device, *, slow_gradients: bool) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() and not slow_gradients else torch.float32

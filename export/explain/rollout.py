"""Attention to each patch from the token that the classifier reads: rolled out through all blocks, or of single heads.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020 (arXiv:2005.00928), section 3. It depends
on the attention, not on the class: the map is the same for every class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from timm.models import VisionTransformer
from timm.utils.attention_extract import AttentionExtract

from models.common.errors import HalftoneError


def rollout(attentions: Iterable[torch.Tensor]) -> torch.Tensor:
    """Multiply the attention of the blocks, each averaged over its heads and mixed half and half with the identity.

    Args:
        attentions: float (N, heads, T, T) for every block from the first to the last; rows sum to one.

    Returns:
        float (N, T, T): row i is the share that each input token has in output token i; rows sum to one.
    """
    total: torch.Tensor | None = None
    for attention in attentions:
        # The identity is the residual connection around the attention.
        mixed = (attention.mean(dim=1) + torch.eye(attention.shape[-1], device=attention.device)) / 2
        total = mixed if total is None else mixed @ total
    if total is None:
        raise ValueError("there is no attention to roll out")
    return total


class AttentionRollout:
    """The rollout maps of one Vision Transformer.

    Args:
        module: the network, in evaluation mode. Its attention is switched to the implementation that keeps the weights,
            which timm's fused attention never has in memory. Other networks of the process are not changed.
    """

    def __init__(self, module: VisionTransformer) -> None:
        for block in module.blocks:
            attention: Any = block.attn
            attention.fused_attn = False
        self._module = module
        self._extract = AttentionExtract(module, method="fx")

    def __call__(self, planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the share of each patch in the head's input.

        Args:
            planes: float32 (N, 3, S, S), normalised.

        Returns:
            Maps float32 (N, H, W), zero or more, on the grid of the patches; logits float32 (N, classes).

        Raises:
            HalftoneError: the patches do not lie on a square.
        """
        with torch.no_grad():
            shares = rollout(self._extract(planes).values())
            logits = self._module(planes)
        return self._maps(shares), logits

    def heads(self, planes: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the attention of every head of one layer, from the token that the classifier reads to each patch.

        Args:
            planes: float32 (1, 3, S, S), normalised.
            layer: number of the block, from 1 at the input.

        Returns:
            Maps float32 (heads, H, W) in 0..1, on the grid of the patches; logits float32 (1, classes).

        Raises:
            HalftoneError: there is no such layer, or the patches do not lie on a square.
        """
        with torch.no_grad():
            attentions = list(self._extract(planes).values())
            logits = self._module(planes)
        if not 1 <= layer <= len(attentions):
            raise HalftoneError(f"--layer must lie between 1 and {len(attentions)} for this network, not {layer}")
        return self._maps(attentions[layer - 1][0]), logits

    def _maps(self, shares: torch.Tensor) -> torch.Tensor:
        """Return (N, H, W), the patches' shares in the classifier's input, of (N, T, T), the tokens' in each token."""
        prefix = self._module.num_prefix_tokens
        # Without a class token the head sees the mean of the patches.
        deciding = shares[:, 0] if self._module.global_pool == "token" else shares[:, prefix:].mean(dim=1)
        patches = deciding[:, prefix:]
        side = math.isqrt(patches.shape[1])
        if side * side != patches.shape[1]:
            raise HalftoneError(
                f"{patches.shape[1]} patches do not lie on a square: explain a network with square input"
            )
        return patches.reshape(-1, side, side)

"""Pretrained weights of networks of timm from its model hub, or from the cache of an earlier download.

Needs timm. The hub is asked once whether it can be reached: its client would try every file six times, for a minute.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache

from models.common.errors import HalftoneError
from models.spec import Architecture

FILE = "model.safetensors"
SECONDS = 5.0
"""Limit on the wait for the hub's first response."""


def published_classes(network: Architecture) -> int:
    """Return the number of classes of the published weights; 0 if they have no classifier."""
    config: Any = timm.get_pretrained_cfg(network.timm_name)
    return int(config.num_classes) if config else 0


def pretrained(network: Architecture) -> torch.nn.Module:
    """Return the network with its published weights and classes, FP32 on the CPU.

    Raises:
        HalftoneError: there are none; or they are not in the cache, and the hub can't be reached or does not give them.
    """
    config: Any = timm.get_pretrained_cfg(network.timm_name)
    if not config or not config.has_weights:
        raise HalftoneError(
            f"timm has no weights of {network.name}: train it with --weights random, or give a file with --weights "
            "FILE.safetensors"
        )
    cached = try_to_load_from_cache(config.hf_hub_id, FILE) if config.hf_hub_id else None
    options: dict[str, Any] = {"pretrained_cfg_overlay": {"file": cached}} if isinstance(cached, str) else {}
    try:
        if not options:
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
        module: torch.nn.Module = timm.create_model(network.timm_name, pretrained=True, **options)
    # The hub's client raises many unrelated types if it can't reach its server.
    except Exception as error:
        raise HalftoneError(
            f"the pretrained weights of {network.name} come from the model hub {constants.ENDPOINT}, which did not "
            f"give them ({type(error).__name__}): connect to it once, or name a mirror with HF_ENDPOINT, or give a "
            "file with --weights FILE.safetensors, or use --model efficientnet_lite0, _lite1 or _lite2, whose weights "
            "are installed, or --weights random, to train from scratch or to study latency"
        ) from None
    return module

"""Training on a real GPU: mixed precision, pinned memory, fused optimiser."""

import math
from dataclasses import replace

import pytest

from models.checkpoint import load_module
from tests.training.memory import crops
from tests.training.runs import TINY, config
from training.loop.resume import request_with
from training.loop.run import train

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("amp", ["auto", "fp16", "off"])
@pytest.mark.parametrize("model", ["resnet18", "mobilenetv3_small", "efficientnet_b0", "vit_ti16"])
def test_an_epoch_of_every_family(tmp_path, model, amp):
    settings = config(tmp_path / "photos", replace(TINY, epochs=1, amp=amp), model=model, workers=1)
    settings = replace(settings, running=replace(settings.running, device="cuda"))

    bundle = train(request_with(settings, crops()))

    assert math.isfinite(bundle.manifest.training["history"][-1]["val_loss"])
    assert all(bool(tensor.isfinite().all()) for tensor in load_module(bundle).state_dict().values())

import pytest
import torch

from models.catalog import architecture
from models.checkpoint import build
from models.common.errors import HalftoneError
from training.optim.precision import precision

CPU = torch.device("cpu")


def chosen(amp, name="resnet18", *, device=CPU, backbone_trained=True):
    return precision(amp, build(architecture(name), classes=2), device, backbone_trained=backbone_trained)


@pytest.fixture(params=[True, False], ids=["bf16 instructions", "none"])
def has_bf16(request, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    return request.param


def test_auto_on_a_cpu_chooses_bf16_if_it_is_faster(has_bf16):
    fast = torch.bfloat16 if has_bf16 else torch.float32
    assert chosen("auto", "resnet18").dtype == fast
    assert chosen("auto", "vit_ti16").dtype == fast
    assert chosen("auto", "mobilenetv3_small").dtype == torch.float32
    assert chosen("auto", "mobilenetv3_small", backbone_trained=False).dtype == fast


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_on_a_gpu(monkeypatch, has_bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
    assert chosen("auto", "mobilenetv3_small", device=torch.device("cuda")).dtype == dtype


def test_named_precisions():
    assert chosen("off").dtype == torch.float32
    assert chosen("bf16", "mobilenetv3_small").dtype == torch.bfloat16
    assert chosen("fp16", device=torch.device("cuda")).dtype == torch.float16


def test_fp16_needs_a_gpu():
    with pytest.raises(HalftoneError, match="--amp fp16 needs a GPU: use --amp bf16 or --amp off on a CPU"):
        chosen("fp16")


def test_convolutions_are_laid_out_channels_last_and_transformers_are_not():
    assert chosen("off").memory_format == torch.channels_last
    assert chosen("off", "vit_ti16").memory_format == torch.contiguous_format
    module = build(architecture("resnet18"), classes=2)
    placed = precision("off", module, CPU, backbone_trained=True).place(module)
    assert placed.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_autocast_computes_in_the_dtype_and_weights_stay_fp32():
    layer, values = torch.nn.Linear(4, 4), torch.randn(2, 4)
    with chosen("bf16").autocast():
        assert layer(values).dtype == torch.bfloat16
    with chosen("off").autocast():
        assert layer(values).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_only_fp16_scales_its_loss():
    assert not chosen("bf16").scaler().is_enabled()
    assert not chosen("off").scaler().is_enabled()

"""Swin Transformer: attention inside shifted windows, with a pyramid of resolutions like a CNN's.

Paper: "Swin Transformer" (Liu et al., 2021, arXiv:2103.14030). S and B were pretrained on ImageNet-22k; for T the
weights trained on ImageNet-1k alone are the more accurate ones.
"""

from __future__ import annotations

from models.spec import Architecture, InputSpec

TOP1_SOURCE = "timm results/results-imagenet.csv, commit 7479d451"


def _swin(name: str, *, timm_name: str, parameters: int, macs: int, top1: float, scenario: str) -> Architecture:
    """Describe a Swin with windows of 7 x 7: all sizes share the input and the module names."""
    return Architecture(
        name=name,
        family="swin",
        timm_name=timm_name,
        input=InputSpec(size=224, interpolation="bicubic", crop_fraction=0.9),
        stages=(("patch_embed", "layers.0"), ("layers.1",), ("layers.2",), ("layers.3", "norm")),
        head="head.fc",
        parameters=parameters,
        macs=macs,
        top1=top1,
        top1_source=TOP1_SOURCE,
        scenario=scenario,
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    _swin(
        "swin_t",
        timm_name="swin_tiny_patch4_window7_224.ms_in1k",
        parameters=28_288_354,
        macs=4_490_566_656,
        top1=81.388,
        scenario="detail at several scales at resnet50's cost",
    ),
    _swin(
        "swin_s",
        timm_name="swin_small_patch4_window7_224.ms_in22k_ft_in1k",
        parameters=49_606_258,
        macs=8_740_875_264,
        top1=83.330,
        scenario="detail at several scales, half of vit_b16's MACs",
    ),
    _swin(
        "swin_b",
        timm_name="swin_base_patch4_window7_224.ms_in22k_ft_in1k",
        parameters=87_768_224,
        macs=15_430_946_816,
        top1=85.270,
        scenario="fine detail at vit_b16's accuracy",
    ),
)

"""DeiT: the Vision Transformer, trained by recipes that need less data, less tuning or both.

Papers: "Training data-efficient image transformers" (Touvron et al., 2020, arXiv:2012.12877) for Ti/16; S/16 and B/16
carry the more accurate weights of "DeiT III" (Touvron et al., 2022, arXiv:2204.07118), ImageNet-22k, then fine-tuned
on ImageNet-1k. Each costs as much as the ViT of the same size.
"""

from __future__ import annotations

from models.architectures.vit import quarters
from models.spec import Architecture, InputSpec

TOP1_SOURCE = "timm results/results-imagenet.csv, commit 7479d451"

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="deit_ti16",
        family="deit",
        timm_name="deit_tiny_patch16_224.fb_in1k",
        input=InputSpec(size=224, interpolation="bicubic", crop_fraction=0.9),
        stages=quarters(12),
        head="head",
        parameters=5_717_416,
        macs=1_253_683_200,
        top1=72.196,
        top1_source=TOP1_SOURCE,
        scenario="a small transformer from ImageNet-1k alone",
    ),
    Architecture(
        name="deit_s16",
        family="deit",
        timm_name="deit3_small_patch16_224.fb_in22k_ft_in1k",
        input=InputSpec(size=224, interpolation="bicubic", crop_fraction=1.0),
        stages=quarters(12),
        head="head",
        parameters=22_059_496,
        macs=4_598_882_304,
        top1=83.082,
        top1_source=TOP1_SOURCE,
        scenario="more accurate than vit_s16 at the same cost",
    ),
    Architecture(
        name="deit_b16",
        family="deit",
        timm_name="deit3_base_patch16_224.fb_in22k_ft_in1k",
        input=InputSpec(size=224, interpolation="bicubic", crop_fraction=1.0),
        stages=quarters(12),
        head="head",
        parameters=86_585_320,
        macs=17_563_828_224,
        top1=85.728,
        top1_source=TOP1_SOURCE,
        scenario="more accurate than vit_b16 at the same cost",
    ),
)

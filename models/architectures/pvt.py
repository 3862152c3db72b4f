"""Pyramid Vision Transformer v2: linear-cost attention over a pyramid of resolutions, in six sizes.

Papers: "Pyramid Vision Transformer" (Wang et al., 2021, arXiv:2102.12122) and "PVT v2" (Wang et al., 2021,
arXiv:2106.13797). All weights come from ImageNet-1k alone.
"""

from __future__ import annotations

from models.spec import Architecture, InputSpec

TOP1_SOURCE = "timm results/results-imagenet.csv, commit 7479d451"


def _pvt_v2(name: str, *, parameters: int, macs: int, top1: float, scenario: str) -> Architecture:
    """Describe a PVT v2: all sizes share the input and the module names."""
    return Architecture(
        name=name,
        family="pvt",
        timm_name=f"{name}.in1k",
        input=InputSpec(size=224, interpolation="bicubic", crop_fraction=0.9),
        stages=(("patch_embed", "stages.0"), ("stages.1",), ("stages.2",), ("stages.3",)),
        head="head",
        parameters=parameters,
        macs=macs,
        top1=top1,
        top1_source=TOP1_SOURCE,
        scenario=scenario,
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    _pvt_v2(
        "pvt_v2_b0",
        parameters=3_666_760,
        macs=566_065_664,
        top1=70.656,
        scenario="the smallest transformer here: edge devices",
    ),
    _pvt_v2(
        "pvt_v2_b1",
        parameters=14_009_000,
        macs=2_108_355_584,
        top1=78.702,
        scenario="a light pyramid of features for small GPUs",
    ),
    _pvt_v2(
        "pvt_v2_b2",
        parameters=25_362_856,
        macs=4_026_734_592,
        top1=82.094,
        scenario="beats resnet50 at the same cost and size",
    ),
    _pvt_v2(
        "pvt_v2_b3",
        parameters=45_238_696,
        macs=6_897_303_552,
        top1=83.118,
        scenario="beats resnet152 with 60 % of its MACs",
    ),
    _pvt_v2(
        "pvt_v2_b4",
        parameters=62_556_072,
        macs=10_101_116_416,
        top1=83.712,
        scenario="a deeper b3, when accuracy outweighs latency",
    ),
    _pvt_v2(
        "pvt_v2_b5",
        parameters=81_956_008,
        macs=11_717_260_288,
        top1=83.768,
        scenario="the most accurate PVT, barely ahead of b4",
    ),
)

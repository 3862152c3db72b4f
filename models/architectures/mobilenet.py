"""MobileNets: depthwise-separable convolutions for phones, small boards and crowded CPUs.

Papers: V1 (Howard et al., 2017, arXiv:1704.04861), V2 with inverted residuals (Sandler et al., 2018,
arXiv:1801.04381), V3 with squeeze-excite and hard-swish (Howard et al., 2019, arXiv:1905.02244); V3-Large carries the
weights of "ImageNet-21K Pretraining for the Masses" (Ridnik et al., 2021, arXiv:2104.10972).
"""

from __future__ import annotations

from models.spec import Architecture, InputSpec

TOP1_SOURCE = "timm results/results-imagenet.csv, commit 7479d451"

# One stage per resolution (1/4, 1/8, 1/16, 1/32 of the input), like layer1 to layer4 of a ResNet.
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="mobilenetv1",
        family="mobilenet",
        timm_name="mobilenetv1_100.ra4_e3600_r224_in1k",
        input=InputSpec(
            size=224, interpolation="bicubic", crop_fraction=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        ),
        stages=(("conv_stem", "bn1", "blocks.0", "blocks.1"), ("blocks.2",), ("blocks.3",), ("blocks.4",)),
        head="classifier",
        parameters=4_231_976,
        macs=568_740_352,
        top1=75.384,
        top1_source=TOP1_SOURCE,
        scenario="the simplest small graph: no branches at all",
    ),
    Architecture(
        name="mobilenetv2",
        family="mobilenet",
        timm_name="mobilenetv2_100.ra_in1k",
        input=InputSpec(size=224, interpolation="bicubic", crop_fraction=0.875),
        stages=(
            ("conv_stem", "bn1", "blocks.0", "blocks.1"),
            ("blocks.2",),
            ("blocks.3", "blocks.4"),
            ("blocks.5", "blocks.6", "conv_head", "bn2"),
        ),
        head="classifier",
        parameters=3_504_872,
        macs=300_774_272,
        top1=72.936,
        top1_source=TOP1_SOURCE,
        scenario="accelerators that lack squeeze-excite and swish",
    ),
    Architecture(
        name="mobilenetv3_small",
        family="mobilenet",
        timm_name="mobilenetv3_small_100.lamb_in1k",
        input=InputSpec(size=224, interpolation="bicubic", crop_fraction=0.875),
        stages=(
            ("conv_stem", "bn1", "blocks.0"),
            ("blocks.1",),
            ("blocks.2", "blocks.3"),
            ("blocks.4", "blocks.5", "conv_head"),
        ),
        head="classifier",
        parameters=2_542_856,
        macs=56_510_400,
        top1=67.638,
        top1_source=TOP1_SOURCE,
        scenario="the least compute of all: batteries, tiny CPUs",
    ),
    Architecture(
        name="mobilenetv3_large",
        family="mobilenet",
        timm_name="mobilenetv3_large_100.miil_in21k_ft_in1k",
        # These weights were trained on pixels from 0 to 1, without mean and standard deviation.
        input=InputSpec(
            size=224, interpolation="bilinear", crop_fraction=0.875, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
        ),
        stages=(
            ("conv_stem", "bn1", "blocks.0", "blocks.1"),
            ("blocks.2",),
            ("blocks.3", "blocks.4"),
            ("blocks.5", "blocks.6", "conv_head"),
        ),
        head="classifier",
        parameters=5_483_032,
        macs=216_589_760,
        top1=77.910,
        top1_source=TOP1_SOURCE,
        scenario="phones: the best accuracy below 0.3 GMACs",
    ),
)

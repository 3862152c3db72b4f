"""Vision Transformer: attention over the image as a sequence of patches.

Papers: "An Image is Worth 16x16 Words" (Dosovitskiy et al., 2020, arXiv:2010.11929); the weights follow "How to train
your ViT?" (Steiner et al., 2021, arXiv:2106.10270): ImageNet-21k, then fine-tuned on ImageNet-1k. H/14 exists with
1,000 classes only as a fine-tuned CLIP tower (LAION-2B, Cherti et al., 2022, arXiv:2212.07143).
"""

from __future__ import annotations

from models.spec import Architecture, InputSpec

TOP1_SOURCE = "timm results/results-imagenet.csv, commit 7479d451"

AUGREG_INPUT = InputSpec(
    size=224, interpolation="bicubic", crop_fraction=0.9, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
CLIP_INPUT = InputSpec(
    size=224,
    interpolation="bicubic",
    crop_fraction=1.0,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)

EMBEDDING = ("cls_token", "pos_embed", "patch_embed")


def quarters(depth: int, *, embedding: tuple[str, ...] = EMBEDDING) -> tuple[tuple[str, ...], ...]:
    """Divide the transformer blocks into four stages of equal length.

    Args:
        depth: number of blocks, a multiple of four.
        embedding: modules before the blocks; they join the first stage, and the last norm joins the fourth.
    """
    blocks = tuple(f"blocks.{index}" for index in range(depth))
    first, second, third, fourth = (blocks[start : start + depth // 4] for start in range(0, depth, depth // 4))
    return (*embedding, *first), second, third, (*fourth, "norm")


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="vit_ti16",
        family="vit",
        timm_name="vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        input=AUGREG_INPUT,
        stages=quarters(12),
        head="head",
        parameters=5_717_416,
        macs=1_253_683_200,
        top1=75.452,
        top1_source=TOP1_SOURCE,
        scenario="a transformer for weak hardware",
    ),
    Architecture(
        name="vit_s16",
        family="vit",
        timm_name="vit_small_patch16_224.augreg_in21k_ft_in1k",
        input=AUGREG_INPUT,
        stages=quarters(12),
        head="head",
        parameters=22_050_664,
        macs=4_598_882_304,
        top1=81.414,
        top1_source=TOP1_SOURCE,
        scenario="a transformer at about resnet50's cost",
    ),
    Architecture(
        name="vit_b16",
        family="vit",
        timm_name="vit_base_patch16_224.augreg2_in21k_ft_in1k",
        input=AUGREG_INPUT,
        stages=quarters(12),
        head="head",
        parameters=86_567_656,
        macs=17_563_828_224,
        top1=85.110,
        top1_source=TOP1_SOURCE,
        scenario="the standard transformer; transfer learning",
    ),
    Architecture(
        name="vit_b32",
        family="vit",
        timm_name="vit_base_patch32_224.augreg_in21k_ft_in1k",
        input=AUGREG_INPUT,
        stages=quarters(12),
        head="head",
        parameters=88_224_232,
        macs=4_409_186_304,
        top1=80.736,
        top1_source=TOP1_SOURCE,
        scenario="throughput: a quarter of vit_b16's compute",
    ),
    Architecture(
        name="vit_l16",
        family="vit",
        timm_name="vit_large_patch16_224.augreg_in21k_ft_in1k",
        input=AUGREG_INPUT,
        stages=quarters(24),
        head="head",
        parameters=304_326_632,
        macs=61_554_712_576,
        top1=85.850,
        top1_source=TOP1_SOURCE,
        scenario="server GPUs when vit_b16 is not enough",
    ),
    Architecture(
        name="vit_h14",
        family="vit",
        timm_name="vit_huge_patch14_clip_224.laion2b_ft_in12k_in1k",
        input=CLIP_INPUT,
        stages=quarters(32, embedding=(*EMBEDDING, "norm_pre")),
        head="head",
        parameters=632_047_080,
        macs=167_295_109_120,
        top1=88.278,
        top1_source=TOP1_SOURCE,
        scenario="the best accuracy here, whatever it costs",
    ),
)

"""General recipe: long fine-tuning with strong regularisation; `auto` selects it from 1,000 training images.

    python -m training --data photos --model resnet50 --recipe general --output artifacts/photos

Cost: 100 epochs; 10,000 images at 224 px with resnet50 take a few hours on one GPU. On a CPU, use fewer epochs
(`--epochs 10`), which go without RandAugment, Mixup and narrow crops, or `--recipe quick`. The run ends early after 20
epochs without an improvement. The settings follow "ResNet strikes back" (Wightman et al., arXiv:2110.00476), but are
milder, because the network is pretrained. Expected: with thousands of images, a higher accuracy than `small`;
docs/training.md has what ten epochs bring. The recipe was not run at full length on a CPU.
"""

from __future__ import annotations

from training.config.augment import AugmentConfig
from training.config.recipe import Objective, Optimisation, Recipe, Schedule, Transfer

RECIPE = Recipe(
    epochs=100,
    batch=64,
    patience=20,
    transfer=Transfer(freeze="auto", dropout=0.3),
    optimisation=Optimisation(head_lr=1e-3, backbone_lr=1e-4, weight_decay=0.01),
    schedule=Schedule(schedule="cosine", warmup_epochs=5),
    objective=Objective(smoothing=0.1, mixup=0.2),
    augment=AugmentConfig(policy="randaugment", brightness=0, contrast=0, saturation=0, erase=0.1),
)

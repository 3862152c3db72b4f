"""The general recipe: long fine-tuning with strong regularisation; what `auto` takes from 1,000 training pictures.

    python -m training --data photos --model resnet50 --recipe general --output artifacts/photos

Cost: 100 epochs; 10,000 pictures at 224 px with resnet50 are a few hours on one GPU, so on a CPU take fewer
(`--epochs 10`) or `--recipe quick`. It ends early when 20 epochs bring no better one. The ingredients follow "ResNet
strikes back" (Wightman et al., arXiv:2110.00476), milder, as fits a network that is pretrained already. Expected: more
than `small` on the same pictures where there are thousands; it was not run at full length on a CPU.
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

"""Vision transformers: layer-wise learning-rate decay, stronger augmentation, stochastic depth, more epochs.

    python -m training --data photos --model vit_b16 --recipe vit --output artifacts/photos

Cost: 150 epochs, for a GPU; on a CPU, use `--recipe small` or `--epochs 5`. A transformer has no inductive bias for
locality and overfits earlier than a convolutional network. The settings follow DeiT (Touvron et al., arXiv:2012.12877)
and BEiT's layer-wise decay (Bao et al., arXiv:2106.08254). Expected: with a transformer, a higher accuracy than
`general`; the recipe was not run at full length on a CPU.
"""

from __future__ import annotations

from training.config.augment import AugmentConfig
from training.config.recipe import Objective, Optimisation, Recipe, Schedule, Transfer

RECIPE = Recipe(
    epochs=150,
    batch=64,
    patience=30,
    transfer=Transfer(freeze="auto", layer_decay=0.75, drop_path=0.1),
    optimisation=Optimisation(head_lr=1e-3, backbone_lr=1e-4, weight_decay=0.05, ema=0.999),
    schedule=Schedule(schedule="cosine", warmup_epochs=10),
    objective=Objective(smoothing=0.1, mixup=0.8, cutmix=1.0),
    augment=AugmentConfig(
        policy="randaugment",
        policy_magnitude=12,
        brightness=0,
        contrast=0,
        saturation=0,
        erase=0.25,
    ),
)

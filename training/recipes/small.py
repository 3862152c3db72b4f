"""Small data: a new head on frozen pretrained features; what `auto` takes below 1,000 training pictures.

    python -m training --data photos --model efficientnet_lite0 --recipe small --output artifacts/photos

Cost: 240 photographs at 224 px in about a minute on two cores. With ImageNet's kinds of things in the pictures a frozen
backbone is hard to beat at this size: fewer weights to fit, and no pretrained feature is unlearnt. Expected: about what
a linear classifier on ImageNet features reaches, which for two kinds of insects was 96 % with five epochs of it.
"""

from __future__ import annotations

from training.config.recipe import Objective, Optimisation, Recipe, Schedule, Transfer

RECIPE = Recipe(
    epochs=15,
    batch=32,
    transfer=Transfer(freeze="auto", dropout=0.2),
    optimisation=Optimisation(head_lr=3e-3, backbone_lr=1e-4, weight_decay=0.01),
    schedule=Schedule(schedule="onecycle"),
    objective=Objective(smoothing=0.1),
)

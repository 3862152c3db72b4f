"""Fashion-MNIST and similar small images of objects: one learning rate for every layer, at 64 px.

    python -m training --data torchvision:FashionMNIST --model efficientnet_lite0 --recipe fashion_mnist \\
        --output artifacts/fashion

Cost: 12 epochs of 60,000 images, under 5 minutes each on two cores. Expected: 95.2 % on the official 10,000 test
images. The images differ greatly from ImageNet's, so the backbone has the learning rate of the head.
"""

from __future__ import annotations

from training.config.augment import AugmentConfig
from training.config.recipe import Objective, Optimisation, Recipe, Schedule, Transfer

RECIPE = Recipe(
    epochs=12,
    batch=128,
    transfer=Transfer(freeze="full", stage_multipliers=(1.0, 1.0, 1.0, 1.0), size=64, crop_fraction=1.0, dropout=0.2),
    optimisation=Optimisation(head_lr=1e-3, backbone_lr=1e-3, weight_decay=0.05),
    schedule=Schedule(schedule="onecycle"),
    objective=Objective(smoothing=0.1),
    # The objects are centred and of one size: crops would only make them unlike the test images.
    augment=AugmentConfig(crop_scale=(1.0, 1.0), brightness=0, contrast=0, saturation=0, erase=0.3),
)

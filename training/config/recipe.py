"""Settings of a training run by theme: frozen dataclasses that check their values on construction.

A recipe (`training/recipes/NAME.py`) is one `Recipe`; the command line changes single fields of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

import tyro

from models.common.errors import HalftoneError
from training.config.augment import AugmentConfig

Freeze = Literal["auto", "head", "late", "full"]
ScheduleName = Literal["constant", "step", "cosine", "restarts", "onecycle"]
Amp = Literal["auto", "off", "bf16", "fp16"]
Balance = Literal["none", "weights", "sampler"]

STAGES = 4


def _check(condition: bool, flag: str, rule: str, value: float | tuple[float, ...] | None) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    finite = all(math.isfinite(number) for number in numbers if number is not None)
    if not (condition and finite):
        raise HalftoneError(f"--{flag} must be {rule}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Transfer learning: the layers to train, their relative learning rates, regularisation and the input."""

    freeze: Freeze = "auto"
    """Layers to train: the `head`, the `late` half (last two stages and head) or the `full` network. `auto`: head below
    1,000 training pictures, late below 10,000, else full; one step more, at a higher rate, if the pictures are unlike
    those of the pretraining; always full from random weights."""

    similar: Literal["auto", "yes", "no"] = "auto"
    """With --freeze auto: are the pictures like those of the pretraining (ImageNet's photographs of things)? `auto`
    measures it: how much better frozen features tell the classes than bare pixels."""

    unfreeze_every: int = 0
    """Gradual unfreezing: after every N epochs one more stage is trained, from the head towards the input; 0 off."""

    freeze_norm: bool = False
    """Keep the pretrained statistics of every batch norm; frozen stages always keep theirs."""

    stage_multipliers: tuple[float, float, float, float] = (0.1, 0.3, 0.6, 1.0)
    """Factors on the backbone's learning rate for the four stages from input to head; all 1 from random weights."""

    layer_decay: float = 1.0
    """Factor on the learning rate per layer away from the head (BEiT: 0.65 to 0.75), which replaces the stage
    multipliers; 1 off."""

    dropout: float = 0.0
    """Dropout before the head, in [0, 1)."""

    drop_path: float = 0.0
    """Stochastic depth: probability of skipping the deepest residual branch, in [0, 1); lower for shallower ones."""

    size: int | None = None
    """Side of the input in pixels; default: that of pretraining. Position embeddings are resampled."""

    crop_fraction: float | None = None
    """Share of the short side that the centre crop keeps, in (0, 1]; default: that of pretraining. Use 1 if objects
    reach the edges of the pictures."""

    def __post_init__(self) -> None:
        crop = self.crop_fraction
        _check(crop is None or 0 < crop <= 1, "crop-fraction", "in (0, 1]", crop)
        _check(self.unfreeze_every >= 0, "unfreeze-every", "0 or more epochs", self.unfreeze_every)
        _check(min(self.stage_multipliers) >= 0, "stage-multipliers", "four numbers >= 0", self.stage_multipliers)
        _check(0 < self.layer_decay <= 1, "layer-decay", "in (0, 1]", self.layer_decay)
        _check(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        _check(0 <= self.drop_path < 1, "drop-path", "in [0, 1)", self.drop_path)
        _check(self.size is None or 16 <= self.size <= 4096, "size", "from 16 to 4096 pixels", self.size)


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Optimiser, learning rates and weight averaging."""

    optimiser: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101), or SGD with Nesterov momentum."""

    head_lr: float = 1e-3
    """Peak learning rate of the new head, and of every layer if training starts from random weights."""

    backbone_lr: float = 1e-4
    """Peak learning rate of the pretrained layers, before the multipliers."""

    weight_decay: float = 0.01
    """Weight decay (decoupled in AdamW); never applied to norms, biases, class tokens and position embeddings."""

    momentum: float = 0.9
    """Momentum of SGD."""

    clip: float | None = 1.0
    """Gradient clipping: largest norm of the gradient over all weights; None off."""

    accumulate: int = 1
    """Gradient accumulation: batches per optimiser step."""

    ema: float = 0.0
    """Decay of the moving average of the weights, such as 0.999; the average is validated and saved. 0 off."""

    def __post_init__(self) -> None:
        _check(self.head_lr > 0, "head-lr", "positive", self.head_lr)
        _check(self.backbone_lr >= 0, "backbone-lr", "0 or more", self.backbone_lr)
        _check(self.weight_decay >= 0, "weight-decay", "0 or more", self.weight_decay)
        _check(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        _check(self.clip is None or self.clip > 0, "clip", "positive or None", self.clip)
        _check(self.accumulate >= 1, "accumulate", "1 or more", self.accumulate)
        _check(0 <= self.ema < 1, "ema", "in [0, 1)", self.ema)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning-rate schedule."""

    schedule: ScheduleName = "cosine"
    """Shape after the warm-up; without a warm-up, `onecycle` rises for 30 % of the run."""

    warmup_epochs: float = 0.0
    """Epochs of linear warm-up from 1 % of the rate; at most half the run."""

    min_lr_share: float = 0.01
    """`cosine` and `restarts`: final rate as a share of the peak."""

    step_epochs: float = 30.0
    """`step`: epochs between two reductions."""

    step_factor: float = 0.1
    """`step`: factor of each reduction."""

    restart_epochs: float = 10.0
    """`restarts`: length of the first cycle in epochs."""

    restart_growth: float = 2.0
    """`restarts`: ratio of the lengths of successive cycles."""

    def __post_init__(self) -> None:
        _check(self.warmup_epochs >= 0, "warmup-epochs", "0 or more", self.warmup_epochs)
        _check(0 <= self.min_lr_share <= 1, "min-lr-share", "in [0, 1]", self.min_lr_share)
        _check(self.step_epochs > 0, "step-epochs", "positive", self.step_epochs)
        _check(0 < self.step_factor <= 1, "step-factor", "in (0, 1]", self.step_factor)
        _check(self.restart_epochs > 0, "restart-epochs", "positive", self.restart_epochs)
        _check(self.restart_growth >= 1, "restart-growth", "1 or more", self.restart_growth)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Training objective: label smoothing, mixed images, class balance, distillation."""

    smoothing: float = 0.1
    """Label smoothing (Szegedy et al., arXiv:1512.00567), in [0, 1)."""

    mixup: float = 0.0
    """Mixup's alpha (Zhang et al., arXiv:1710.09412); 0 off."""

    cutmix: float = 0.0
    """CutMix's alpha (Yun et al., arXiv:1905.04899); 0 off."""

    mix_prob: float = 1.0
    """Probability of mixing a batch."""

    switch_prob: float = 0.5
    """With both Mixup and CutMix: probability of CutMix for a mixed batch."""

    balance: Balance = "none"
    """For uneven classes: `weights` in the loss, or a `sampler` that draws every class equally often."""

    teacher: str | None = None
    """Knowledge distillation: the teacher's bundle under artifacts/."""

    distillation: Literal["soft", "hard"] = "soft"
    """`soft`: the teacher's probabilities (Hinton et al., arXiv:1503.02531); `hard`: its decisions (DeiT)."""

    teacher_share: float = 0.5
    """Weight of the teacher in the loss, in [0, 1]; the labels have the rest."""

    teacher_temperature: float = 3.0
    """`soft`: divisor of the logits of teacher and student."""

    def __post_init__(self) -> None:
        _check(0 <= self.smoothing < 1, "smoothing", "in [0, 1)", self.smoothing)
        _check(self.mixup >= 0, "mixup", "0 or more", self.mixup)
        _check(self.cutmix >= 0, "cutmix", "0 or more", self.cutmix)
        _check(0 <= self.mix_prob <= 1, "mix-prob", "in [0, 1]", self.mix_prob)
        _check(0 <= self.switch_prob <= 1, "switch-prob", "in [0, 1]", self.switch_prob)
        _check(0 <= self.teacher_share <= 1, "teacher-share", "in [0, 1]", self.teacher_share)
        _check(self.teacher_temperature > 0, "teacher-temperature", "positive", self.teacher_temperature)

    @property
    def mixes(self) -> bool:
        """True if any batch is mixed."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)


SHORT = 3
"""A run is short if this many of it have at most the epochs of the recipe."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings that determine the trained weights: equal recipes, data and seeds give equal weights."""

    epochs: int = 100
    """Passes over the training pictures."""

    batch: int = 32
    """Most pictures per forward pass, over all processes together."""

    patience: int = 0
    """Early stopping: the run ends after N epochs without a better validation accuracy, or an equal one with a lower
    loss; 0 off."""

    amp: Amp = "auto"
    """Mixed precision. `auto`: bf16 on a GPU that supports it, else fp16. On a CPU with bf16 instructions: bf16, unless
    the network has depthwise convolutions and its backbone is trained, which bf16 slows down."""

    transfer: Annotated[Transfer, tyro.conf.arg(name="")] = field(default_factory=Transfer)
    optimisation: Annotated[Optimisation, tyro.conf.arg(name="")] = field(default_factory=Optimisation)
    schedule: Annotated[Schedule, tyro.conf.arg(name="")] = field(default_factory=Schedule)
    objective: Annotated[Objective, tyro.conf.arg(name="")] = field(default_factory=Objective)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "epochs", "1 or more", self.epochs)
        _check(self.batch >= 2, "batch", "2 or more", self.batch)
        _check(self.patience >= 0, "patience", "0 or more epochs", self.patience)

    def resized(self, *, epochs: int, size: int | None) -> Self:
        """Return the recipe with other epochs, with which its warm-up shrinks, and another input size unless None.

        A third of its epochs or fewer go without policy, Mixup, CutMix and narrow crops, from which a network profits
        late: docs/training.md has what they cost in a short run.
        """
        short = epochs * SHORT <= self.epochs
        return replace(
            self,
            epochs=epochs,
            transfer=replace(self.transfer, size=size or self.transfer.size),
            schedule=replace(self.schedule, warmup_epochs=self.schedule.warmup_epochs * epochs / self.epochs),
            objective=replace(self.objective, mixup=0, cutmix=0) if short else self.objective,
            augment=self.augment.lightened() if short else self.augment,
        )

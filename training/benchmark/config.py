"""What a comparison of training loops may be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.errors import HalftoneError
from training.config import Device


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare the speed of the training loop with that of others."""

    data: str
    """As for training: a folder, FILE.csv, or torchvision:NAME."""

    model: str
    """Architecture of the catalogue."""

    recipe: str = "auto"
    """File name in training/recipes/, or `auto`."""

    weights: str = "pretrained"
    """`pretrained`, `random` or a .safetensors file; from random weights every layer learns."""

    steps: int = 20
    """Batches per round and loop, at most what the data has."""

    rounds: int = 5
    """Rounds, in each of which all loops run."""

    batch: int | None = None
    """Pictures per batch, an even number; default the recipe's."""

    size: int | None = None
    """Side of the input in pixels; default the recipe's."""

    device: Device = "auto"
    """`auto` takes a GPU where there is one."""

    workers: int | None = None
    """Processes that read and augment pictures, for each loop; default one a core, at most 16."""

    output: Path | None = None
    """File for the figures as JSON, besides the table that is printed."""

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("rounds", self.rounds)):
            if value < 1:
                raise HalftoneError(f"--{name} must be 1 or more, not {value}")
        if self.batch is not None and (self.batch < 2 or self.batch % 2):
            raise HalftoneError(f"--batch must be an even number from 2, not {self.batch}")
        if self.workers is not None and self.workers < 0:
            raise HalftoneError(f"--workers must be 0 or more, not {self.workers}")

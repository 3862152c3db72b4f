"""Command line of `python -m training.choose`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from models.bundle.store import check_name
from models.common.cli import JsonOutput
from models.common.errors import HalftoneError
from models.spec import EMBEDDED, Architecture
from training.choose.speed import Budget
from training.config.columns import Columns
from training.config.train import Device, Running, TrainConfig, check_workers, choose_recipe, load_recipe


@dataclass(frozen=True, kw_only=True)
class ChooseConfig(JsonOutput):
    """Choose, train, export and prove the network that suits your pictures, your latency and this machine."""

    data: str
    """As for training: a folder, FILE.csv, or torchvision:NAME."""

    output: Path
    """Folder of the new bundle, artifacts/NAME."""

    candidates: str = ",".join(EMBEDDED)
    """Architectures (`python -m models`), separated by commas; default: those whose weights come with packages."""

    p99_ms: float | None = None
    """Budget: 99th percentile of the latency in milliseconds. Candidates whose inference alone takes longer are
    dropped, and a load test of the served choice follows."""

    rate: float | None = None
    """Budget: least pictures/s."""

    size_mb: float | None = None
    """Budget: largest file that serves."""

    minutes: float = 30.0
    """Time for screening and training; the export comes on top."""

    size: int | None = None
    """Side of the input in pixels, for all candidates; default: each network's own."""

    seed: int = 0
    """Seed of the split, the folds and the training."""

    val_share: float = 0.2
    """Share of the pictures held out for validation if the data has no split, in (0, 1)."""

    test_share: float = 0.0
    """Share of the pictures for one test at the end if the data has no split."""

    device: Device = "auto"
    """`auto` uses a GPU if there is one."""

    workers: int | None = None
    """Processes that read and augment pictures; default: one per core, at most 16."""

    table: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)

    def __post_init__(self) -> None:
        check_name(self.output.name)
        for name in ("p99_ms", "rate", "size_mb", "minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise HalftoneError(f"--{name.replace('_', '-')} must be positive, not {value:g}")
        if self.size is not None and not 16 <= self.size <= 4096:
            raise HalftoneError(f"--size must be from 16 to 4096 pixels, not {self.size}")
        check_workers(self.workers)
        if self.seed < 0:
            raise HalftoneError(f"--seed must be 0 or more, not {self.seed}")
        if not self.names or len(set(self.names)) != len(self.names):
            raise HalftoneError(f"--candidates must name each architecture once, as in a,b, not {self.candidates!r}")

    @property
    def names(self) -> list[str]:
        """Names of the candidates."""
        return [name for each in self.candidates.split(",") if (name := each.strip())]

    @property
    def budget(self) -> Budget:
        """The limits."""
        return Budget(p99_ms=self.p99_ms, rate=self.rate, size_mb=self.size_mb)

    def request(self, network: Architecture, pictures: int, output: Path, epochs: int | None = None) -> TrainConfig:
        """Return the run that trains a network, with the recipe that suits the number of training pictures."""
        name = choose_recipe("auto", pictures=pictures, family=network.family)
        recipe = load_recipe(name)
        return TrainConfig(
            data=self.data,
            model=network.name,
            output=output,
            recipe=name,
            seed=self.seed,
            val_share=self.val_share,
            test_share=self.test_share,
            table=self.table,
            running=Running(device=self.device, workers=self.workers, log=()),
            settings=recipe.resized(epochs=epochs or recipe.epochs, size=self.size),
        )

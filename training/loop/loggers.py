"""Loggers for the curves: TensorBoard, Weights & Biases, MLflow; each imported only if requested."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from models.common.errors import HalftoneError
from models.common.files import write_atomic
from training.config.train import LoggerName


class Logger(Protocol):
    """Receiver of metrics during a run."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record named values at a global step."""

    def close(self) -> None:
        """Flush and close the logger."""


class TensorBoard:
    """Event files in the run's folder; `tensorboard --logdir` shows them."""

    def __init__(self, folder: Path, name: str, config: dict[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Hides the steps that a killed run logged after its last checkpoint.
        self.writer: Any = SummaryWriter(folder / "tensorboard", purge_step=step or None)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Logger`."""
        self.writer.close()


class WeightsAndBiases:
    """Run in the project `halftone`; a resumed run continues its own, a new run of the same name starts another."""

    def __init__(self, folder: Path, name: str, config: dict[str, Any], step: int) -> None:
        wandb = _installed("wandb")
        known = folder / "wandb.id"
        if not known.is_file():
            write_atomic(known, f"{name}-{secrets.token_hex(4)}".encode())
        self.run = wandb.init(
            project="halftone", name=name, id=known.read_text(), resume="allow", config=config, dir=str(folder)
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Logger`."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """See `Logger`."""
        self.run.finish()


class MLflow:
    """Run in the experiment `halftone`."""

    def __init__(self, folder: Path, name: str, config: dict[str, Any], step: int) -> None:
        self.mlflow = _installed("mlflow")
        self.mlflow.set_experiment("halftone")
        self.mlflow.start_run(run_name=name)
        self.mlflow.log_dict(config, "config.json")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Logger`."""
        self.mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """See `Logger`."""
        self.mlflow.end_run()


_LOGGERS: dict[LoggerName, type[TensorBoard] | type[WeightsAndBiases] | type[MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def open_loggers(
    names: Sequence[LoggerName], *, folder: Path, name: str, config: dict[str, Any], step: int
) -> list[Logger]:
    """Open the requested loggers.

    Args:
        names: the loggers; repeated names count once.
        folder: for local files.
        name: the run's name.
        config: the resolved settings.
        step: global step at which the run starts.

    Raises:
        HalftoneError: a logger is not installed.
    """
    return [_LOGGERS[logger](folder, name, config, step) for logger in dict.fromkeys(names)]


def _installed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise HalftoneError(
            f"--log {package}: the package is not installed; `pip install {package}`, or leave it out of --log"
        ) from None

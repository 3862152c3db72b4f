"""Runs of an ablation: trained once each, with a file of the right answers that a repeated command reads."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress

from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.common.text import printable
from training.config.train import TrainConfig
from training.data.batches.loader import default_workers
from training.data.pictures import Data
from training.evaluation.predict import predict
from training.loop.resume import request_with
from training.loop.run import train


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves."""

    right: npt.NDArray[np.bool_]
    """bool (N,): right answers on the validation pictures."""

    seconds_per_epoch: float
    """Median over the epochs."""


def run_once(config: TrainConfig, data: Data) -> Result:
    """Train and evaluate on the validation pictures, or read what an earlier call with the same settings has found.

    The model is not kept. A call that was killed continues from its last checkpoint.

    Args:
        config: the run; its output is a folder that does not exist, or that of the same unfinished run.
        data: without a test part.

    Raises:
        HalftoneError: as `train`, or the output is that of other settings.
    """
    file = config.output.with_suffix(".json")
    if file.is_file():
        return _read(file, config)
    request = request_with(config, data)
    bundle = train(request)
    if bundle is None:
        raise RuntimeError("an ablation runs in one process")
    device = torch.device("cuda" if config.running.device != "cpu" and torch.cuda.is_available() else "cpu")
    with Progress(disable=True) as progress:
        logits, readable = predict(
            bundle,
            data.val,
            batch=config.settings.batch,
            workers=default_workers(1) if config.running.workers is None else config.running.workers,
            device=device,
            max_corrupt_share=config.max_corrupt_share,
            progress=progress,
        )
    right = (logits.argmax(axis=1) == data.val.targets) & readable
    history = bundle.manifest.training["history"]
    seconds = statistics.median(row["seconds"] for row in history)
    document = {
        "settings": _settings(config),
        "epochs": len(history),
        "seconds_per_epoch": seconds,
        "right": "".join(map(str, right.astype(int))),
    }
    write_atomic(file, f"{json.dumps(document, indent=1)}\n".encode())
    shutil.rmtree(config.output)
    return Result(right=right, seconds_per_epoch=seconds)


def _settings(config: TrainConfig) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps(config.identity()))
    return settings


def _read(file: Path, config: TrainConfig) -> Result:
    try:
        values = json.loads(file.read_text())
        right = np.array([int(each) for each in values["right"]], dtype=bool)
        settings, seconds = values["settings"], float(values["seconds_per_epoch"])
    except (ValueError, KeyError, TypeError, OSError):
        raise HalftoneError(f"{printable(file)} is no result of an ablation: remove it") from None
    if settings != _settings(config):
        raise HalftoneError(
            f"{printable(file)} is the result of other settings: choose another --output, or remove "
            f"{printable(file.parent)}"
        )
    return Result(right=right, seconds_per_epoch=seconds)

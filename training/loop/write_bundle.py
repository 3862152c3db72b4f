"""From the best epoch's weights to the bundle: calibrated, reported, with all that it was made from written down."""

# MERGED-DOC """What a network is made from, beyond its settings: the pictures, the weights it starts from, its teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.card import model_card
from models.bundle.manifest import Manifest
from models.bundle.store import open_bundle
from models.checkpoint import save_weights
from models.common.errors import HalftoneError
from models.common.files import sha256_file
from models.spec import Architecture, InputSpec
from models.weights import BY_NAME, Start
from training.config.train import TrainConfig
from training.data.pictures import Data
from training.data.subsets import SelectedPictures
from training.evaluation.calibration import expected_calibration_error, fit_temperature
from training.evaluation.leakage import FILE as TRAINING_PICTURES
from training.evaluation.leakage import record
from training.loop.learner import Row
from training.loop.validate import Answers, figures
from training.report.page import write_report


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished run hands over."""

    start: Start
    """The network, with the best epoch's weights, and where it came from."""

    history: list[Row]
    best_epoch: int

    answers: Answers
    """Of the best epoch's weights, in FP32 arithmetic."""

    unreadable: dict[str, list[str]]
    """Names of the pictures that could not be read, in `train` and `val`."""

    arithmetic: str
    """The number format that it was trained in, such as `bfloat16`."""


def write_bundle(
    config: TrainConfig,
    network: Architecture,
    spec: InputSpec,
    data: Data,
    lineage: Mapping[str, Any],
    outcome: Outcome,
) -> Bundle:
    """Make `config.output`.

    Args:
        config: resolved settings.
        network: catalogue entry.
        spec: what the network was trained to see.
        data: the pictures.
        lineage: what it was made from, for the manifest.
        outcome: the trained network and its answers.

    Raises:
        BundleError: the output folder holds something already.
    """
    logits, targets = outcome.answers.logits, outcome.answers.targets
    temperature = fit_temperature(logits.numpy(), targets.numpy())
    metrics = figures(logits, targets) | {
        "best_epoch": outcome.best_epoch,
        "ece": _calibration_error(logits, targets, 1.0),
        "ece_calibrated": _calibration_error(logits, targets, temperature),
    }
    manifest = Manifest(
        name=config.name,
        architecture=network.name,
        input=spec,
        labels=data.train.labels,
        trained=True,
        source=f"trained on {data.description} from {outcome.start.source}",
        license=outcome.start.license,
        training={
            "config": config.identity(),
            **lineage,
            "arithmetic": outcome.arithmetic,
            "unreadable": outcome.unreadable,
            "metrics": metrics,
            "history": outcome.history,
        },
        temperature=temperature,
    )
    command = (
        f"`python -m training --data {config.data} --model {config.model} --recipe {config.recipe} --output "
        f"{config.output}`, with the settings in the manifest's training.config.train"
    )
    with Bundle.creating(config.output, manifest) as bundle:
        save_weights(bundle, outcome.start.module, made_by=command)
        bundle.write(TRAINING_PICTURES, record(data.train), made_by=command, made_from=[WEIGHTS])
        _add_report(bundle, config, data, outcome, command)
        bundle.write("README.md", model_card(bundle.manifest, network), made_by=command, made_from=[WEIGHTS])
    return bundle


def _calibration_error(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> float:
    probabilities = torch.softmax(logits / temperature, dim=1)
    return float(expected_calibration_error(probabilities.numpy(), targets.numpy()))


def _add_report(bundle: Bundle, config: TrainConfig, data: Data, outcome: Outcome, command: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_report(
            Path(folder),
            history=outcome.history,
            logits=outcome.answers.logits.numpy(),
            targets=outcome.answers.targets.numpy(),
            labels=data.train.labels,
            pictures=SelectedPictures(data.val, outcome.answers.pictures),
            spec=bundle.manifest.input,
            temperature=bundle.manifest.temperature,
            title=config.name,
            config=config.identity(),
        )
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                name = f"report/{path.relative_to(folder).as_posix()}"
                bundle.write(name, path.read_bytes(), made_by=command, made_from=[WEIGHTS])


def lineage(config: TrainConfig, data: Data) -> dict[str, Any]:
    """What the network is made from, for the manifest and to refuse going on with something else.

    Returns:
        `data`: sizes and a fingerprint of names and targets; `weights_sha256` where it starts from a file;
        `teacher_version` where it has a teacher.

    Raises:
        HalftoneError: the file or the teacher is not there.
    """
    made_from: dict[str, Any] = {
        "data": {
            "description": data.description,
            "train": len(data.train),
            "val": len(data.val),
            "fingerprint": data.fingerprint(),
        }
    }
    if config.weights not in BY_NAME:
        path = Path(config.weights)
        if not path.is_file():
            raise HalftoneError(f"--weights {path}: no such file; name a .safetensors file, `pretrained` or `random`")
        made_from["weights_sha256"] = sha256_file(path)
    if config.settings.objective.teacher is not None:
        made_from["teacher_version"] = open_bundle(config.settings.objective.teacher).manifest.version
    return made_from

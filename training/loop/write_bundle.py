"""Bundle of a finished run: calibrated weights, promises, report, model card, and the lineage of its inputs."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.card import CARD, model_card
from models.bundle.commands import export_command
from models.bundle.manifest import Manifest
from models.bundle.promises import Promises, fit_promises, write_promises
from models.checkpoint import save_weights
from models.common.statistics import rate, softmax
from models.dataset import TRAINING_PICTURES
from models.spec import Architecture, InputSpec
from models.weights import Start
from training.config.train import TrainConfig
from training.data.pictures import Data
from training.data.subsets import SelectedPictures
from training.evaluation.against import Against
from training.evaluation.calibration import error_by_chance, expected_calibration_error
from training.evaluation.leakage import encoded_digests
from training.evaluation.metrics import majority, negative_log_likelihood
from training.evaluation.promises import measure_on_half
from training.evaluation.temperature import Calibration, calibrate
from training.loop.learner import Row
from training.loop.resume import Request
from training.loop.validate import Predictions, validation_metrics
from training.report.page import write_report


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a finished run."""

    start: Start
    """The network, with the best epoch's weights, and the origin of its initial weights."""

    history: list[Row]
    best_epoch: int

    predictions: Predictions
    """Of the best epoch's weights, in FP32 arithmetic."""

    test: Predictions | None
    """Of the same weights on the test part; None if the data has none."""

    cross_validation: dict[str, Any]
    """Metrics of `training.loop.frozen.folds.cross_validate`; empty without folds."""

    against: Against | None
    """Comparison with the network that the training went on from; None without one."""

    unreadable: dict[str, list[str]]
    """Names of the unreadable images in each part."""

    arithmetic: str
    """Number format of the training, such as `bfloat16`."""

    decision: dict[str, Any]
    """Layers that were trained, the backbone's learning rate, and the measured likeness."""


def write_bundle(request: Request, network: Architecture, spec: InputSpec, outcome: Outcome) -> Bundle:
    """Write the bundle to the output folder of the request.

    Args:
        request: resolved settings, data and lineage.
        network: catalogue entry.
        spec: input that the network was trained with.
        outcome: the trained network and its predictions.

    Raises:
        BundleError: the output folder is not empty.
    """
    config, data = request.config, request.data
    calibration = calibrate(outcome.predictions.logits.numpy(), outcome.predictions.targets.numpy())
    manifest = _manifest(request, network, spec, outcome, calibration)
    command = (
        f"`python -m training --data {config.data} --model {config.model} --recipe {config.recipe} --output "
        f"{config.output}`, with the settings in the manifest's training.config"
    )
    with Bundle.creating(config.output, manifest) as bundle:
        save_weights(bundle, outcome.start.module, made_by=command)
        write_promises(bundle, _promises(outcome.predictions, calibration.temperature), made_by=command)
        bundle.write(TRAINING_PICTURES, encoded_digests(data.train), made_by=command, made_from=[WEIGHTS])
        _add_report(bundle, config, data, outcome, calibration, command)
        bundle.write(CARD, model_card(bundle.manifest, network), made_by=command, made_from=[WEIGHTS])
    return bundle


def _manifest(
    request: Request, network: Architecture, spec: InputSpec, outcome: Outcome, calibration: Calibration
) -> Manifest:
    config, data = request.config, request.data
    logits, targets = outcome.predictions.logits, outcome.predictions.targets
    metrics = _accuracy(outcome.predictions, data.train.labels, "val") | {
        "best_epoch": outcome.best_epoch,
        "temperature": asdict(calibration) | {"kept": calibration.kept},
        "promises": measure_on_half(logits.numpy(), targets.numpy(), calibration.temperature),
        **outcome.cross_validation,
        **_confidence(outcome.predictions, 1.0, ""),
        **_confidence(outcome.predictions, calibration.temperature, "_calibrated"),
    }
    if outcome.test is not None:
        metrics |= _accuracy(outcome.test, data.train.labels, "test")
    if outcome.against is not None:
        metrics["against"] = outcome.against.summary()
    return Manifest(
        name=config.name,
        architecture=network.name,
        input=spec,
        labels=data.train.labels,
        trained=True,
        source=f"trained on {data.description} from {outcome.start.source}",
        license=outcome.start.license,
        training={
            "config": config.identity(),
            **request.lineage,
            "arithmetic": outcome.arithmetic,
            "transfer": outcome.decision,
            "unreadable": outcome.unreadable,
            "metrics": metrics,
            "history": outcome.history,
        },
        temperature=calibration.temperature,
    )


def _accuracy(predictions: Predictions, labels: tuple[str, ...], part: str) -> dict[str, Any]:
    """Return loss and accuracy on a part, its interval, and the accuracy of always answering the largest class."""
    logits, targets = predictions.logits, predictions.targets
    top1 = rate(int((logits.argmax(dim=1) == targets).sum()), len(targets))
    metrics = {name.replace("val", part): value for name, value in validation_metrics(logits, targets).items()}
    return metrics | {
        f"{part}_pictures": len(targets),
        f"{part}_top1_interval": [top1["low"], top1["high"]],
        f"{part}_majority": majority(targets.numpy(), labels),
    }


def _promises(predictions: Predictions, temperature: float) -> Promises:
    return fit_promises(predictions.logits.numpy(), predictions.targets.numpy(), temperature)


def _confidence(predictions: Predictions, temperature: float, suffix: str) -> dict[str, float]:
    """Return the loss, the calibration error and its part that chance alone makes, at a temperature."""
    probabilities, targets = softmax(predictions.logits.numpy(), temperature), predictions.targets.numpy()
    return {
        f"nll{suffix}": negative_log_likelihood(probabilities, targets),
        f"ece{suffix}": expected_calibration_error(probabilities, targets),
        f"ece{suffix}_by_chance": error_by_chance(probabilities),
    }


def _add_report(
    bundle: Bundle, config: TrainConfig, data: Data, outcome: Outcome, calibration: Calibration, command: str
) -> None:
    metrics = bundle.manifest.training["metrics"]
    # In the bundle's temporary folder: after a kill, it is removed with it.
    with tempfile.TemporaryDirectory(dir=bundle.folder) as folder:
        write_report(
            Path(folder),
            history=outcome.history,
            logits=outcome.predictions.logits.numpy(),
            targets=outcome.predictions.targets.numpy(),
            labels=data.train.labels,
            pictures=SelectedPictures(data.val, outcome.predictions.pictures),
            spec=bundle.manifest.input,
            calibration=calibration,
            promises=metrics["promises"],
            metrics=metrics,
            against=outcome.against,
            title=config.name,
            config=config.identity(),
            following=export_command(config.output, config.data),
        )
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                name = f"report/{path.relative_to(folder).as_posix()}"
                bundle.write(name, path.read_bytes(), made_by=command, made_from=[WEIGHTS])

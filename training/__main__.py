"""`python -m training --data DIR --model NAME --output artifacts/NAME`: train a classifier and write its bundle.

    python -m training --data photos --model efficientnet_lite0 --output artifacts/photos
    python -m training --data photos --model resnet50 --recipe general --epochs 30 --mixup 0.2 --output artifacts/photos
    python -m training --output artifacts/photos --resume                  continue an unfinished run
    torchrun --nproc-per-node 4 -m training --data photos --model vit_b16 --output artifacts/photos

Without --recipe, the number of images selects the recipe. 240 photographs take about a minute on two cores (the head is
trained on frozen ImageNet features). If a run is killed, repeat the command to continue it. See docs/training.md.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from models.bundle.bundle import Bundle
from models.bundle.commands import export_command
from models.common.cli import DONE, INTERRUPTED, run
from models.common.text import printable
from training.config.train import TrainConfig, for_help
from training.evaluation.temperature import Calibration
from training.loop.resume import PROG, complete, main_process, nothing_left, resolve
from training.loop.signals import StoppedError


def _summary(bundle: Bundle, *, done: bool) -> str:
    training = bundle.manifest.training
    metrics, following = training["metrics"], export_command(bundle.folder, training["config"]["data"])
    what = f"this run is finished, {bundle.folder} has its model" if done else f"wrote {bundle.folder}"
    summary = f"{what}: {_accuracy(metrics)}{_confidence(metrics)}; report: {bundle.folder / 'report' / 'index.html'}"
    return f"{printable(summary)}\nexport and prove it with `{printable(following)}`"


def _accuracy(metrics: dict[str, Any]) -> str:
    """Return the accuracy on the test part, or else on the validation part, and what it is to be read with."""
    part, role = "val", "which chose the epoch, so it flatters"
    if "test_top1" in metrics:
        part, role = "test", "which chose nothing"
    accuracy = f"{part} top-1 {metrics[f'{part}_top1']:.2%}"
    if f"{part}_majority" not in metrics:
        # A bundle of an earlier version.
        return accuracy
    (low, high), majority = metrics[f"{part}_top1_interval"], metrics[f"{part}_majority"]
    return (
        f"{accuracy} (95 % interval {low:.1%} to {high:.1%}; {metrics[f'{part}_pictures']:,} pictures, {role}; "
        f"always answering {majority['label']!r} has {majority['value']:.2%})"
    )


def _confidence(metrics: dict[str, Any]) -> str:
    """Return the gain of the temperature, and from how many images it is; empty for a bundle of an earlier version."""
    if "temperature" not in metrics:
        return ""
    fit = metrics["temperature"]
    calibration = Calibration(fitted=fit["fitted"], pictures=fit["pictures"], p=fit["p"])
    before = (
        f"NLL {metrics['nll']:.3f}, calibration error {metrics['ece']:.1%} ({metrics['ece_by_chance']:.1%} by chance)"
    )
    after = (
        f", with it {metrics['nll_calibrated']:.3f} and {metrics['ece_calibrated']:.1%} "
        f"({metrics['ece_calibrated_by_chance']:.1%} by chance)"
    )
    return f"; {before}; {calibration}" + (after if calibration.kept else "")


def _main(config: TrainConfig) -> int:
    request = resolve(config)
    if "WORLD_SIZE" not in os.environ and nothing_left(request):
        print(_summary(Bundle.open(config.output), done=True))
        return DONE
    # Importing PyTorch takes seconds: requests that can be refused without it are refused first.
    from training.loop.run import train

    done = complete(config.output)
    try:
        bundle = train(request)
    except StoppedError:
        if main_process():
            command = "torchrun … -m training" if "WORLD_SIZE" in os.environ else PROG
            print(
                f"stopped and saved: continue with `{command} --output {printable(config.output)} --resume`",
                file=sys.stderr,
            )
        return INTERRUPTED
    if bundle is not None:
        print(_summary(bundle, done=done))
    return DONE


if __name__ == "__main__":
    run(
        _main,
        TrainConfig,
        prog=PROG,
        example="--data photos --model efficientnet_lite0 --output artifacts/photos",
        defaults=for_help,
    )

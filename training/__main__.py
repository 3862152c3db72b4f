"""`python -m training --data DIR --model NAME --output artifacts/NAME`: train a classifier and write its bundle.

    python -m training --data photos --model efficientnet_lite0 --output artifacts/photos
    python -m training --data photos --model resnet50 --recipe general --epochs 30 --mixup 0.2 --output artifacts/photos
    python -m training --data photos --add review/labels.csv --from photos --output artifacts/photos2
    python -m training --output artifacts/photos --resume                  continue an unfinished run
    torchrun --nproc-per-node 4 -m training --data photos --model vit_b16 --output artifacts/photos

Without --recipe, the number of images selects the recipe. 240 photographs take about a quarter of a minute on two cores
(the head is trained on frozen ImageNet features). If a run is killed, repeat the command to continue it. See
docs/training.md.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from models.bundle.accuracy import in_words
from models.bundle.bundle import Bundle
from models.bundle.commands import export_command
from models.common.cli import DONE, INTERRUPTED, run
from models.common.text import printable
from training.config.train import TrainConfig, for_help
from training.evaluation import baseline
from training.evaluation.against import in_words as against_in_words
from training.evaluation.temperature import Calibration
from training.loop.resume import PROG, complete, main_process, nothing_left, resolve
from training.loop.signals import StoppedError


def _summary(bundle: Bundle, *, done: bool) -> str:
    training = bundle.manifest.training
    metrics, following = training["metrics"], export_command(bundle.folder, training["config"]["data"])
    what = f"this run is finished, {bundle.folder} has its model" if done else f"wrote {bundle.folder}"
    summary = f"{what}: {in_words(metrics)}{_confidence(metrics)}; report: {bundle.folder / 'report' / 'index.html'}"
    against = f"\n{printable(against_in_words(metrics['against']))}" if "against" in metrics else ""
    doubt = baseline.warning(training, classes=len(bundle.manifest.labels))
    doubt = f"\nwarning: {printable(doubt)}" if doubt else ""
    return f"{printable(summary)}{against}{doubt}\nexport and prove it with `{printable(following)}`"


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

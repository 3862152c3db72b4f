"""`python -m training --data DIR --model NAME --output artifacts/NAME`: pictures to a bundle that can be trusted.

    python -m training --data photos --model efficientnet_lite0 --output artifacts/photos
    python -m training --data photos --model resnet50 --recipe general --epochs 30 --mixup 0.2 --output artifacts/photos
    python -m training --output artifacts/photos --resume                  an unfinished run, as it was started
    torchrun --nproc-per-node 4 -m training --data photos --model vit_b16 --output artifacts/photos

Without a recipe the number of pictures decides: 240 photographs take about a minute on two cores (the head learns on
frozen ImageNet features). A killed run goes on where it was when the command is repeated. See docs/training.md.
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields

from models.bundle import Bundle
from models.catalog import architecture
from models.cli import DONE, INTERRUPTED, run
from models.errors import HalftoneError
from training.config import TrainConfig, choose_recipe, from_json, with_recipe
from training.data.source import Data, load_data
from training.loop import StoppedError
from training.run import check_output, train
from training.state import RunFolder

PROG = "python -m training"


def requested(config: TrainConfig) -> tuple[TrainConfig, Data]:
    """The request with everything decided: the recorded settings of an unfinished run, or the recipe's.

    Raises:
        HalftoneError: nothing to resume, or the data, model or recipe can't be used.
    """
    check_output(config)
    if config.resume:
        config = _recorded(config)
        return config, _load(config)
    network, data = architecture(config.model), _load(config)
    recipe = choose_recipe(config.recipe, pictures=len(data.train), family=network.family)
    return with_recipe(config, recipe, sys.argv[1:], prog=PROG), data


def _load(config: TrainConfig) -> Data:
    return load_data(config.data, val_share=config.val_share, seed=config.seed, limit=config.limit)


def _recorded(config: TrainConfig) -> TrainConfig:
    plain = TrainConfig(output=config.output, resume=True, running=config.running)
    changed = [field.name for field in fields(TrainConfig) if getattr(config, field.name) != getattr(plain, field.name)]
    if changed:
        raise HalftoneError(
            f"--resume goes on with the settings that the run was started with, and {', '.join(changed)} can't be "
            "changed now: leave those flags out, or start anew with --restart"
        )
    unfinished = RunFolder(config.output).identity()
    if unfinished is None:
        raise HalftoneError(f"{config.output} has no unfinished run to resume: start one with --data and --model")
    values = unfinished["config"] | {"output": str(config.output)}
    recorded = from_json(TrainConfig, values)
    return TrainConfig(**{**vars(recorded), "running": config.running})


def _summary(bundle: Bundle) -> str:
    metrics = bundle.manifest.training["metrics"]
    return (
        f"wrote {bundle.folder}: val top-1 {metrics['val_top1']:.2%}, calibration error {metrics['ece']:.1%} before "
        f"and {metrics['ece_calibrated']:.1%} after temperature {bundle.manifest.temperature:.2f}; report: "
        f"{bundle.folder / 'report' / 'index.html'}"
    )


def _main(config: TrainConfig) -> int:
    config, data = requested(config)
    try:
        bundle = train(config, data)
    except StoppedError:
        if os.environ.get("RANK", "0") == "0":
            how = "torchrun … -m training" if "WORLD_SIZE" in os.environ else PROG
            print(f"stopped and saved: go on with `{how} --output {config.output} --resume`", file=sys.stderr)
        return INTERRUPTED
    if bundle is not None:
        print(_summary(bundle))
    return DONE


if __name__ == "__main__":
    run(_main, TrainConfig, prog=PROG)

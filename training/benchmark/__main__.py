"""`python -m training.benchmark --data LOCATION --model NAME --recipe NAME`: speed of the training loop.

    python -m training.benchmark --data torchvision:FashionMNIST --model efficientnet_lite0 --recipe fashion_mnist
    python -m training.benchmark --data photos --model resnet18 --weights random --steps 50 --output loop.json

Measures images/s of four loops, without validation and checkpoints:

- our loop, which also makes every step repeatable, detects NaN, counts, and handles Ctrl-C;
- a bare loop of two dozen lines with the same network, images, augmentation, loader, batches, number format and
  optimiser;
- timm's loop with its own reader, loader, augmentation and optimiser, if the data is a folder and every layer is
  trained;
- our step on one batch that stays on the device: the upper limit, without reading and augmenting.

The loops run alternately, so that a machine that slows down affects all of them. Expected: 0.95 or more of the bare
loop's speed. Cost: rounds times steps times four, and one round of warm-up.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from rich.console import Console
from rich.progress import Progress

from models.common.cli import DONE, run
from models.common.files import write_atomic
from training.benchmark.config import BenchmarkConfig, resolve


def _print(result: dict[str, Any]) -> None:
    machine = result["host"]
    print(f"{machine.get('gpu', machine['cpu'])}, {machine['cores']} cores, {machine['system']}, {result['date']}")
    print(", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    print(
        f"{result['request']['model']}, recipe {result['recipe']}, batches of {result['batch']}, "
        f"{result['precision']}, {result['pictures_per_round']} pictures a round, {result['request']['rounds']} rounds"
    )
    for name, rates in result["images_per_second"].items():
        share = result["gpu_busy"][name]
        busy = "" if share is None else f", GPU utilisation {share:.0%}"
        print(f"{name}: {statistics.median(rates):.1f} images/s ({min(rates):.1f} to {max(rates):.1f}){busy}")
    ratios = {"a bare loop": "ratio", "timm's": "ratio_to_timm", "the step without loading": "ratio_to_limit"}
    for name, ratio in ((name, result[key]) for name, key in ratios.items()):
        if ratio is not None:
            print(f"ratio to {name}: {ratio['median']:.3f} ({ratio['least']:.3f} to {ratio['most']:.3f})")


def main(config: BenchmarkConfig) -> int:
    """Measure, print, and write the JSON file if requested; return the exit code."""
    request, data = resolve(config)
    # Importing PyTorch takes seconds: requests that can be refused without it are refused first.
    from training.benchmark.rounds import benchmark

    with Progress(console=Console(stderr=True), transient=True) as progress:
        result = benchmark(config, request, data, progress)
    _print(result)
    if config.output is not None:
        write_atomic(config.output, (json.dumps(result, indent=1) + "\n").encode())
    return DONE


if __name__ == "__main__":
    run(
        main,
        BenchmarkConfig,
        prog="python -m training.benchmark",
        example="--data photos --model resnet18 --weights random --steps 50 --output loop.json",
    )

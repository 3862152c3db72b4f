"""`python -m training.benchmark --data LOCATION --model NAME --recipe NAME`: what the training loop costs.

    python -m training.benchmark --data torchvision:FashionMNIST --model efficientnet_lite0 --recipe fashion_mnist
    python -m training.benchmark --data photos --model resnet18 --weights random --steps 50 --output loop.json

Images/s of our loop against a bare one of two dozen lines, with the same network, pictures, augmentation, loader,
batches, number format and optimiser, and, where the data is a folder and every layer learns, against timm's loop with
its own reader, loader, augmentation and optimiser; and our step on one batch that lies on the device, again and again,
which is the limit that reading and augmenting can't pass. Ours also makes every step repeatable, looks for NaN, counts
and listens to Ctrl-C; all leave out validation and checkpoints. They take turns, so that a machine that slows down
slows all. Expected: 0.95 or more of the bare one. Cost: rounds times steps times four, and a round to warm up.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from rich.console import Console
from rich.progress import Progress

from models.common.cli import DONE, run
from models.common.files import write_atomic
from training.benchmark.config import BenchmarkConfig, requested


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
        busy = "" if share is None else f", GPU busy {share:.0%} of the time"
        print(f"{name}: {statistics.median(rates):.1f} images/s ({min(rates):.1f} to {max(rates):.1f}){busy}")
    ratios = {"a bare loop": "ratio", "timm's": "ratio_to_timm", "the step without loading": "ratio_to_limit"}
    for name, ratio in ((name, result[key]) for name, key in ratios.items()):
        if ratio is not None:
            print(f"ratio to {name}: {ratio['median']:.3f} ({ratio['least']:.3f} to {ratio['most']:.3f})")


def main(config: BenchmarkConfig) -> int:
    """Measure, print, and write where a file is named; returns the exit code."""
    request, data = requested(config)
    # Imported here, as it takes seconds, after what can be refused without PyTorch.
    from training.benchmark.rounds import benchmark

    with Progress(console=Console(stderr=True), transient=True) as progress:
        result = benchmark(config, request, data, progress)
    _print(result)
    if config.output is not None:
        write_atomic(config.output, (json.dumps(result, indent=1) + "\n").encode())
    return DONE


if __name__ == "__main__":
    run(main, BenchmarkConfig, prog="python -m training.benchmark")

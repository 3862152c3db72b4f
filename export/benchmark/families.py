"""Comparison of the architectures: parameters, arithmetic, published accuracy, and speed on this machine.

The weights are random; speed does not depend on them. Networks with over 400 MB of FP32 weights are left out, and those
with an input of over 400 pixels: batches of EfficientNet-B7 in three runtimes at once took over 24 GB.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from export.benchmark.tables import Cells
from export.benchmark.variants import compare_variants
from export.parity.prove import provable_variants
from export.pipeline import make_graphs
from export.variants import runtime_of
from models.bundle.bundle import Bundle
from models.bundle.manifest import Manifest
from models.catalog import catalogue
from models.checkpoint import IMAGENET_CLASSES, build, fit_input_size, save_weights
from models.common.host import cores
from models.graph import ServingGraph
from models.spec import Architecture, InputSpec

LARGEST = 100_000_000
LARGEST_SIDE = 400
GPU_CALLS = 20

FAMILY_HEADINGS: Cells = (
    "name", "params M", "GMACs", "px", "top-1 %", "CPU ms", "CPU images/s", "variant", "GPU ms", "when to choose it",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """Figures of one architecture."""

    name: str
    parameters: int
    macs: int
    size: int
    top1: float | None
    """Published ImageNet-1k accuracy in per cent."""

    milliseconds: float
    """Latency of one image on all cores, in the fastest variant."""

    images_per_second: float
    """Highest rate of the same variant."""

    served_images_per_second: float
    """Its rate of single images, one thread per core."""

    variant: str

    megabytes: float
    """Of the file that the variant loads."""

    gpu_milliseconds: float | None
    """Latency of one image in FP16 on the GPU with torch; None without a GPU."""

    scenario: str

    def cells(self) -> Cells:
        """Return the row under `FAMILY_HEADINGS`."""
        return (
            self.name,
            f"{self.parameters / 1e6:.1f}",
            f"{self.macs / 1e9:.2f}",
            str(self.size),
            "" if self.top1 is None else f"{self.top1:.1f}",
            f"{self.milliseconds:.1f}",
            f"{self.images_per_second:.0f}",
            self.variant,
            "" if self.gpu_milliseconds is None else f"{self.gpu_milliseconds:.2f}",
            self.scenario,
        )


def family_rows(*, rounds: int, seconds: float, progress: Progress) -> list[FamilyRow]:
    """Measure all architectures that are not too large, in the catalogue's order.

    Args:
        rounds: number of turns of each variant.
        seconds: duration of a measurement: one batch size in one turn.
        progress: display that gets a task for the comparison.
    """
    chosen = [each for each in catalogue().values() if each.parameters <= LARGEST and each.input.size <= LARGEST_SIDE]
    task = progress.add_task("comparing architectures", total=len(chosen))
    rows = []
    for network in chosen:
        with tempfile.TemporaryDirectory() as folder:
            size = network.input.size
            rows.append(measure_network(network, Path(folder), size=size, rounds=rounds, seconds=seconds))
        progress.advance(task)
    return rows


def measure_network(network: Architecture, folder: Path, *, size: int, rounds: int, seconds: float) -> FamilyRow:
    """Measure one architecture with random weights and 1,000 classes.

    Args:
        network: the architecture.
        folder: for its bundle.
        size: side of the input in pixels.
        rounds: number of turns of each variant.
        seconds: duration of a measurement.

    Raises:
        HalftoneError: the network can't be exported, or does not support that size.
    """
    module = build(network, classes=IMAGENET_CLASSES)
    fit_input_size(module, network, size)
    spec = replace(network.input, size=size)
    bundle = _bundle(network, spec, module, folder)
    make_graphs(bundle, ("fp32",), Console(quiet=True))
    variants = provable_variants(bundle)
    timings, _ = compare_variants(bundle, variants, rounds=rounds, seconds=seconds, advance=lambda: None)
    variant = max(timings, key=lambda name: timings[name].best()[1])
    runtime, precision = runtime_of(variant)
    return FamilyRow(
        name=network.name,
        parameters=network.parameters,
        macs=network.macs,
        size=size,
        top1=network.top1,
        milliseconds=1000 / timings[variant].rates()["batch 1"],
        images_per_second=timings[variant].best()[1],
        served_images_per_second=timings[variant].rates()[f"1 x {cores()}"],
        variant=variant,
        megabytes=bundle.manifest.files[runtime.source(precision)].size / 1e6,
        gpu_milliseconds=_on_gpu(module, spec) if torch.cuda.is_available() else None,
        scenario=network.scenario,
    )


def _bundle(network: Architecture, spec: InputSpec, module: torch.nn.Module, folder: Path) -> Bundle:
    manifest = Manifest(
        name=network.name,
        architecture=network.name,
        input=spec,
        labels=tuple(map(str, range(IMAGENET_CLASSES))),
        trained=False,
        source="random initialisation",
        license="apache-2.0",
    )
    with Bundle.creating(folder / network.name, manifest) as bundle:
        save_weights(bundle, module, made_by="`python -m export.benchmark --all-families`")
    return bundle


@torch.inference_mode()
def _on_gpu(module: torch.nn.Module, spec: InputSpec) -> float:
    """Return the milliseconds of one image in FP16, measured by the GPU's clock."""
    graph = ServingGraph(module.half(), spec).eval().cuda()
    size = spec.size
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8, device="cuda")
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    for _ in range(GPU_CALLS):
        graph(pixels)
    start.record()
    for _ in range(GPU_CALLS):
        graph(pixels)
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / GPU_CALLS

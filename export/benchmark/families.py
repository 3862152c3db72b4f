"""Which architecture to choose: parameters, arithmetic, published accuracy and the time of a picture on this machine.

Weights are random, which changes no speed. Networks of over 400 MB of FP32 weights are left out, and those of over 400
pixels, whose batches in three runtimes at once took over 24 GB (EfficientNet-B7).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from export.benchmark.tables import Cells
from export.benchmark.variants import contest
from export.onnx.export import export_onnx
from export.parity.prove import provable_variants
from models.bundle.bundle import Bundle
from models.bundle.manifest import Manifest
from models.catalog import catalogue
from models.checkpoint import IMAGENET_CLASSES, build, save_weights
from models.graph import ServingGraph
from models.spec import Architecture

LARGEST = 100_000_000
LARGEST_SIDE = 400
GPU_CALLS = 20

FAMILY_HEADINGS: Cells = (
    "name", "params M", "GMACs", "px", "top-1 %", "CPU ms", "CPU images/s", "variant", "GPU ms", "when to choose it",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """One architecture."""

    name: str
    parameters: int
    macs: int
    size: int
    top1: float | None
    """Published ImageNet-1k accuracy in per cent."""

    milliseconds: float
    """Of one picture on all cores, in the fastest variant."""

    images_per_second: float
    """At best, in the same variant."""

    variant: str
    gpu_milliseconds: float | None
    """Of one picture in FP16 on the GPU, by torch; None without a GPU."""

    scenario: str

    def cells(self) -> Cells:
        """The row under `FAMILY_HEADINGS`."""
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
    """All architectures that are not too large, in the catalogue's order.

    Args:
        rounds: how often every variant has its turn.
        seconds: per batch size and turn.
        progress: where to show how far it is.
    """
    chosen = [each for each in catalogue().values() if each.parameters <= LARGEST and each.input.size <= LARGEST_SIDE]
    task = progress.add_task("comparing architectures", total=len(chosen))
    rows = []
    for network in chosen:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_measured(network, Path(folder), rounds, seconds))
        progress.advance(task)
    return rows


def _measured(network: Architecture, folder: Path, rounds: int, seconds: float) -> FamilyRow:
    module = build(network, classes=IMAGENET_CLASSES)
    bundle = _bundle(network, module, folder)
    export_onnx(bundle, "fp32")
    timings, _ = contest(bundle, provable_variants(bundle), rounds=rounds, seconds=seconds, advance=lambda: None)
    variant = max(timings, key=lambda name: timings[name].best()[1])
    return FamilyRow(
        name=network.name,
        parameters=network.parameters,
        macs=network.macs,
        size=network.input.size,
        top1=network.top1,
        milliseconds=1000 / timings[variant].rates()["batch 1"],
        images_per_second=timings[variant].best()[1],
        variant=variant,
        gpu_milliseconds=_on_gpu(module, network) if torch.cuda.is_available() else None,
        scenario=network.scenario,
    )


def _bundle(network: Architecture, module: torch.nn.Module, folder: Path) -> Bundle:
    manifest = Manifest(
        name=network.name,
        architecture=network.name,
        input=network.input,
        labels=tuple(map(str, range(IMAGENET_CLASSES))),
        trained=False,
        source="random initialisation",
        license="apache-2.0",
    )
    with Bundle.creating(folder / network.name, manifest) as bundle:
        save_weights(bundle, module, made_by="`python -m export.benchmark --all-families`")
    return bundle


@torch.inference_mode()
def _on_gpu(module: torch.nn.Module, network: Architecture) -> float:
    """Milliseconds of one picture in FP16, with the GPU's own clock."""
    graph = ServingGraph(module.half(), network.input).eval().cuda()
    size = network.input.size
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

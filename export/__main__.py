"""`python -m export --model NAME`: everything that serving needs, in one command.

    python -m export --model photos --data photos
    python -m export --model resnet50 --weights best_model.pth --labels labels.txt --name mine

Exports the weights to ONNX (FP32, FP16, and INT8 where the processor gains by it), writes a parity record for every
variant that this machine can run, and measures their speed. FP16 that fails its gate is repaired. What is there and
still valid is kept: a second run takes a second. What is damaged, as a killed export may leave it, is made again. About
90 s for EfficientNet-Lite0 on two cores, 50 s with --no-int8. Exit code 1 if no variant passes its gate. A single
variant that fails is reported, and serving refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from export.benchmark import speed
from export.benchmark.choice import best_first
from export.parity.prove import provable_variants
from export.parity.record import current, verdict
from export.pipeline import INT8, drop_damaged, finish_repair, make_variants
from export.variants import load
from models.bundle.bundle import Bundle
from models.bundle.commands import serve_command
from models.bundle.store import exporting, has_bundle
from models.common.cli import ANSWER_IS_NO, DONE, JsonOutput, publish, run
from models.common.host import cores, multiplies_int8
from models.common.text import printable
from models.dataset import check_folder
from models.resolve import FileWeights, architecture_of, open_or_create
from models.spec import NAMED_WEIGHTS


@dataclass(frozen=True, kw_only=True)
class ExportAllConfig(JsonOutput):
    """Export a model to every form that this machine can serve, prove each one and measure its speed."""

    model: str
    """Bundle under artifacts/, or architecture of the catalogue (`python -m models`), or `timm:NAME`."""

    weights: str | None = None
    """For a model without a bundle: `pretrained` (default), `random`, or a checkpoint made elsewhere: a .safetensors,
    .pth, .pt, .ckpt or .pth.tar file with the names of timm or torchvision."""

    file: Annotated[FileWeights, tyro.conf.arg(name="")] = field(default_factory=FileWeights)

    data: Path | None = None
    """Folder of labelled pictures to prove on, one folder per class; default: the sample photographs."""

    int8: bool = field(default_factory=multiplies_int8)
    """Also quantise to 8-bit integers, calibrated on training pictures: half a minute more. On by default where the
    processor has instructions for it (VNNI, AMX, dot product)."""


def export_all(config: ExportAllConfig) -> int:
    """Make what is missing or stale in the bundle, measure the proven variants, and return the exit code."""
    name = config.file.name or config.model
    if not has_bundle(name):
        # Refused before anything is written.
        architecture_of(config.model)
    if config.data is not None:
        check_folder(config.data)
    with exporting(name):
        return _export_all(config, name)


def _export_all(config: ExportAllConfig, name: str) -> int:
    console = Console(stderr=True)
    if not has_bundle(name):
        console.print(f"loading the weights of {name}")
    bundle = open_or_create(config.model, weights=config.weights, data=config.data, file=config.file)
    if config.weights not in (None, *NAMED_WEIGHTS):
        console.print(f"its input is taken to be {bundle.manifest.input}", markup=False, soft_wrap=True)
    dropped = drop_damaged(bundle)
    plan = any("tensorrt_rtx" in name for name in dropped)
    make_variants(bundle, data=config.data, int8=config.int8 or INT8 in dropped, plan=plan)
    proven = [variant for variant in provable_variants(bundle) if verdict(bundle, variant) == "PASSED"]
    rates = _rates(bundle, proven, console)
    best = next(iter(best_first(rates, {variant: current(bundle, variant) for variant in rates})), None)
    finish_repair(bundle, dropped)
    publish({"bundle": str(bundle.folder), "proven": proven, "images_per_second": rates, "chosen": best})
    print(f"{printable(bundle.folder)} holds {', '.join(proven) or 'nothing'} proven; serves here: {best or 'none'}")
    if proven:
        print(f"serve it with `{serve_command(bundle.folder, bundle.manifest)}`")
    return DONE if proven else ANSWER_IS_NO


def _rates(bundle: Bundle, variants: list[str], console: Console) -> dict[str, float]:
    """Return the images/s of each variant on this machine, measured unless the bundle has them."""
    if variants and speed.recorded(bundle, variants) is None:
        console.print(f"measuring the speed of {len(variants)} variants")
        loaders = {each: partial(load, bundle, each, threads=cores(), streams=cores()) for each in variants}
        speed.save(bundle, speed.measure(bundle, loaders))
    return speed.recorded(bundle, variants) or {}


if __name__ == "__main__":
    run(export_all, ExportAllConfig, prog="python -m export", example="--model photos --data photos")

"""`python -m export --model NAME`: everything that serving needs, in one command.

Weights to ONNX (FP32, FP16), a parity record for every variant that this machine can run, and their speed here. FP16
that fails its gate is repaired. What is there and still valid is kept, so a second run takes a second. About 50 s for
EfficientNet-Lite0 on two cores. Exit code 1 where no variant passed its gate; a single one that failed is reported and
stays out of service.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from rich.console import Console

from export.benchmark import speed
from export.parity.prove import provable_variants, prove_and_print
from export.parity.record import UnprovenError, Verdict, current
from export.variants import load, runtime_of
from models.bundle.bundle import Bundle
from models.bundle.store import has_bundle, open_bundle
from models.common.cli import ANSWER_IS_NO, DONE, run
from models.common.host import cores
from models.resolve import open_or_create

GRAPHS = ("fp32", "fp16")
FP16 = "onnxruntime-fp16"


@dataclass(frozen=True, kw_only=True)
class ExportAllConfig:
    """Export a model to every form that this machine can serve, prove each one and measure its speed."""

    model: str
    """Bundle under artifacts/, or architecture of the catalogue (`python -m models`)."""

    weights: str | None = None
    """For a model without a bundle: `pretrained` (default), `random`, or a .safetensors file."""

    data: Path | None = None
    """Folder of labelled pictures to prove on, one folder per class; default: the sample photographs."""

    int8: bool = False
    """Also quantise to 8-bit integers, calibrated on training pictures: two minutes more."""


def export_all(config: ExportAllConfig) -> int:
    """Make what is missing or stale in the bundle; returns the exit code."""
    console = Console(stderr=True)
    bundle = _open(config, console)
    for precision in GRAPHS:
        if not bundle.has(f"model.{precision}.onnx"):
            _export(bundle, precision, console)
    variants = provable_variants(bundle)
    unjudged = [variant for variant in variants if _verdict(bundle, variant) is None]
    if unjudged:
        prove_and_print(bundle, unjudged, data=config.data)
    if _verdict(bundle, FP16) == "FAILED" and not bundle.has("model.fp16.json"):
        from export.onnx.fp16.repair import repair_and_print

        repair_and_print(bundle, data=config.data)
    if config.int8 and not bundle.has("model.int8.onnx"):
        from export.onnx.int8 import export_int8_and_print

        export_int8_and_print(bundle, data=config.data, calibrate_on=None)
    variants = provable_variants(bundle)
    proven = [variant for variant in variants if _verdict(bundle, variant) == "PASSED"]
    rates = _rates(bundle, proven, console)
    best = max(rates, key=lambda variant: rates[variant], default="none")
    print(f"{bundle.folder} holds {', '.join(proven) or 'nothing'} proven; fastest here: {best}")
    return DONE if proven else ANSWER_IS_NO


def _open(config: ExportAllConfig, console: Console) -> Bundle:
    if has_bundle(config.model) and config.weights is None:
        return open_bundle(config.model)
    console.print(f"loading the weights of {config.model}")
    return open_or_create(config.model, weights=config.weights)


def _export(bundle: Bundle, precision: str, console: Console) -> None:
    console.print(f"exporting {bundle.manifest.name} to ONNX {precision.upper()}")
    from export.onnx.export import Precision, export_onnx

    export_onnx(bundle, next(known for known in get_args(Precision) if known == precision))


def _verdict(bundle: Bundle, variant: str) -> Verdict | None:
    """The verdict for the present files and the installed library; None where there is none."""
    try:
        record = current(bundle, variant)
    except UnprovenError:
        return None
    return record.verdict if record.runtime["version"] == runtime_of(variant)[0].version() else None


def _rates(bundle: Bundle, variants: list[str], console: Console) -> dict[str, float]:
    """Images/s of each variant on this machine, measured unless the bundle knows them."""
    if variants and speed.recorded(bundle, variants) is None:
        console.print(f"measuring the speed of {len(variants)} variants")
        loaders = {each: partial(load, bundle, each, threads=cores(), streams=cores()) for each in variants}
        speed.save(bundle, speed.measure(bundle, loaders))
    return speed.recorded(bundle, variants) or {}


if __name__ == "__main__":
    run(export_all, ExportAllConfig, prog="python -m export")

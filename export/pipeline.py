"""Everything that can be made of a model on this machine: ONNX graphs, INT8, a TensorRT plan, each with its proof."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from export.parity.prove import provable_variants, prove_and_print
from export.parity.record import UnprovenError, current
from export.trt.library import installed, library
from export.trt.profile import Profile
from export.trt.sidecar import Sidecar, plan_name
from models.bundle.bundle import Bundle
from models.bundle.store import has_bundle, open_bundle
from models.common.errors import HalftoneError
from models.resolve import open_or_create

LARGE = Profile(optimum=64, maximum=256)
"""For comparisons with batches of up to 256."""


def make_variants(name: str, *, data: Path | None) -> Bundle:
    """Export and prove what the bundle lacks; what fails its gate stays, with its record.

    Args:
        name: a bundle, or an architecture of the catalogue, which then gets random weights.
        data: folder of labelled pictures to prove on, or None for the sample photographs.

    Raises:
        HalftoneError: the model is unknown, or something can't be made.
    """
    bundle = open_bundle(name) if has_bundle(name) else open_or_create(name, weights="random")
    make_graphs(bundle, data=data)
    if not bundle.has("model.int8.onnx"):
        from export.onnx.int8 import export_int8_and_print

        export_int8_and_print(bundle, data=data, calibrate_on=None)
    missing = [variant for variant in provable_variants(bundle) if not _judged(bundle, variant)]
    if missing:
        prove_and_print(bundle, missing, data=data)
    if installed("tensorrt_rtx") and not bundle.has(plan_name("tensorrt_rtx", "fp16")):
        _make_plan(bundle, data)
    return bundle


def make_for_gpu(name: str) -> Bundle:
    """The FP16 graph and, where a library for it is installed, the plan of a TensorRT; nothing is proved here.

    A plan that can't be built is said on the standard error stream, and is missing.

    Args:
        name: a bundle, or an architecture of the catalogue, which then gets random weights.

    Raises:
        HalftoneError: the model is unknown, or the graph can't be made.
    """
    from export.onnx.export import export_onnx

    bundle = open_bundle(name) if has_bundle(name) else open_or_create(name, weights="random")
    if not bundle.has("model.fp16.onnx"):
        export_onnx(bundle, "fp16")
    for edition in ("tensorrt", "tensorrt_rtx"):
        if installed(edition) and not bundle.has(plan_name(edition, "fp16")):
            try:
                _build_plan(bundle, edition, LARGE)
            except HalftoneError as error:
                Console(stderr=True).print(f"no plan of {edition}: {error}", markup=False)
    return bundle


def make_graphs(bundle: Bundle, *, data: Path | None) -> None:
    """The FP32 graph and an FP16 graph, repaired where plain FP16 fails its gate."""
    console = Console(stderr=True)
    # Imported here, as torch takes seconds and a bundle that is complete needs none of it.
    from export.onnx.export import export_onnx
    from export.onnx.fp16.repair import repair_and_print

    for precision in ("fp32", "fp16"):
        if not bundle.has(f"model.{precision}.onnx"):
            console.print(f"exporting {bundle.manifest.name} to ONNX {precision.upper()}")
            export_onnx(bundle, "fp32" if precision == "fp32" else "fp16")
    if not _judged(bundle, "onnxruntime-fp16"):
        prove_and_print(bundle, ["onnxruntime-fp16"], data=data)
        repair_and_print(bundle, data=data)


def _judged(bundle: Bundle, variant: str) -> bool:
    try:
        current(bundle, variant)
    except UnprovenError:
        return False
    return True


def _make_plan(bundle: Bundle, data: Path | None) -> None:
    from export.trt.plan import prove_plan

    prove_plan(bundle, _build_plan(bundle, "tensorrt_rtx", Profile()), data)


def _build_plan(bundle: Bundle, edition: str, profile: Profile) -> Sidecar:
    from export.trt.plan import export_plan

    with Progress(console=Console(stderr=True), transient=True) as progress:
        return export_plan(bundle, library(edition), "fp16", profile=profile, capabilities=(), progress=progress)

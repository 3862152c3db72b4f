"""Choose an edition of TensorRT, build a bundle's plan with it, and prove the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.progress import Progress

from export.cuda.device import has_gpu
from export.parity.prove import prove_and_print
from export.trt.builder import Plan, build
from export.trt.library import PACKAGES, Library, installed, library
from export.trt.profile import Profile
from export.trt.sidecar import Sidecar, build_command, plan_name, sidecar_name
from export.variants import runtime_class
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.onnx_external import external_locations
from models.common.errors import HalftoneError

Precision = Literal["fp16", "fp32"]
Edition = Literal["auto", "tensorrt", "tensorrt_rtx"]


def choose(edition: Edition) -> Library:
    """Import the requested edition of TensorRT; for `auto`, the edition that can build on this machine.

    Raises:
        HalftoneError: the edition is not installed.
    """
    if edition != "auto":
        return library(edition)
    if installed("tensorrt") and has_gpu():
        return library("tensorrt")
    if installed("tensorrt_rtx"):
        return library("tensorrt_rtx")
    raise HalftoneError(
        "no TensorRT that builds on this machine is installed: "
        f"`pip install {PACKAGES['tensorrt_rtx']}` (RTX GPUs; builds without one), or on a machine with a data-centre "
        f"GPU `pip install '{PACKAGES['tensorrt']}'`"
    )


def export_plan(
    bundle: Bundle,
    edition: Library,
    precision: Precision,
    *,
    profile: Profile,
    capabilities: tuple[str, ...],
    requested: tuple[str, ...] = (),
    progress: Progress,
) -> Sidecar:
    """Build a plan from the bundle's graph and write the plan and its description to the bundle.

    Args:
        bundle: the opened bundle; a missing or stale graph is exported first.
        edition: of TensorRT, from `choose`.
        precision: of the graph and therefore of the plan.
        profile: batch sizes.
        capabilities: GPUs to build for, from `export.trt.builder.targets`.
        requested: GPUs that the user named, for the recorded command.
        progress: shows the progress of the build.

    Raises:
        HalftoneError: the library can't build from this graph, or the built network has another precision.
    """
    graph = f"model.{precision}.onnx"
    if not bundle.has(graph):
        progress.console.print(f"exporting {bundle.name} to ONNX {precision.upper()}")
        from export.onnx.export import export_onnx

        export_onnx(bundle, precision)
    data = bundle.read(graph)
    if external := external_locations(data):
        raise HalftoneError(
            f"{graph} of {bundle.folder} stores tensors in {external[0]}, and plans are built from whole graphs only: "
            f"export it again with `python -m export.onnx --model {bundle.name} --precision {precision}`"
        )
    plan = build(
        edition, data, name=graph, precision=precision, profile=profile, capabilities=capabilities, progress=progress
    )
    command = build_command(bundle.name, edition.name, precision, profile=profile, capabilities=requested)
    return _write(bundle, edition, precision, profile, graph, plan, command)


def _write(
    bundle: Bundle, edition: Library, precision: Precision, profile: Profile, graph: str, plan: Plan, command: str
) -> Sidecar:
    name = plan_name(edition.name, precision)
    bundle.write(name, plan.data, made_by=command, made_from=[WEIGHTS, graph])
    files = bundle.manifest.files
    sidecar = Sidecar(
        runtime=edition.name,
        version=edition.version,
        precision=precision,
        compute_capabilities=plan.compute_capabilities,
        profile=profile,
        onnx=graph,
        onnx_sha256=files[graph].sha256,
        plan_sha256=files[name].sha256,
        model_version=bundle.manifest.version,
        histogram=plan.histogram,
        build_seconds=plan.seconds,
        size=files[name].size,
    )
    bundle.write(sidecar_name(edition.name, precision), sidecar.to_json(), made_by=command, made_from=[name])
    return sidecar


def prove_plan(bundle: Bundle, sidecar: Sidecar, data: Path | None) -> int:
    """Prove a plan, or its graph if this machine can't run the plan; return the exit code."""
    variant = f"{sidecar.runtime}-{sidecar.precision}"
    if runtime_class(sidecar.runtime).supported(sidecar.precision):
        return prove_and_print(bundle, [variant], data=data)
    code = prove_and_print(bundle, [variant], data=data, graphs={variant: f"onnxruntime-{sidecar.precision}"})
    print(
        f"this machine can't run {variant}, so its graph was proved on ONNX Runtime: before the plan can serve, run "
        f"`python -m export.parity --model {bundle.name} --variant {variant}` on a machine with the GPU"
    )
    return code

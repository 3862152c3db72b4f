"""`python -m export.trt --model vit_b16 [--precision fp16|fp32]`: a bundle's ONNX graph to a TensorRT plan.

Writes `engines/RUNTIME-PRECISION.plan` and beside it a `.json` with versions, GPUs, batch sizes, the graph's hash and
the precision histogram read back from the built network. With TensorRT for RTX this needs no GPU. The build itself
takes seconds (ViT-B/16: 5 s on two cores), a missing ONNX graph is exported first. Where there is a GPU the plan is
proved on it; elsewhere its graph is, on ONNX Runtime, which takes as long as `export.parity`, and the plan may not
serve before it was run itself (`export.trt.first_load`). Exit code 1 where the parity gate fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.progress import Progress

from export.cuda.device import has_gpu
from export.parity.prove import prove_and_print
from export.trt.builder import Plan, build, targets
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
    """Import the edition of TensorRT that was asked for; for `auto` the one that can build on this machine.

    Raises:
        HalftoneError: it is not installed.
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
    progress: Progress,
) -> Sidecar:
    """Build a plan from the bundle's graph and write it, with its description, into the bundle.

    Args:
        bundle: the opened bundle; a graph that is missing or stale is exported first.
        edition: of TensorRT, from `choose`.
        precision: of the graph and so of the plan.
        profile: batch sizes.
        capabilities: GPUs to build for; empty for the default of `export.trt.builder.targets`.
        progress: where to show how far it is.

    Raises:
        HalftoneError: the library can't build for these GPUs or from this graph, or the network that came out is of
            another precision.
    """
    gpus = targets(edition, capabilities)
    graph = f"model.{precision}.onnx"
    if not bundle.has(graph):
        progress.console.print(f"exporting {bundle.manifest.name} to ONNX {precision.upper()}")
        from export.onnx.export import export_onnx

        export_onnx(bundle, precision)
    data = bundle.read(graph)
    if outer := external_locations(data):
        raise HalftoneError(
            f"{graph} of {bundle.folder} keeps tensors in {outer[0]}, and plans are built from whole graphs: "
            f"export it again with {bundle.manifest.files[graph].made_by}"
        )
    plan = build(edition, data, name=graph, precision=precision, profile=profile, capabilities=gpus, progress=progress)
    command = build_command(bundle.manifest.name, edition.name, precision, profile=profile, capabilities=capabilities)
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
    """Prove a plan, or without its GPU the graph that it was built from; returns the exit code."""
    variant = f"{sidecar.runtime}-{sidecar.precision}"
    if runtime_class(sidecar.runtime).supported(sidecar.precision):
        return prove_and_print(bundle, [variant], data=data)
    code = prove_and_print(bundle, [variant], data=data, graphs={variant: f"onnxruntime-{sidecar.precision}"})
    print(
        f"this machine can't run {variant}, so its graph was checked on ONNX Runtime: the plan serves after "
        f"`python -m export.parity --model {bundle.manifest.name} --variant {variant}` on a machine with the GPU"
    )
    return code

"""Model repository of NVIDIA Triton: the proven ONNX graph, and the proven TensorRT plan if the bundle has one.

NAME/config.pbtxt  NAME/labels.txt  NAME/1/model.onnx      backend onnxruntime, CPU
NAME-tensorrt/…                     NAME-tensorrt/1/model.plan
README.md  classify.py  client.json
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from export.exchange.batches import measured_batches
from export.exchange.guide import LABELS, write_guide
from export.exchange.proven import Proven, fastest_proven
from export.exchange.staging import new_folder
from export.parity.record import UnprovenError
from export.trt.profile import Profile
from export.trt.sidecar import Sidecar, sidecar_name
from models.bundle.bundle import Bundle
from models.bundle.manifest import Manifest
from models.common.files import write_atomic

GRAPH, PLAN = "onnxruntime", "tensorrt"
LARGEST = Profile().maximum
"""Largest batch of the graph: the one that plans have by default."""

_CONFIG = """# Halftone {name}, version {version}, {summary}
name: {quoted}
{backend}
max_batch_size: {largest}
input [ {{ name: "pixels" data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] }} ]
output [ {{ name: "logits" data_type: TYPE_FP32 dims: [ {classes} ] label_filename: "{labels}" }} ]
instance_group [ {{ count: 1 kind: {kind} }} ]
{batching}"""

_START = """```sh
docker run --rm -p 8000:8000 -p 8001:8001 --volume "$PWD":/models:ro nvcr.io/nvidia/tritonserver:TAG \\
  tritonserver --model-repository=/models
```

{batches}
`instance_group` in `config.pbtxt` decides how many batches run at once.
{plan}"""


def push_triton(bundle: Bundle, folder: Path) -> list[str]:
    """Write a model repository of the fastest proven variants into a new folder, or nothing.

    Args:
        bundle: the opened bundle.
        folder: must be missing or empty.

    Returns:
        The variants.

    Raises:
        UnprovenError: no variant of ONNX Runtime on the CPU is proven.
        HalftoneError: the folder is not empty, or as `fastest_proven`.
    """
    manifest = replace(bundle.manifest, name=bundle.name)
    graph, plan = fastest_proven(bundle, GRAPH), _plan(bundle)
    sizes = measured_batches(bundle, graph.record.variant)
    with new_folder(folder) as stage:
        model = stage / manifest.name
        write_atomic(model / "1" / "model.onnx", graph.data)
        config = _config(manifest, manifest.name, graph, 'backend: "onnxruntime"', "KIND_CPU", LARGEST, sizes)
        write_atomic(model / "config.pbtxt", config)
        if plan:
            _write_plan(stage, bundle, manifest, plan)
        write_guide(
            stage,
            manifest,
            server="Triton",
            labels=f"{manifest.name}/{LABELS}",
            proofs=[each.summary for each in (graph, plan) if each],
            start=_START.format(batches=_batches(graph, sizes), plan=_about_plan(bundle, plan)),
        )
    return [each.record.variant for each in (graph, plan) if each]


def _plan(bundle: Bundle) -> Proven | None:
    """Return the proven plan; None without one. Triton doesn't load those of TensorRT for RTX."""
    try:
        return fastest_proven(bundle, PLAN)
    except UnprovenError:
        return None


def _write_plan(stage: Path, bundle: Bundle, manifest: Manifest, plan: Proven) -> None:
    profile = _sidecar(bundle, plan).profile
    name = f"{manifest.name}-{PLAN}"
    config = _config(manifest, name, plan, 'platform: "tensorrt_plan"', "KIND_GPU", profile.maximum, (profile.optimum,))
    write_atomic(stage / name / "1" / "model.plan", plan.data)
    write_atomic(stage / name / "config.pbtxt", config)
    write_atomic(stage / name / LABELS, ("\n".join(manifest.labels) + "\n").encode())


def _sidecar(bundle: Bundle, plan: Proven) -> Sidecar:
    return Sidecar.from_json(bundle.read(sidecar_name(PLAN, plan.precision)))


def _config(
    manifest: Manifest,
    name: str,
    proven: Proven,
    backend: str,
    kind: str,
    largest: int,
    sizes: tuple[int, ...] | None,
) -> bytes:
    """Return `config.pbtxt`: batches of the measured sizes, of any size if none were measured, none if none pay."""
    text = _CONFIG.format(
        name=name,
        version=manifest.version,
        summary=proven.summary,
        # A JSON string is one of protobuf's text format too.
        quoted=json.dumps(name),
        backend=backend,
        largest=largest,
        size=manifest.input.size,
        classes=len(manifest.labels),
        labels=LABELS,
        kind=kind,
        batching=_batching(sizes),
    )
    return text.encode()


def _batching(sizes: tuple[int, ...] | None) -> str:
    if sizes is None:
        return "dynamic_batching { }\n"
    preferred = ", ".join(map(str, sizes))
    return f"dynamic_batching {{ preferred_batch_size: [ {preferred} ] }}\n" if sizes else ""


def _batches(graph: Proven, sizes: tuple[int, ...] | None) -> str:
    if sizes is None:
        return f"Batch sizes of `{graph.record.variant}` were not measured, so Triton joins whatever waits."
    if not sizes:
        return (
            f"Batches of `{graph.record.variant}` brought nothing when they were measured, so Triton joins no requests."
        )
    return f"Preferred batches of {', '.join(map(str, sizes))}: those that raised the measured throughput."


def _about_plan(bundle: Bundle, plan: Proven | None) -> str:
    if plan is None:
        return ""
    sidecar = _sidecar(bundle, plan)
    return (
        f"\n`{bundle.name}-{PLAN}` is the plan of TensorRT {sidecar.version} for compute capability "
        f"{', '.join(sidecar.compute_capabilities)}: it loads in no other version and on no other GPU. "
        "Choose the image with that version.\n"
    )

"""Export pipeline: ONNX graphs, their parity proofs, FP16 repair, INT8 and TensorRT plans of one bundle.

Every step keeps what the bundle has and what is still valid: for the present files, library versions and GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from export.parity.card import write_card
from export.parity.images import shows
from export.parity.promises import lacks_promises
from export.parity.prove import provable_variants, prove_and_print
from export.parity.record import current, verdict
from export.trt.library import installed, library
from export.trt.profile import Profile
from export.trt.sidecar import Sidecar, plan_name
from models.bundle.bundle import EXPLAIN, PROMISES, WEIGHTS, Bundle, exported
from models.bundle.card import CARD
from models.bundle.commands import in_folder
from models.bundle.drift import DRIFT
from models.bundle.store import has_bundle
from models.common.errors import HalftoneError
from models.common.text import printable
from models.resolve import open_or_create

if TYPE_CHECKING:
    from export.onnx.export import Precision

FP16 = "onnxruntime-fp16"
INT8 = "model.int8.onnx"

LARGE = Profile(optimum=64, maximum=256)
"""For comparisons with batches of up to 256."""


def open_or_random(name: str) -> Bundle:
    """Open a bundle, or create it from the catalogue's architecture with random weights: they change no speed.

    Raises:
        HalftoneError: `name` is neither a bundle nor an architecture.
    """
    return open_or_create(name, weights=None if has_bundle(name) else "random")


def make_variants(bundle: Bundle, *, data: Path | None, int8: bool = False, plan: bool = False) -> None:
    """Add what the bundle lacks; a variant that fails its gate stays, with its record.

    FP16 that fails is repaired once: `model.fp16.json` lists the attempts.

    Args:
        bundle: the opened bundle.
        data: folder of labelled images to prove on, or None for the sample photographs.
        int8: also quantise to INT8.
        plan: also build a TensorRT-RTX plan of the FP16 graph, if the library is installed. Because a GPU rounds every
            result, the graph is then also repaired if it passes on the CPU and fails with every result rounded.

    Raises:
        HalftoneError: something can't be exported, loaded or proved.
    """
    make_graphs(bundle, ("fp32", "fp16"), Console(stderr=True))
    if not bundle.has(EXPLAIN):
        # Imported here, like the others below: a complete bundle needs none of what they import.
        from export.explain.graph import export_explanation

        export_explanation(bundle)
    _prove_missing(bundle, data)
    if not bundle.has("model.fp16.json") and (plan or verdict(bundle, FP16) == "FAILED"):
        from export.onnx.fp16.repair import repair_and_print

        repair_and_print(bundle, data=data)
    if int8 and not bundle.has(INT8):
        from export.onnx.int8 import export_int8_and_print

        export_int8_and_print(bundle, data=data, calibrate_on=None)
    # A repaired graph makes the records of other runtimes that load it stale.
    _prove_missing(bundle, data)
    if plan and installed("tensorrt_rtx") and not bundle.has(plan_name("tensorrt_rtx", "fp16")):
        from export.trt.plan import prove_plan

        prove_plan(bundle, _build_plan(bundle, "tensorrt_rtx", Profile()), data)


def drop_damaged(bundle: Bundle) -> list[str]:
    """Take what is damaged out of the bundle for `make_variants` to make again; return the names of these files.

    An export that is killed between a file and the manifest leaves such a file. What training made stays listed, with a
    line about it; nothing that serves needs it.

    Raises:
        BundleError: the weights are damaged, or a file is a link.
    """
    damaged = bundle.damaged()
    if WEIGHTS in damaged:
        raise damaged[WEIGHTS]
    console = Console(stderr=True, soft_wrap=True)
    groups = [_with(name) for name in damaged if exported(name) or name.startswith("engines/")]
    dropped = bundle.drop_damaged(groups) if groups else []
    for name, error in damaged.items():
        if name in dropped:
            console.print(
                f"{printable(bundle.folder / name)} is damaged, as a killed export may leave it", markup=False
            )
        else:
            console.print(str(error), markup=False)
    return dropped


def finish_repair(bundle: Bundle, dropped: Collection[str]) -> None:
    """Write the model card if it is one of the dropped files, and print what was made again and what was not."""
    if CARD in dropped:
        write_card(bundle)
    again = [name for name in dropped if name in bundle.manifest.files]
    if again:
        print(f"repaired {printable(bundle.folder)}: made {', '.join(again)} again")
    for name in sorted(set(dropped) - set(again)):
        proof = in_folder(bundle.folder, f"python -m export.parity --model {bundle.name} --data DIR")
        way_out = f"; `{proof}` with labelled pictures makes it again" if name in (PROMISES, DRIFT) else ""
        print(
            f"{printable(bundle.folder / name)} was damaged and can't be made again here: the bundle doesn't list it "
            f"any longer{way_out}"
        )


def _with(name: str) -> tuple[str, str]:
    """Return a file with the one that is made together with it: the graph of a record of attempts, a plan's sidecar."""
    path = PurePosixPath(name)
    if name.startswith("engines/"):
        return str(path.with_suffix(".plan")), str(path.with_suffix(".json"))
    return name, str(path.with_suffix(".onnx")) if path.name.startswith("model.") else name


def make_graphs(bundle: Bundle, precisions: Sequence[Precision], console: Console) -> None:
    """Export the graphs that are missing or stale; nothing is proved.

    Args:
        bundle: the opened bundle.
        precisions: of the graphs.
        console: gets a line for each exported graph.

    Raises:
        HalftoneError: as `export.onnx.export.export_onnx`.
    """
    for precision in precisions:
        if not bundle.has(f"model.{precision}.onnx"):
            from export.onnx.export import export_onnx

            console.print(f"exporting {bundle.name} to ONNX {precision.upper()}")
            export_onnx(bundle, precision)


def make_for_gpu(name: str) -> Bundle:
    """Make the FP16 graph and a plan of each installed TensorRT edition; nothing is proved.

    A plan that can't be built is missing; the reason goes to the standard error stream.

    Args:
        name: as for `open_or_random`.

    Raises:
        HalftoneError: the model is unknown, or the graph can't be exported.
    """
    console = Console(stderr=True)
    bundle = open_or_random(name)
    make_graphs(bundle, ("fp16",), console)
    for edition in ("tensorrt", "tensorrt_rtx"):
        if installed(edition) and not bundle.has(plan_name(edition, "fp16")):
            try:
                _build_plan(bundle, edition, LARGE)
            except HalftoneError as error:
                console.print(f"no plan of {edition}: {error}", markup=False)
    return bundle


def _prove_missing(bundle: Bundle, data: Path | None) -> None:
    provable = provable_variants(bundle)
    missing = [variant for variant in provable if not _is_proved(bundle, variant, data)]
    if not missing and lacks_promises(bundle, data):
        # Any proof runs the reference, which they are fitted on.
        missing = provable[:1]
    if missing:
        prove_and_print(bundle, missing, data=data)


def _is_proved(bundle: Bundle, variant: str, data: Path | None) -> bool:
    """Return True if the variant has a verdict, on the labelled images of `data` if they are given."""
    if verdict(bundle, variant) is None:
        return False
    if data is None:
        return True
    record = current(bundle, variant)
    count = record.figures["images"] + len(record.data["unreadable"])
    return shows(data, bundle, record.data["description"], count)


def _build_plan(bundle: Bundle, edition: str, profile: Profile) -> Sidecar:
    from export.trt.builder import targets
    from export.trt.plan import export_plan

    capabilities = targets(library(edition), ())
    with Progress(console=Console(stderr=True), transient=True) as progress:
        return export_plan(
            bundle, library(edition), "fp16", profile=profile, capabilities=capabilities, progress=progress
        )

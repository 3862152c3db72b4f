"""Build a TensorRT plan from a bundle's ONNX graph: `python -m export.trt --model vit_b16 [--precision fp16|fp32]`.

Writes `engines/RUNTIME-PRECISION.plan` and next to it a `.json` with versions, GPUs, batch sizes, the graph's hash and
the precision histogram read back from the built network. TensorRT for RTX builds without a GPU. The build itself takes
seconds (ViT-B/16: 5 s on two cores); a missing ONNX graph is exported first. With a GPU, the command proves the plan on
the GPU. Without a GPU, it proves the graph on ONNX Runtime, which takes as long as `export.parity`, and the plan does
not serve until it has been run on a GPU (`export.trt.first_load`). Exit code 1 if the parity gate fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from export.trt.builder import targets
from export.trt.histogram import arithmetic
from export.trt.plan import Edition, Precision, choose, export_plan, prove_plan
from export.trt.profile import Profile
from export.trt.sidecar import plan_name
from models.common.cli import DONE, run
from models.resolve import open_or_create


@dataclass(frozen=True, kw_only=True)
class TrtConfig:
    """Build a TensorRT plan of a model and prove it."""

    model: str
    """Bundle under artifacts/, or architecture of the catalogue (`python -m models`), or `timm:NAME`."""

    precision: Precision = "fp16"
    """Number format of the graph, which is exported first if the bundle does not have it."""

    runtime: Edition = "auto"
    """`tensorrt` for this machine's NVIDIA GPU, `tensorrt_rtx` for RTX GPUs anywhere; auto: one that can build here."""

    min_batch: int = 1
    """Smallest batch."""

    opt_batch: int = 8
    """The batch that the plan is optimised for."""

    max_batch: int = 64
    """Largest batch; the runtime splits larger batches."""

    compute_capability: tuple[str, ...] = ()
    """GPUs to build for, such as 8.6 8.9; default: all RTX GPUs since Ampere, or the GPU of this machine."""

    weights: str | None = None
    """For a model without a bundle: `pretrained` (default), `random`, or a .safetensors, .pth or .ckpt file."""

    data: Path | None = None
    """Folder of labelled pictures to prove on, one folder per class; default: the sample photographs."""

    parity: bool = True
    """Prove the plan, or without a GPU its graph, after building."""

    def __post_init__(self) -> None:
        _ = self.profile

    @property
    def profile(self) -> Profile:
        """The batch sizes.

        Raises:
            HalftoneError: they are not in order.
        """
        return Profile(minimum=self.min_batch, optimum=self.opt_batch, maximum=self.max_batch)


def _main(config: TrtConfig) -> int:
    # A wrong edition or GPU is an error before a bundle is created.
    edition = choose(config.runtime)
    capabilities = targets(edition, config.compute_capability)
    bundle = open_or_create(config.model, weights=config.weights, data=config.data)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        sidecar = export_plan(
            bundle,
            edition,
            config.precision,
            profile=config.profile,
            capabilities=capabilities,
            requested=config.compute_capability,
            progress=progress,
        )
    formats = ", ".join(f"{count} {name}" for name, count in sorted(arithmetic(sidecar.histogram).items()))
    print(
        f"wrote {bundle.folder / plan_name(edition.name, config.precision)} ({sidecar.size / 1e6:.1f} MB, "
        f"{edition.name} {edition.version}, {sidecar.build_seconds:.1f} s) for compute capability "
        f"{', '.join(sidecar.compute_capabilities)}; convolutions and matrix products: {formats}"
    )
    return prove_plan(bundle, sidecar, config.data) if config.parity else DONE


if __name__ == "__main__":
    run(_main, TrtConfig, prog="python -m export.trt", example="--model photos --precision fp16 --runtime tensorrt_rtx")

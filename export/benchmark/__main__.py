"""`python -m export.benchmark --model NAME`: every variant of a model side by side: size, speed, parity, verdict.

    python -m export.benchmark --model efficientnet_lite0
    python -m export.benchmark --model resnet18 --model vit_ti16 --make --output variants.md
    python -m export.benchmark --all-families                        which architecture to choose, on this machine
    python -m export.benchmark --device cuda --make --model resnet50 --model vit_b16      engines on a GPU

Variants are timed in turns in one run; the ratio is to ONNX Runtime FP32 at its best. With --make what is missing is
exported and proved first, from random weights where a model has no bundle. About 20 s a model with five variants, and
with --make one to five minutes more on two cores. On a GPU, PyTorch, ONNX Runtime and TensorRT in FP16 are timed from
pixels to logits in the host's memory, beside the rates of a matrix product, of copies and of decoding; four models take
less than eight minutes. Exit code 0 whatever the verdicts: they are in the table.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import Progress

from export.benchmark.gpu.table import CUDA_HEADINGS, ceilings_line, cuda_cells
from export.benchmark.tables import Cells, as_markdown, as_text
from export.benchmark.variants import Timing, contest
from export.parity.prove import provable_variants
from export.parity.record import UnprovenError, current
from export.pipeline import make_for_gpu, make_variants
from export.variants import runtime_of
from models.bundle.bundle import Bundle
from models.bundle.store import open_bundle
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.common.host import host

PROG = "python -m export.benchmark"
BASE = "onnxruntime-fp32"

HEADINGS: Cells = (
    "model", "variant", "MB", "ms batch 1", "images/s batch 1", "batch 8", "best", "ratio", "accuracy", "agreement",
    "verdict",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time every variant of models on this machine, beside what their proofs say."""

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Bundle under artifacts/, or with --make an architecture of the catalogue; may be repeated."""

    make: bool = False
    """Export and prove what is missing first: FP32, FP16, INT8 and, where the library is installed, a TensorRT plan."""

    all_families: bool = False
    """Compare the architectures of the catalogue instead, with random weights: size, arithmetic, accuracy, time."""

    device: Literal["cpu", "cuda"] = "cpu"
    """`cuda`: the first NVIDIA GPU, in FP16 (needs PyTorch built for it)."""

    compiled: bool = True
    """On a GPU: time `torch.compile` too, which takes half a minute a batch size."""

    minutes: float = 8.0
    """On a GPU: begin nothing new after so many."""

    data: Path | None = None
    """With --make: folder of labelled pictures to prove on; default: the sample photographs."""

    rounds: int = 3
    """How often every variant has its turn."""

    seconds: float = 0.5
    """Per batch size and turn."""

    format: Literal["table", "markdown", "json"] = "table"
    """What is printed."""

    output: Path | None = None
    """File besides: `.md` for Markdown, `.json` for every figure."""

    def __post_init__(self) -> None:
        if self.all_families == bool(self.model):
            raise HalftoneError(f"name models, as in `{PROG} --model efficientnet_lite0`, or give --all-families alone")
        if self.rounds < 1 or not 0 < self.seconds <= 60:
            raise HalftoneError("--rounds must be 1 or more, and --seconds between 0 and 60")
        if self.device == "cuda" and (self.all_families or self.data):
            raise HalftoneError("--device cuda goes with --model and --make; --all-families and --data are without it")
        if self.output is not None and self.output.suffix not in (".md", ".json"):
            raise HalftoneError(f"--output {self.output} must end in .md or .json")


def benchmark_model(bundle: Bundle, *, rounds: int, seconds: float, progress: Progress) -> dict[str, Any]:
    """Every variant of one bundle.

    Args:
        bundle: with its parity records.
        rounds: how often each variant has its turn.
        seconds: per batch size and turn.
        progress: where to show how far it is.

    Returns:
        JSON-ready: `model`, `trained` and `variants`, by name: `bytes`, `rates` (images/s by way of asking), `best`,
        `ratio` to ONNX Runtime FP32, `milliseconds` (batch 1), `parity` (verdict, reasons and figures), or `reason`
        where it can't be run here.

    Raises:
        HalftoneError: the bundle has nothing to run.
    """
    here, elsewhere = provable_variants(bundle), _recorded(bundle)
    if not here:
        raise HalftoneError(
            f"{bundle.folder} has no variants: make them with `{PROG} --model {bundle.manifest.name} --make`"
        )
    task = progress.add_task(f"timing {bundle.manifest.name}", total=rounds * len(here))
    timings, refused = contest(bundle, here, rounds=rounds, seconds=seconds, advance=lambda: progress.advance(task))
    base = timings[BASE].best()[1] if BASE in timings else None
    rows = {
        variant: _row(bundle, variant, timings.get(variant), base) for variant in dict.fromkeys([*here, *elsewhere])
    }
    for variant, row in rows.items():
        if variant not in timings:
            row["reason"] = refused.get(variant, "can't be run on this machine")
    return {"model": bundle.manifest.name, "trained": bundle.manifest.trained, "variants": rows}


def _recorded(bundle: Bundle) -> list[str]:
    """The variants that have a parity record."""
    names = (Path(name) for name in bundle.manifest.files if name.startswith("parity/"))
    return sorted(path.stem for path in names if path.suffix == ".json")


def _row(bundle: Bundle, variant: str, timing: Timing | None, base: float | None) -> dict[str, Any]:
    runtime, precision = runtime_of(variant)
    row: dict[str, Any] = {
        "bytes": bundle.manifest.files[runtime.source(precision)].size,
        "parity": _parity(bundle, variant),
    }
    if timing is not None:
        way, rate = timing.best()
        row |= {
            "milliseconds": timing.milliseconds,
            "rates": timing.rates(),
            "best": {"way": way, "images_per_second": rate},
            "ratio": rate / base if base else None,
        }
    return row


def _parity(bundle: Bundle, variant: str) -> dict[str, Any] | None:
    try:
        record = current(bundle, variant)
    except UnprovenError:
        return None
    return {
        "verdict": record.verdict,
        "reasons": record.reasons,
        "verified_on": record.verified_on,
        "pictures": record.data["description"],
        "figures": record.figures,
    }


def cells(result: dict[str, Any]) -> list[Cells]:
    """One model's rows under `HEADINGS`."""
    name = result["model"] if result["trained"] else f"{result['model']} (random weights)"
    return [(name, variant, *_cells(row)) for variant, row in result["variants"].items()]


def _cells(row: dict[str, Any]) -> Cells:
    size = f"{row['bytes'] / 1e6:.1f}"
    if "rates" not in row:
        return (size, "", "", "", "", "", *_verdict(row["parity"]))
    rates, best = row["rates"], row["best"]
    milliseconds = 1000 / rates["batch 1"]
    return (
        size,
        f"{milliseconds:.2f}",
        f"{rates['batch 1']:.0f}",
        f"{rates['batch 8']:.0f}",
        f"{best['images_per_second']:.0f} ({best['way']})",
        f"{row['ratio']:.2f}" if row["ratio"] else "",
        *_verdict(row["parity"]),
    )


def _verdict(parity: dict[str, Any] | None) -> Cells:
    if parity is None:
        return ("", "", "not proved")
    figures = parity["figures"]
    accuracy, agreement = figures.get("accuracy"), figures["top1_agreement"]["value"]
    # Random weights decide nothing.
    if accuracy is None and figures["decided_images"]:
        agreement = figures["decided_agreement"]["value"]
    verdict = parity["verdict"] if parity["verified_on"] == "runtime" else f"{parity['verdict']} (its graph)"
    return (f"{accuracy['variant']['value']:.2%}" if accuracy else "no labels", f"{agreement:.2%}", verdict)


def _results(config: BenchmarkConfig, progress: Progress) -> list[dict[str, Any]]:
    results = []
    for name in config.model:
        bundle = make_variants(name, data=config.data) if config.make else open_bundle(name)
        results.append(benchmark_model(bundle, rounds=config.rounds, seconds=config.seconds, progress=progress))
    return results


def _on_gpu(config: BenchmarkConfig, progress: Progress) -> tuple[dict[str, Any], list[dict[str, Any]], list[Cells]]:
    """What is said of the GPU, the rows and their lines."""
    # Imported here: a comparison on the processor needs no PyTorch.
    import torch

    from export.benchmark.gpu.ceilings import measured
    from export.benchmark.gpu.compare import compete

    if not torch.cuda.is_available():
        raise HalftoneError(
            f"PyTorch {torch.__version__} finds no CUDA GPU here: run this on a machine with an NVIDIA GPU and a "
            "current driver, or leave --device out"
        )
    deadline = time.monotonic() + 60 * config.minutes
    bundles = [make_for_gpu(name) if config.make else open_bundle(name) for name in config.model]
    task = progress.add_task("ceilings", total=None)
    setting: dict[str, Any] = {"device": "cuda", "dtype": torch.float16}
    ceilings = measured(bundles[0].manifest.input, **setting)
    rows = compete(
        bundles,
        ceilings,
        **setting,
        precision="fp16",
        seconds=config.seconds,
        compiled=config.compiled,
        deadline=deadline,
        advance=lambda what: progress.update(task, description=what),
    )
    extra = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "ceilings": asdict(ceilings)}
    return extra | {"note": ceilings_line(extra)}, rows, [line for row in rows for line in cuda_cells(row)]


def _main(config: BenchmarkConfig) -> int:
    console = Console(stderr=True)
    extra: dict[str, Any] = {}
    found: list[dict[str, Any]]
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        if config.device == "cuda":
            extra, found, lines = _on_gpu(config, progress)
            headings = CUDA_HEADINGS
        elif config.all_families:
            # Imported here: what is there already is compared without PyTorch.
            from export.benchmark.families import FAMILY_HEADINGS, family_rows

            rows = family_rows(rounds=config.rounds, seconds=config.seconds, progress=progress)
            found = [asdict(row) for row in rows]
            headings, lines = FAMILY_HEADINGS, [row.cells() for row in rows]
        else:
            found = _results(config, progress)
            headings, lines = HEADINGS, [line for result in found for line in cells(result)]
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "host": host()} | extra
    texts = {
        "table": as_text(headings, lines, about),
        "markdown": as_markdown(headings, lines, about),
        "json": json.dumps(about | {"results": found}, indent=1, ensure_ascii=False),
    }
    print(texts[config.format])
    if config.output is not None:
        chosen = "markdown" if config.output.suffix == ".md" else "json"
        write_atomic(config.output, (texts[chosen] + "\n").encode())
    return DONE


if __name__ == "__main__":
    run(_main, BenchmarkConfig, prog=PROG)

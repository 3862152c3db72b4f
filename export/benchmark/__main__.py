"""`python -m export.benchmark --model NAME`: size, speed, parity and verdict of every variant of a model, in one table.

    python -m export.benchmark --model efficientnet_lite0
    python -m export.benchmark --model resnet18 --model vit_ti16 --make --output variants.md
    python -m export.benchmark --all-families                        every architecture, on this machine
    python -m export.benchmark --device cuda --make --model resnet50 --model vit_b16      engines on a GPU

Variants are timed in turns in one run; the ratio is to the best rate of ONNX Runtime FP32. --make first exports and
proves what is missing, from random weights if a model has no bundle. About 20 s for a model with five variants, and
with --make one to five minutes more on two cores. On a GPU, PyTorch, ONNX Runtime and TensorRT in FP16 are timed from
pixels to logits in the host's memory, next to the rates of a matrix product, of copies and of decoding; four models
take less than eight minutes. Exit code 0 with any verdict: the verdicts are in the table.
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
from export.benchmark.variants import Timing, compare_variants
from export.parity.prove import provable_variants
from export.parity.record import valid_record
from export.pipeline import make_for_gpu, make_variants, open_or_random
from export.variants import runtime_of
from models.bundle.bundle import Bundle
from models.bundle.store import open_bundle
from models.common.cli import DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.common.host import host

PROG = "python -m export.benchmark"
BASE = "onnxruntime-fp32"

HEADINGS: Cells = (
    "model", "variant", "MB", "ms batch 1", "images/s batch 1", "batch 8", "best", "ratio", "accuracy", "same",
    "same, decided", "verdict",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(JsonOutput):
    """Time every variant of models on this machine, next to the figures of their parity records."""

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Bundle under artifacts/, or with --make an architecture of the catalogue or `timm:NAME`; may be repeated."""

    make: bool = False
    """Export and prove what is missing first: FP32, FP16, INT8 and, if the library is installed, a TensorRT plan."""

    all_families: bool = False
    """Compare the architectures of the catalogue instead, with random weights: size, arithmetic, accuracy, time."""

    device: Literal["cpu", "cuda"] = "cpu"
    """`cuda`: the first NVIDIA GPU, in FP16 (needs a PyTorch built for CUDA)."""

    compiled: bool = True
    """On a GPU: also time `torch.compile`, which takes half a minute per batch size."""

    minutes: float = 8.0
    """On a GPU: start no further measurement after this time."""

    data: Path | None = None
    """With --make: folder of labelled pictures to prove on; default: the sample photographs."""

    rounds: int = 3
    """Number of turns of each variant."""

    seconds: float = 0.5
    """Duration of a measurement: one batch size in one turn."""

    format: Literal["table", "markdown"] = "table"
    """Format of the output."""

    output: Path | None = None
    """File to write in addition: `.md` for Markdown, `.json` for every figure."""

    def __post_init__(self) -> None:
        if self.all_families == bool(self.model):
            raise HalftoneError(f"name models, as in `{PROG} --model efficientnet_lite0`, or give --all-families alone")
        if self.rounds < 1 or not 0 < self.seconds <= 60:
            raise HalftoneError("--rounds must be 1 or more, and --seconds between 0 and 60")
        if self.minutes <= 0:
            raise HalftoneError(f"--minutes must be positive, not {self.minutes}")
        if self.device == "cuda" and (self.all_families or self.data):
            raise HalftoneError("--device cuda takes --model and --make, not --all-families or --data: omit those")
        if self.output is not None and self.output.suffix not in (".md", ".json"):
            raise HalftoneError(f"--output {self.output} must end in .md or .json")


def benchmark_model(bundle: Bundle, *, rounds: int, seconds: float, progress: Progress) -> dict[str, Any]:
    """Time every variant of one bundle, and collect its parity records.

    Args:
        bundle: the opened bundle.
        rounds: number of turns of each variant.
        seconds: duration of a measurement.
        progress: display that gets a task for the timing.

    Returns:
        JSON-ready: `model`, `trained` and `variants`. For each variant: `bytes`; `parity` (verdict, reasons and
        figures) or None without a valid record; and `rates` (images/s by batch size and concurrency), `best`, `ratio`
        to ONNX Runtime FP32 and `milliseconds` (by batch size), or a `reason` if it can't be run here.

    Raises:
        HalftoneError: the bundle has nothing to run.
    """
    here, elsewhere = provable_variants(bundle), _recorded(bundle)
    if not here:
        raise HalftoneError(f"{bundle.folder} has no variants: make them with `{PROG} --model {bundle.name} --make`")
    task = progress.add_task(f"timing {bundle.name}", total=rounds * len(here))
    timings, refused = compare_variants(
        bundle, here, rounds=rounds, seconds=seconds, advance=lambda: progress.advance(task)
    )
    base = timings[BASE].best()[1] if BASE in timings else None
    rows = {
        variant: _row(bundle, variant, timings.get(variant), base) for variant in dict.fromkeys([*here, *elsewhere])
    }
    for variant, row in rows.items():
        if variant not in timings:
            row["reason"] = refused.get(variant, "can't be run on this machine")
    return {"model": bundle.name, "trained": bundle.manifest.trained, "variants": rows}


def _recorded(bundle: Bundle) -> list[str]:
    """Return the variants that have a parity record, valid or not."""
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
    record = valid_record(bundle, variant)
    if record is None:
        return None
    return {
        "verdict": record.verdict,
        "reasons": record.reasons,
        "verified_on": record.verified_on,
        "pictures": record.data["description"],
        "figures": record.figures,
    }


def cells(result: dict[str, Any]) -> list[Cells]:
    """Return one model's rows under `HEADINGS`."""
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
        return ("", "", "", "not proved")
    figures = parity["figures"]
    accuracy = figures.get("accuracy")
    verdict = parity["verdict"] if parity["verified_on"] == "runtime" else f"{parity['verdict']} (its graph)"
    return (
        f"{accuracy['variant']['value']:.2%} of {accuracy['images']:,}" if accuracy else "no labels",
        f"{figures['top1_agreement']['value']:.2%} of {figures['images']:,}",
        # With random weights, no image is decided.
        f"{figures['decided_agreement']['value']:.2%} of {figures['decided_images']:,}"
        if figures["decided_images"]
        else "none decided",
        verdict,
    )


def _results(config: BenchmarkConfig, progress: Progress) -> list[dict[str, Any]]:
    results = []
    for name in config.model:
        bundle = open_or_random(name) if config.make else open_bundle(name)
        if config.make:
            make_variants(bundle, data=config.data, int8=True, plan=True)
        results.append(benchmark_model(bundle, rounds=config.rounds, seconds=config.seconds, progress=progress))
    return results


def _on_gpu(config: BenchmarkConfig, progress: Progress) -> tuple[dict[str, Any], list[dict[str, Any]], list[Cells]]:
    """Return the description of the GPU, the rows as JSON, and the lines of the table."""
    # Imported here: timing on the CPU needs no PyTorch.
    import torch

    from export.benchmark.gpu.ceilings import measured
    from export.benchmark.gpu.compare import compare_engines

    if not torch.cuda.is_available():
        raise HalftoneError(
            f"PyTorch {torch.__version__} finds no CUDA GPU here: run this on a machine with an NVIDIA GPU and a "
            "current driver, or omit --device"
        )
    deadline = time.monotonic() + 60 * config.minutes
    bundles = [make_for_gpu(name) if config.make else open_bundle(name) for name in config.model]
    task = progress.add_task("ceilings", total=None)
    setting: dict[str, Any] = {"device": "cuda", "dtype": torch.float16}
    ceilings = measured(bundles[0].manifest.input, **setting)
    rows = compare_engines(
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
            # Imported here: timing existing bundles needs no PyTorch.
            from export.benchmark.families import FAMILY_HEADINGS, family_rows

            rows = family_rows(rounds=config.rounds, seconds=config.seconds, progress=progress)
            found = [asdict(row) for row in rows]
            headings, lines = FAMILY_HEADINGS, [row.cells() for row in rows]
        else:
            found = _results(config, progress)
            headings, lines = HEADINGS, [line for result in found for line in cells(result)]
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "host": host()} | extra
    document, markdown = about | {"results": found}, as_markdown(headings, lines, about)
    publish(document)
    print(markdown if config.format == "markdown" else as_text(headings, lines, about))
    if config.output is not None:
        text = markdown if config.output.suffix == ".md" else json.dumps(document, indent=1, ensure_ascii=False)
        write_atomic(config.output, f"{text}\n".encode())
    return DONE


if __name__ == "__main__":
    run(_main, BenchmarkConfig, prog=PROG, example="--model efficientnet_lite0 --output variants.md")

"""`python -m export.parity --model NAME --variant V --data DIR`: proof that a variant answers as the reference does.

The variant, run by the very runtime that will serve it, is compared with the FP32 torch reference on real pictures;
the figures and the verdict go to `parity/V.json`. Exit code 1 where the gate fails. About 20 s for EfficientNet-Lite0
on the 320 crops of the sample photographs on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from export.parity.gate import Gate
from export.parity.images import ProofImages, proof_images
from export.parity.metrics import compare
from export.parity.record import ParityRecord, record_name
from export.runtime import Logits, Pixels, Runtime
from export.variants import REFERENCE, load, runtime_class, runtime_names, runtime_of
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.cli import ANSWER_IS_NO, DONE
from models.common.errors import HalftoneError
from models.common.host import cores, host

BATCH = 32

SETTLED = 3

"""Runs of a batch of one size until it is executed as it will be when it serves."""


def provable_variants(bundle: Bundle) -> list[str]:
    """Every variant whose file the bundle holds and that an installed runtime runs here, but the reference."""
    found: list[str] = []
    for name in runtime_names():
        if name == REFERENCE.rpartition("-")[0]:
            continue
        try:
            runtime = runtime_class(name)
        except HalftoneError:
            continue
        found += [
            f"{name}-{precision}"
            for precision in runtime.precisions
            if bundle.has(runtime.source(precision)) and runtime.supported(precision)
        ]
    return found


def prove(
    bundle: Bundle,
    gates: dict[str, Gate],
    data: Path | None,
    progress: Progress,
    *,
    graphs: Mapping[str, str] = MappingProxyType({}),
) -> list[ParityRecord]:
    """Compare variants with the reference on the same pictures, and write each one's record into the bundle.

    Args:
        bundle: the opened bundle.
        gates: variant to gate.
        data: folder of labelled pictures, or None for the sample photographs.
        progress: where to show how far it is.
        graphs: for a variant that this machine can't run, the variant that runs the graph it was built from; its
            record says so and does not let it serve.

    Raises:
        HalftoneError: a variant can't be loaded, or the pictures can't be used.
    """
    images = proof_images(bundle.manifest, data)
    threads = cores()
    # First, for what is refused here is refused before PyTorch takes seconds to load.
    runtimes = {variant: load(bundle, graphs.get(variant, variant), threads=threads) for variant in gates}
    reference = load(bundle, REFERENCE, threads=threads)
    logits, labels = _run_all({REFERENCE: reference} | runtimes, images, progress)
    records = []
    for variant, gate in gates.items():
        figures = compare(logits[REFERENCE], logits[variant], labels, temperature=bundle.manifest.temperature)
        record = _record(bundle, variant, runtimes[variant], reference, images, gate, figures)
        if variant in graphs:
            record = replace(record, verified_on="graph")
        bundle.write(
            record_name(variant),
            record.to_json(),
            made_by=f"`python -m export.parity --model {bundle.manifest.name} --variant {variant}`",
            made_from=sorted({WEIGHTS, record.source}),
        )
        records.append(record)
    return records


def prove_and_print(
    bundle: Bundle, variants: list[str], *, data: Path | None, graphs: Mapping[str, str] = MappingProxyType({})
) -> int:
    """`prove` with the default gates, a progress bar and a table; returns the exit code."""
    return _prove_and_print(bundle, {v: Gate.for_precision(v.rpartition("-")[2]) for v in variants}, data, graphs)


def _prove_and_print(
    bundle: Bundle, gates: dict[str, Gate], data: Path | None, graphs: Mapping[str, str] = MappingProxyType({})
) -> int:
    console = Console(stderr=True)
    # A bar that is piped into a file would leave an empty line there.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        records = prove(bundle, gates, data, progress, graphs=graphs)
    Console(width=None if sys.stdout.isatty() else 120).print(_table(bundle, records))
    for record in records:
        for reason in record.reasons:
            print(f"FAILED {record.variant}: {reason}", file=sys.stderr)
    return DONE if all(record.verdict == "PASSED" for record in records) else ANSWER_IS_NO


def _singly_and_together(runtime: Runtime, pixels: Pixels) -> Logits:
    """The logits of a batch, half of it run picture by picture: a runtime may compile the two differently."""
    half = len(pixels) // 2
    parts = [runtime.run(pixels[place : place + 1]) for place in range(half)]
    return np.concatenate([*parts, runtime.run(pixels[half:])])


def _in_batches_of(runtime: Runtime, pixels: Pixels, size: int) -> Logits:
    """The logits of a batch in parts of a size, each as it comes when it was run twice before: it is recorded then."""
    parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    return np.concatenate([[runtime.run(part) for _ in range(SETTLED)][-1] for part in parts])


def _answers(variant: str, runtime: Runtime, pixels: Pixels, number: int) -> Logits:
    try:
        if runtime.sizes:
            return _in_batches_of(runtime, pixels, runtime.sizes[number % len(runtime.sizes)])
        return _singly_and_together(runtime, pixels)
    except Exception as error:
        # Every runtime has exceptions of its own; their first line says what the graph asked for.
        raise HalftoneError(f"{variant} loads, but can't run: {str(error).partition(chr(10))[0]}") from error


def _run_all(
    runtimes: dict[str, Runtime], images: ProofImages, progress: Progress
) -> tuple[dict[str, Logits], npt.NDArray[np.int64] | None]:
    task = progress.add_task(f"comparing {len(runtimes) - 1} variant(s) with the reference", total=images.count)
    parts: dict[str, list[Logits]] = {variant: [] for variant in runtimes}
    labels: list[npt.NDArray[np.int64]] = []
    for number, (pixels, classes) in enumerate(images.batches(BATCH)):
        for variant, runtime in runtimes.items():
            parts[variant].append(_answers(variant, runtime, pixels, number))
        if classes is not None:
            labels.append(classes)
        progress.advance(task, len(pixels))
    if not all(parts.values()):
        raise HalftoneError(
            f"none of the pictures can be read, such as {images.unreadable[0]}: name a folder of JPEG, PNG or WebP "
            "files with --data DIR"
        )
    joined = {variant: np.concatenate(batches) for variant, batches in parts.items()}
    return joined, np.concatenate(labels) if labels else None


def _record(
    bundle: Bundle,
    variant: str,
    runtime: Runtime,
    reference: Runtime,
    images: ProofImages,
    gate: Gate,
    figures: dict[str, object],
) -> ParityRecord:
    manifest, (owner, precision) = bundle.manifest, runtime_of(variant)
    source = owner.source(precision)
    reasons = gate.reasons_to_fail(figures, trained=manifest.trained)
    return ParityRecord(
        variant=variant,
        verdict="FAILED" if reasons else "PASSED",
        reasons=reasons,
        version=manifest.version,
        weights_sha256=manifest.files[WEIGHTS].sha256,
        source=source,
        source_sha256=manifest.files[source].sha256,
        runtime={"name": runtime.name, "version": runtime.version(), "executed_as": runtime.executed_as},
        reference=f"{REFERENCE} {reference.version()}",
        data={"description": images.description, "labelled": images.labelled, "unreadable": images.unreadable},
        gate=asdict(gate),
        figures=figures,
        host=host(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _table(bundle: Bundle, records: list[ParityRecord]) -> Table:
    table = Table(title=f"parity of {bundle.manifest.name}: {records[0].data['description']}", title_justify="left")
    for heading in (
        "variant",
        "verdict",
        "images",
        "top-1 same",
        "decided same",
        "mean KL",
        "max |Δlogit|",
        "accuracy",
    ):
        table.add_column(heading, no_wrap=True)
    for record in records:
        figures = record.figures
        accuracy = figures.get("accuracy")
        table.add_row(
            record.variant if record.verified_on == "runtime" else f"{record.variant} (its graph)",
            record.verdict,
            str(figures["images"]),
            f"{figures['top1_agreement']['value']:.2%}",
            f"{figures['decided_agreement']['value']:.2%} of {figures['decided_images']}",
            f"{figures['mean_kl']:.2e}",
            f"{figures['max_abs_logit_difference']:.3g}",
            f"{accuracy['reference']['value']:.2%} → {accuracy['variant']['value']:.2%}" if accuracy else "no labels",
        )
    return table

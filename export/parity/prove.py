"""Parity proof: run variants and the FP32 torch reference on the same images, apply the gate, write the records.

Each variant is run by the runtime that serves it. The figures and the verdict go to `parity/VARIANT.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from export.parity.card import write_card
from export.parity.gate import Gate
from export.parity.images import Integers, ProofImages, proof_images
from export.parity.metrics import compare
from export.parity.promises import keep_profile, keep_promises
from export.parity.record import ParityRecord, record_name
from export.parity.reference import reference_logits
from export.runtime import Logits, Pixels, Runtime
from export.variants import REFERENCE, load, runtime_class, runtime_names, runtime_of
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.drift import cells
from models.common.cli import ANSWER_IS_NO, DONE
from models.common.errors import HalftoneError
from models.common.host import cores, host
from models.common.memory import freed_memory_kept

BATCH = 32

SETTLED = 3
"""Number of runs after which a batch size is executed as it is in serving."""


def provable_variants(bundle: Bundle) -> list[str]:
    """Return the variants that this machine can run and whose file the bundle holds, without the reference."""
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
    """Compare variants with the reference on the same images, and write a record of each into the bundle.

    The reference's answers also fit what serving promises, and labelled pictures what it compares later ones with
    (`export.parity.promises`).

    Args:
        bundle: the opened bundle.
        gates: variant to gate.
        data: folder of labelled images, or None for the sample photographs.
        progress: display that gets a task for the comparison.
        graphs: for a variant that this machine can't run, the variant that runs the graph it was built from; the
            record says so (`verified_on`), and serving refuses it.

    Returns:
        The records, in the order of `gates`.

    Raises:
        HalftoneError: a variant can't be loaded, or the images can't be used.
    """
    images = proof_images(bundle, data)
    threads = cores()
    # Before the reference: a variant that is refused is refused before PyTorch takes seconds to load.
    runtimes = {variant: load(bundle, graphs.get(variant, variant), threads=threads) for variant in gates}
    reference = load(bundle, REFERENCE, threads=threads)
    with freed_memory_kept():
        logits, pictures, labels, places = _run_all(bundle, reference, runtimes, images, progress)
    if np.isfinite(logits[REFERENCE]).all():
        keep_promises(bundle, logits[REFERENCE], labels, int(pictures.max()) + 1, data)
        keep_profile(bundle, places, labels, data)
    records = []
    for variant, gate in gates.items():
        figures = compare(
            logits[REFERENCE],
            logits[variant],
            labels if images.labelled else None,
            pictures=pictures,
            temperature=bundle.manifest.temperature,
        )
        record = _record(bundle, variant, runtimes[variant], reference, images, gate, figures)
        if variant in graphs:
            record = replace(record, verified_on="graph")
        bundle.write(
            record_name(variant),
            record.to_json(),
            made_by=f"`python -m export.parity --model {bundle.name} --variant {variant}`",
            made_from=sorted({WEIGHTS, record.source}),
        )
        records.append(record)
    write_card(bundle)
    return records


def prove_and_print(
    bundle: Bundle,
    variants: Sequence[str],
    *,
    data: Path | None,
    gates: Mapping[str, Gate] = MappingProxyType({}),
    graphs: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run `prove` with a progress bar, print the figures as a table, and return the exit code.

    Args:
        bundle: the opened bundle.
        variants: `RUNTIME-PRECISION`.
        data: folder of labelled images, or None for the sample photographs.
        gates: variant to gate; the others have the default gate of their precision.
        graphs: as for `prove`.

    Raises:
        HalftoneError: as `prove`.
    """
    console = Console(stderr=True)
    chosen = {each: gates.get(each) or Gate.for_precision(each.rpartition("-")[2]) for each in variants}
    # A progress bar that is piped into a file would leave an empty line there.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        records = prove(bundle, chosen, data, progress, graphs=graphs)
    Console(width=None if sys.stdout.isatty() else 120).print(_table(bundle, records))
    for record in records:
        for reason in record.reasons:
            print(f"FAILED {record.variant}: {reason}", file=sys.stderr)
    notes: dict[str, list[str]] = {}
    for record in records:
        for note in record.notes:
            notes.setdefault(note, []).append(record.variant)
    for note, concerned in notes.items():
        print(f"{', '.join(concerned)}: {note}", file=sys.stderr)
    return DONE if all(record.verdict == "PASSED" for record in records) else ANSWER_IS_NO


def _singly_and_together(runtime: Runtime, pixels: Pixels, number: int) -> Logits:
    """Run every other batch at once, and half of the others image by image: a runtime may compile the two differently.

    So each place of a batch is seen, and answers that depend on the neighbours are.
    """
    half = 0 if number % 2 else len(pixels) // 2
    parts = [runtime.run(pixels[place : place + 1]) for place in range(half)]
    return np.concatenate([*parts, runtime.run(pixels[half:])])


def _in_batches_of(runtime: Runtime, pixels: Pixels, size: int) -> Logits:
    """Run a batch in parts of one size, each `SETTLED` times; the logits are those of the last run, a recorded one."""
    parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    return np.concatenate([[runtime.run(part) for _ in range(SETTLED)][-1] for part in parts])


def _logits(variant: str, runtime: Runtime, pixels: Pixels, number: int) -> Logits:
    try:
        if runtime.sizes:
            return _in_batches_of(runtime, pixels, runtime.sizes[number % len(runtime.sizes)])
        return _singly_and_together(runtime, pixels, number)
    except Exception as error:
        # Each runtime raises its own exceptions; their first line says what the graph asked for.
        raise HalftoneError(f"{variant} loads, but can't run: {str(error).partition(chr(10))[0]}") from error


def _run_all(
    bundle: Bundle, reference: Runtime, runtimes: dict[str, Runtime], images: ProofImages, progress: Progress
) -> tuple[dict[str, Logits], Integers, Integers, Integers]:
    """Return the logits of the reference and each variant; each image's picture's number, label, and `cells`."""
    task = progress.add_task(f"comparing {len(runtimes)} variant(s) with the reference", total=images.count)
    parts: dict[str, list[Logits]] = {variant: [] for variant in (REFERENCE, *runtimes)}
    pictures: list[Integers] = []
    labels: list[Integers] = []
    places: list[Integers] = []
    for number, batch in enumerate(images.batches(BATCH)):
        parts[REFERENCE].append(reference_logits(bundle, reference, batch.pixels))
        for variant, runtime in runtimes.items():
            parts[variant].append(_logits(variant, runtime, batch.pixels, number))
        pictures.append(batch.pictures)
        labels.append(batch.labels)
        finite = np.nan_to_num(parts[REFERENCE][-1], posinf=0, neginf=0)
        places.append(cells(batch.pixels, finite, bundle.manifest.temperature))
        progress.advance(task, len(batch.pixels))
    joined = {variant: np.concatenate(batches) for variant, batches in parts.items()}
    return joined, np.concatenate(pictures), np.concatenate(labels), np.concatenate(places)


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
    reasons = gate.reasons_to_fail(figures, trained=manifest.trained, labels=manifest.labels)
    return ParityRecord(
        variant=variant,
        verdict="FAILED" if reasons else "PASSED",
        reasons=reasons,
        notes=gate.notes(figures, trained=manifest.trained),
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
    first = records[0].figures
    title = (
        f"parity of {bundle.name} on {records[0].data['description']}: {first['images']:,} images of "
        f"{first['pictures']:,} pictures; decided on {first['decided_images']:,} of them, "
        f"{first['decided_classes']:,} of {len(bundle.manifest.labels):,} classes"
    )
    table = Table(title=title, title_justify="left")
    known = records[0].figures.get("accuracy", {}).get("images", 0)
    accuracy = f"accuracy of {known:,}" if known else "accuracy"
    for heading in ("variant", "verdict", "decided same (95 %)", "mean KL", "lowest r", "largest shift", accuracy):
        table.add_column(heading, no_wrap=True)
    for record in records:
        figures = record.figures
        agreement, outputs = figures["decided_agreement"], figures["outputs"]
        table.add_row(
            record.variant if record.verified_on == "runtime" else f"{record.variant} (its graph)",
            record.verdict,
            f"{agreement['value']:.2%} ({agreement['low']:.0%} up)" if figures["decided_images"] else "none decided",
            f"{figures['mean_kl']:.1e}",
            f"{outputs['lowest_correlation']['value']:.4f}" if outputs else "",
            f"{outputs['largest_shift']['value']:.1g} SD" if outputs else "",
            _accuracy(figures.get("accuracy")),
        )
    return table


def _accuracy(accuracy: dict[str, Any] | None) -> str:
    if accuracy is None:
        return "no labels"
    return f"{accuracy['reference']['value']:.2%} → {accuracy['variant']['value']:.2%}"

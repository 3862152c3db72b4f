"""`python -m export.benchmark.power --model NAME`: damage that the parity gate notices, and how often by chance.

Damages of known kind and strength (`export.benchmark.sabotage`) are judged as a proof judges: on the same images, by
the same gate. Next to the verdict stands what the damage costs on windows that no proof uses, and the share of
resamples of the pictures in which it passes. Rows without damage show false alarms. About ten minutes for
EfficientNet-Lite0 on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console

from export.benchmark.sabotage import GRAPHS, LOGITS, QUANTISED, RESIZES, Resize
from export.benchmark.tables import Cells, as_markdown
from export.onnx.fp16.ranges import infer
from export.parity.gate import Gate
from export.parity.images import CROPS_PER_PHOTO, Integers, crops_each, sample_crops, sample_photos, windows
from export.parity.metrics import compare
from export.parity.prove import provable_variants
from export.runtime import Logits, Pixels
from export.variants import load
from models.bundle.bundle import Bundle
from models.bundle.store import open_bundle
from models.common.cli import DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.host import cores, host
from models.common.text import printable
from models.dataset import unseen_images
from models.preprocess.decode import decode
from models.preprocess.transform import fit
from models.spec import InputSpec

SOURCE = "model.fp32.onnx"
INT8 = "model.int8.onnx"
UNSEEN = 480
"""Windows that the cost is measured on."""

MAX_PICTURES = 1000
"""Labelled pictures that are judged, of those that a proof has."""

FIRST_UNSEEN = 400

RESAMPLES = 50

FIRST_MAX_KL = {"fp16": 0.01, "int8": 0.05}
"""Limits of the divergence in the gate's first version; FP32 and BF16 had that of FP16."""
Pair = tuple[Logits, Logits]
"""Of the proof's images and of the unseen ones."""

HEADINGS: Cells = ("damage", "strength", "to", "answers lost", "by answers", "verdict", "passes", "first reason")


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images of pictures."""

    pixels: Pixels
    """uint8 (N, S, S, 3)."""

    photographs: Integers
    """int64 (N,) number of the picture of each."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One damage and what the gate says of it."""

    kind: str
    """Kind of damage; `nothing` for an honest variant."""

    strength: float
    """In the kind's own unit; 1 for a kind without degrees."""

    precision: str
    """Precision whose gate judged, and whose variant was damaged where the damage is one of the outputs."""

    lost: float
    """Share of the unseen images with another answer, of those on which the reference is decided."""

    by_answers: str
    """Verdict of a gate that looks at the answers and the mean divergence alone, as the first version did."""

    verdict: str
    """PASSED or FAILED."""

    passes: float | None
    """Share of resamples of the pictures in which the damage passes; None if that was not asked for."""

    reasons: list[str]
    """Missed thresholds."""

    def cells(self) -> Cells:
        """Return the row's line under `HEADINGS`."""
        passes = "" if self.passes is None else f"{self.passes:.1%}"
        first = self.reasons[0] if self.reasons else ""
        what = self.kind, f"{self.strength:g}", self.precision, f"{self.lost:.1%}"
        return *what, self.by_answers, self.verdict, passes, first


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The gate under examination: a model's logits in FP32, and the images."""

    reference: Pair
    """float32 (N, classes) each."""

    photographs: Integers
    """Of the proof's images."""

    trained: bool
    """As in the manifest."""

    temperature: float
    """As in the manifest."""

    resamples: int = RESAMPLES
    """Number of resamples for each damage; 0: none."""

    def row(self, kind: str, strength: float, precision: str, logits: Pair) -> Row:
        """Return what the gate of `precision` says of the logits of the proof's and of the unseen images.

        False alarms are rarer than misses, so honest variants (strength 0) have four times the resamples.
        """
        resamples = self.resamples if strength else 4 * self.resamples
        everything = np.arange(len(self.photographs))
        figures = self._figures(logits[0], everything, self.photographs)
        gate = Gate.for_precision(precision)
        reasons = gate.reasons_to_fail(figures, trained=self.trained)
        cost = compare(self.reference[1], logits[1], None, temperature=self.temperature)
        missing = cost["nan_or_inf"] / cost["images"]
        return Row(
            kind=kind,
            strength=strength,
            precision=precision,
            lost=missing + (1 - missing) * (1 - cost["decided_agreement"]["value"]),
            by_answers="PASSED" if _passes_by_answers(figures, gate, precision) else "FAILED",
            verdict="FAILED" if reasons else "PASSED",
            passes=self._passes(precision, logits[0], resamples) if resamples else None,
            reasons=reasons,
        )

    def _figures(self, logits: Logits, chosen: Integers, photographs: Integers) -> dict[str, Any]:
        reference, variant = self.reference[0][chosen], logits[chosen]
        return compare(reference, variant, None, pictures=photographs, temperature=self.temperature)

    def _passes(self, precision: str, logits: Logits, resamples: int) -> float:
        gate, generator, passed = Gate.for_precision(precision), np.random.default_rng(0), 0
        numbers = np.unique(self.photographs)
        for _ in range(resamples):
            drawn = generator.choice(numbers, len(numbers))
            parts = [np.flatnonzero(self.photographs == number) for number in drawn]
            # A photograph that is drawn twice counts as two.
            photographs = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
            figures = self._figures(logits, np.concatenate(parts), photographs)
            passed += not gate.reasons_to_fail(figures, trained=self.trained)
        return passed / resamples


def _passes_by_answers(figures: dict[str, Any], gate: Gate, precision: str) -> bool:
    agreement, divergence = figures["decided_agreement"]["value"], figures["mean_kl"]
    return (
        not figures["nan_or_inf"]
        and agreement >= gate.min_agreement
        and divergence <= FIRST_MAX_KL.get(precision, FIRST_MAX_KL["fp16"])
    )


def crops(bundle: Bundle, per_photo: int, first: int, resize: Resize = fit) -> Images:
    """Return windows of the sample photographs for the bundle's input."""
    return _images(sample_crops(bundle.manifest.input, per_photo, first=first, resize=resize))


def examine(bundle: Bundle, data: Path | None = None, *, resamples: int = RESAMPLES) -> Iterator[Row]:
    """Yield honest variants, then every damage as the FP16 and the INT8 variant with it.

    What a damage of the weights or pixels does to FP32's logits is added to those of the variant.

    Args:
        bundle: the bundle.
        data: labelled pictures that its proof was made on; None: the sample photographs.
        resamples: as in `Examination`.

    Raises:
        HalftoneError: the bundle has no FP32 graph, a variant can't be loaded, or a picture can't be read.
    """
    photos = sample_photos() if data is None else _labelled_photos(bundle, data)
    both = partial(_both, photos, bundle.manifest.input, whole=data is not None)
    seen, unseen = both()
    graph = onnx.load_from_string(bundle.read(SOURCE))
    reference = _infer(graph, seen, unseen)
    exam = Examination(
        reference=reference,
        photographs=seen.photographs,
        trained=bundle.manifest.trained,
        temperature=bundle.manifest.temperature,
        resamples=resamples,
    )
    variants = {variant: _logits(bundle, variant, seen, unseen) for variant in provable_variants(bundle)}
    for variant, logits in variants.items():
        yield exam.row(f"nothing ({variant})", 0, variant.rpartition("-")[2], logits)
    honest = {variant.rpartition("-")[2]: logits for variant, logits in variants.items()}
    chosen = {precision: honest[precision] for precision in ("fp16", "int8") if precision in honest}
    for kind, strength, damaged in _damaged_fp32(graph, seen, unseen, both):
        for precision, logits in chosen.items():
            yield exam.row(kind, strength, precision, _add(logits, damaged, reference))
    for kind, (damage, strengths) in QUANTISED.items() if "int8" in chosen else ():
        quantised = onnx.load_from_string(bundle.read(INT8))
        for strength in strengths:
            yield exam.row(kind, strength, "int8", _infer(damage(quantised, strength), seen, unseen))
    for kind, (change, strengths) in LOGITS.items():
        for strength in strengths:
            for precision, (first, second) in chosen.items():
                yield exam.row(kind, strength, precision, (change(first, strength), change(second, strength)))


def _damaged_fp32(
    graph: onnx.ModelProto, seen: Images, unseen: Images, both: Callable[..., tuple[Images, Images]]
) -> Iterator[tuple[str, float, Pair]]:
    """Yield kind, strength and FP32's logits for each damage of the weights and of the pixels."""
    for kind, (damage, strengths) in GRAPHS.items():
        for strength in strengths:
            yield kind, strength, _infer(damage(graph, strength), seen, unseen)
    for kind, resize in RESIZES.items():
        yield kind, 1, _infer(graph, *both(resize=resize))


def _labelled_photos(bundle: Bundle, data: Path) -> list[Pixels]:
    paths = unseen_images(data, bundle)[0]
    return [decode(path.read_bytes()) for path, _ in paths[:: -(-len(paths) // MAX_PICTURES)]]


def _both(photos: Sequence[Pixels], spec: InputSpec, resize: Resize = fit, *, whole: bool) -> tuple[Images, Images]:
    """Return the images that a proof has of the photographs, and as many windows as the cost is measured on."""
    each = crops_each(len(photos)) if whole else CROPS_PER_PHOTO
    first = [(resize(photo, spec), number) for number, photo in enumerate(photos)] if whole else []
    unseen = windows(photos, spec, -(-UNSEEN // len(photos)), first=FIRST_UNSEEN, resize=resize)
    return _images([*first, *windows(photos, spec, each, resize=resize)]), _images(unseen)


def _images(found: Iterable[tuple[Pixels, int]]) -> Images:
    pixels, numbers = zip(*found, strict=True)
    return Images(pixels=np.stack(pixels), photographs=np.array(numbers))


def _infer(graph: onnx.ModelProto, *images: Images) -> Pair:
    (first,), (second,) = (infer(graph, each.pixels, ["logits"]) for each in images)
    return first, second


def _add(logits: Pair, damaged: Pair, reference: Pair) -> Pair:
    first, second = (each + other - base for each, other, base in zip(logits, damaged, reference, strict=True))
    return first, second


def _logits(bundle: Bundle, variant: str, *images: Images) -> Pair:
    runtime = load(bundle, variant, threads=cores())
    size = runtime.sizes[-1] if runtime.sizes else 32
    first, second = (
        np.concatenate([runtime.run(each.pixels[start : start + size]) for start in range(0, len(each.pixels), size)])
        for each in images
    )
    return first, second


@dataclass(frozen=True, kw_only=True)
class PowerConfig(JsonOutput):
    """Show which damage to a model the parity gate notices."""

    model: str
    """Bundle under artifacts/."""

    data: Path | None = None
    """Labelled pictures that its proof was made on; without it, the sample photographs."""

    resamples: int = RESAMPLES
    """Resamples of the pictures for each damage, four times as many for honest variants; 0: none."""

    def __post_init__(self) -> None:
        if self.resamples < 0:
            raise HalftoneError(f"--resamples must be 0 or more, not {self.resamples}")


def _main(config: PowerConfig) -> int:
    bundle = open_bundle(config.model)
    console, rows = Console(stderr=True, highlight=False, soft_wrap=True), []
    for row in examine(bundle, config.data, resamples=config.resamples):
        rows.append(row)
        console.print(f"{row.verdict}: {row.kind} {row.strength:g} to {row.precision}", markup=False)
    about: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "host": host()}
    pictures = "the sample photographs" if config.data is None else printable(config.data.name)
    about["note"] = f"{bundle.name}, {len(bundle.manifest.labels):,} classes, on {pictures}"
    print(as_markdown(HEADINGS, [row.cells() for row in rows], about))
    publish(about | {"rows": [asdict(row) for row in rows]})
    return DONE


if __name__ == "__main__":
    run(_main, PowerConfig, prog="python -m export.benchmark.power", example="--model photos --resamples 0")

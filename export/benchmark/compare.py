"""`python -m export.benchmark.compare --models A,B,C`: finished bundles side by side, from their manifests and records.

    python -m export.benchmark.compare --models lite0,resnet18,vit --output families.md --picture families.png

A row for each bundle: network, recipe, initial weights, accuracy with its interval, parameters, multiply-accumulates at
its own input size, megabytes, how FP16 and INT8 answer as FP32 does, and the time of a picture in the variant that
serves. The picture shows accuracy against that time. Nothing is trained, proved or measured: a second a bundle. For
tests of the differences, run `python -m training.evaluate --model A --model B --data DIR`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.benchmark.choice import best_first
from export.benchmark.speed import recorded
from export.benchmark.tables import Cells, as_markdown, as_text
from export.onnx.arithmetic import multiply_accumulates
from export.parity.record import ParityRecord, present_records
from models.bundle.accuracy import NAMES, Accuracy, best_known
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.store import open_bundle
from models.catalog import network_of
from models.common.cli import DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.files import atomic_path, write_atomic
from models.common.host import cores, host
from models.common.text import printable
from models.spec import NAMED_WEIGHTS

PROG = "python -m export.benchmark.compare"
GRAPH = "model.fp32.onnx"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Endings of the tensors of batch norms that are no parameters."""

HEADINGS: Cells = (
    "model", "network", "recipe", "epochs", "from", "px", "accuracy", "95 % interval", "params M", "MMACs", "MB",
    "FP16 same", "INT8 same", "serves", "ms",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CompareConfig(JsonOutput):
    """Compare trained and exported bundles in one table and one picture."""

    models: str
    """Bundles under artifacts/, separated by commas."""

    output: Path | None = None
    """File for the table: `.md` for Markdown, otherwise JSON."""

    picture: Path | None = None
    """PNG file for a drawing of accuracy against time."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise HalftoneError(f"--models must name each bundle once, as in --models a,b, not {self.models!r}")
        if self.picture is not None and self.picture.suffix.lower() != ".png":
            raise HalftoneError(f"--picture {self.picture} must be named .png, the format that is written")

    @property
    def names(self) -> list[str]:
        """Names of the bundles."""
        return [name for each in self.models.split(",") if (name := each.strip())]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Figures of one bundle; None for what its manifest and records do not say."""

    model: str
    network: str
    family: str
    recipe: str | None
    epochs: int | None
    """That were run."""

    initial: str | None
    """`pretrained`, `random` or `file`; None for weights that were not trained here."""

    size: int
    """Side of the input in pixels."""

    pictures: str | None
    """What the accuracy is of: the part, the number of pictures and the data."""

    accuracy: float | None
    interval: tuple[float, float] | None

    parameters: int
    macs: int | None
    """For one picture of the bundle's own size; None without an FP32 graph."""

    megabytes: float
    """Of the file that serves, or of the weights."""

    agreement: dict[str, float]
    """Precision to the share of images with the FP32 network's answer, in the runtime that has the lowest."""

    failed: list[str]
    """Precisions of which a runtime failed its gate."""

    variant: str | None
    """The one that `python -m export` chose to serve."""

    milliseconds: float | None
    """Time of one picture on one core, all cores being busy with others."""

    def cells(self) -> Cells:
        """Return the row under `HEADINGS`."""
        low, high = self.interval or (None, None)
        return (
            self.model,
            self.network,
            self.recipe or "",
            "" if self.epochs is None else str(self.epochs),
            self.initial or "",
            str(self.size),
            "" if self.accuracy is None else f"{self.accuracy:.2%}",
            "" if low is None or high is None else f"{low:.1%} to {high:.1%}",
            f"{self.parameters / 1e6:.2f}",
            "" if self.macs is None else f"{self.macs / 1e6:.1f}",
            f"{self.megabytes:.1f}",
            self._same("fp16"),
            self._same("int8"),
            self.variant or "",
            "" if self.milliseconds is None else f"{self.milliseconds:.2f}",
        )

    def _same(self, precision: str) -> str:
        if precision not in self.agreement:
            return ""
        return f"{self.agreement[precision]:.2%}" + (" FAILED" if precision in self.failed else "")


def compare_bundles(bundles: Sequence[Bundle]) -> list[Row]:
    """Return a row for each bundle, the most accurate first.

    Raises:
        BundleError: a file is damaged.
    """
    return sorted(map(_row, bundles), key=lambda row: -(row.accuracy or 0.0))


def _row(bundle: Bundle) -> Row:
    manifest = bundle.manifest
    training, records = manifest.training, list(present_records(bundle))
    settings, metrics = training.get("config", {}), training.get("metrics", {})
    known = best_known(metrics)
    variant, milliseconds = _serves(bundle, records)
    served = next((record.source for record in records if record.variant == variant), WEIGHTS)
    return Row(
        model=bundle.name,
        network=" + ".join(manifest.architectures),
        family=network_of(manifest).family,
        recipe=settings.get("recipe"),
        epochs=len(training["history"]) if "history" in training else None,
        initial=_initial(settings.get("weights")),
        size=manifest.input.size,
        pictures=_pictures(training, known),
        accuracy=known.value if known else None,
        interval=known.interval if known else None,
        parameters=_parameters(bundle.read(WEIGHTS)),
        macs=multiply_accumulates(bundle.read(GRAPH)) if bundle.has(GRAPH) else None,
        megabytes=manifest.files[served].size / 1e6,
        agreement=_agreement(records),
        failed=sorted({_precision(record) for record in records if record.verdict == "FAILED"}),
        variant=variant,
        milliseconds=milliseconds,
    )


def _initial(weights: str | None) -> str | None:
    return weights if weights is None or weights in NAMED_WEIGHTS else "file"


def _pictures(training: dict[str, Any], known: Accuracy | None) -> str | None:
    if known is None or known.pictures is None:
        return None
    kind = "" if known.name in NAMES.values() else f" ({known.name})"
    return f"{known.pictures}{kind} of {training.get('data', {}).get('description', 'its data')}"


def _precision(record: ParityRecord) -> str:
    return record.variant.rpartition("-")[2]


def _agreement(records: Sequence[ParityRecord]) -> dict[str, float]:
    found: dict[str, float] = {}
    for record in records:
        share = float(record.figures["top1_agreement"]["value"])
        found[_precision(record)] = min(share, found.get(_precision(record), 1.0))
    return found


def _serves(bundle: Bundle, records: Sequence[ParityRecord]) -> tuple[str | None, float | None]:
    """Return the variant that serves on this machine and the milliseconds of a picture; None if not measured here."""
    proven = {record.variant: record for record in records if record.verdict == "PASSED"}
    rates = recorded(bundle, list(proven)) or {}
    best = next(iter(best_first(rates, {variant: proven[variant] for variant in rates})), None)
    return best, 1000 * cores() / rates[best] if best else None


def _parameters(weights: bytes) -> int:
    """Return the number of parameters, from the header of a safetensors file."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in header.items()
        if name != "__metadata__" and not name.endswith(STATISTICS)
    )


def _about(rows: Sequence[Row]) -> dict[str, Any]:
    judged = sorted({row.pictures for row in rows if row.pictures})
    notes = [f"accuracy on {judged[0]}"] if len(judged) == 1 else []
    if len(judged) > 1:
        notes.append(f"accuracies are of different pictures and can't be compared: {'; '.join(judged)}")
    notes.append("same: answers as FP32 does; ms: a picture on one core, all cores busy, without decoding")
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "host": host(), "note": "; ".join(notes)}


def _main(config: CompareConfig) -> int:
    rows = compare_bundles([open_bundle(name) for name in config.names])
    about, cells = _about(rows), [row.cells() for row in rows]
    document = about | {"results": [asdict(row) for row in rows]}
    publish(document)
    print(as_text(HEADINGS, cells, about))
    if config.output is not None:
        markdown = config.output.suffix == ".md"
        text = as_markdown(HEADINGS, cells, about) if markdown else json.dumps(document, indent=1, ensure_ascii=False)
        write_atomic(config.output, f"{text}\n".encode())
    if config.picture is not None:
        # Imported here, as Matplotlib takes a second.
        from export.benchmark.drawing import accuracy_and_time

        shown = [row for row in rows if row.accuracy is not None and row.milliseconds is not None]
        if not shown:
            raise HalftoneError(
                "no bundle has both an accuracy and a measured time: train it, then run `python -m export --model NAME`"
            )
        with atomic_path(config.picture) as path:
            path.write_bytes(accuracy_and_time(shown))
        print(f"wrote {printable(config.picture)}")
    return DONE


if __name__ == "__main__":
    run(_main, CompareConfig, prog=PROG, example="--models lite0,resnet18,vit --output families.md")

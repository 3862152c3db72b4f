"""`python -m export.report --model NAME`: one HTML page about a bundle, for people who decide whether to use it.

Variants with proofs and speeds, promises, training, classes, the lineage of every file, and what to do next. The page
loads nothing, so that it can be mailed and archived as one file. A second; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.benchmark.speed import FILE_NAME, SpeedTable
from export.parity.record import ParityRecord, present_records
from models.bundle.accuracy import best_known
from models.bundle.bundle import Bundle
from models.bundle.commands import export_command, serve_command
from models.bundle.promises import read_promises
from models.bundle.store import open_bundle
from models.catalog import network_of
from models.common.cli import DONE, run
from models.common.files import check_writable, write_atomic
from models.common.pages import environment, flat
from models.common.text import printable

TEMPLATE = Path(__file__).with_suffix(".html")
CLASSES_SHOWN = 60
_TRAINING_REPORT, BUNDLE_REPORT = "report/index.html", "report/bundle.html"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write one HTML page about a bundle."""

    model: str
    """Bundle under artifacts/."""

    output: Path | None = None
    """File to write; by default `report/bundle.html` in the bundle."""


def page(bundle: Bundle, *, training_report: str | None = None) -> str:
    """Return the page of a bundle as HTML.

    Args:
        bundle: the bundle.
        training_report: address of its training report, as a link; None for no link.

    Raises:
        HalftoneError: a file that the page shows is damaged.
    """
    pages = environment(TEMPLATE.parent)
    pages.filters["percent"] = _percent
    manifest, speeds = bundle.manifest, _speeds(bundle)
    records = list(present_records(bundle))
    records.sort(key=lambda record: (record.verdict != "PASSED", -speeds.get(record.variant, 0.0)))
    return pages.get_template(TEMPLATE.name).render(
        manifest=manifest,
        subtitle=_subtitle(bundle),
        claim=_claim(records),
        tiles=[*_tiles(bundle), *_speed_tile(records, speeds)],
        proofs=[_proof(record, speeds) for record in records],
        labelled=any("accuracy" in record.figures for record in records),
        promises=read_promises(bundle),
        settings=list(flat({name: each for name, each in manifest.training.items() if name != "history"})),
        training_report=training_report,
        classes_shown=CLASSES_SHOWN,
        lineage=list(_lineage(bundle)),
        following=_following(bundle, records),
    )


def _subtitle(bundle: Bundle) -> str:
    manifest = bundle.manifest
    size = manifest.input.size
    parts = [manifest.architecture, f"{len(manifest.labels):,} classes", f"input {size} x {size}"]
    return " · ".join([*parts, f"version {manifest.version}", f"licence {manifest.license}"])


def _claim(records: list[ParityRecord]) -> str:
    """Return what the first record proves, in a sentence; empty without one that passed."""
    if not records or records[0].verdict != "PASSED":
        return ""
    figures = records[0].figures
    if accuracy := figures.get("accuracy"):
        share, of = (
            figures["top1_agreement"]["value"],
            f"{figures['images']:,} images of {figures['pictures']:,} pictures",
        )
        both = [_percent(accuracy[name]["value"]) for name in ("variant", "reference")]
        end = f", accuracy {both[0]} against {both[1]}"
    else:
        share, of = figures["decided_agreement"]["value"], f"{figures['decided_images']:,} clear images"
        end = ""
    return f"{records[0].variant} answers as the FP32 reference does on {_percent(share)} of {of}{end}."


def _tiles(bundle: Bundle) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and note of every headline figure."""
    manifest = bundle.manifest
    metrics = manifest.training.get("metrics", {})
    if known := best_known(metrics):
        low, high = known.interval or (None, None)
        note = f"95 % interval {_percent(low)} to {_percent(high)}" if low is not None and high is not None else ""
        yield f"{known.name} accuracy", _percent(known.value), note
        if majority := known.majority:
            yield "majority baseline", _percent(majority["value"]), f"by always answering {majority['label']!r}"
    network = network_of(manifest)
    yield "parameters", f"{network.parameters / 1e6:.1f} M", f"{network.macs / 1e9:.2f} GMACs an image"


def _speed_tile(records: list[ParityRecord], speeds: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    if records and records[0].variant in speeds:
        yield "fastest proven", f"{speeds[records[0].variant]:,.0f} images/s", records[0].variant


def _speeds(bundle: Bundle) -> dict[str, float]:
    if not bundle.has(FILE_NAME):
        return {}
    table = SpeedTable.from_json(bundle.read(FILE_NAME))
    return {variant: speed.images_per_second for variant, speed in table.variants.items()}


def _proof(record: ParityRecord, speeds: dict[str, float]) -> dict[str, Any]:
    figures, host = record.figures, record.host
    agreement = figures["top1_agreement"] if "accuracy" in figures else figures["decided_agreement"]
    accuracy = figures.get("accuracy")
    return {
        "variant": record.variant,
        "verdict": record.verdict,
        "agreement": _percent(agreement["value"]),
        "accuracy": _percent(accuracy["variant"]["value"]) if accuracy else "",
        "speed": f"{speeds[record.variant]:,.0f}" if record.variant in speeds else "",
        "data": record.data["description"],
        "where": f"{record.runtime['executed_as']}, {host['cpu']}, {host['cores']} cores, {record.date[:10]}",
        "notes": [*record.reasons, *record.notes],
    }


def _lineage(bundle: Bundle) -> Iterator[dict[str, str]]:
    for name, record in sorted(bundle.manifest.files.items()):
        yield {
            "name": name,
            "megabytes": f"{record.size / 1e6:.2f}",
            "hash": record.sha256[:12],
            "made_by": bundle.made_by(name).strip("`"),
            "made_from": ", ".join(sorted(record.made_from)),
        }


def _following(bundle: Bundle, records: list[ParityRecord]) -> tuple[str, str]:
    """Return what the next command does, and the command."""
    if any(record.verdict == "PASSED" for record in records):
        return "This command serves the fastest variant that is proven on the machine:", serve_command(
            bundle.folder, bundle.manifest
        )
    data = str(bundle.manifest.training.get("config", {}).get("data", ""))
    return "This command exports the model and proves its variants:", export_command(bundle.folder, data)


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _main(config: ReportConfig) -> int:
    bundle = open_bundle(config.model)
    output = config.output or bundle.folder / BUNDLE_REPORT
    if config.output:
        check_writable(output, "--output")
    beside = config.output is None and bundle.has(_TRAINING_REPORT)
    text = page(bundle, training_report=Path(_TRAINING_REPORT).name if beside else None)
    output.parent.mkdir(exist_ok=True)
    write_atomic(output, text.encode())
    print(f"wrote {printable(str(output))}")
    return DONE


if __name__ == "__main__":
    run(_main, ReportConfig, prog="python -m export.report", example="--model photos --output photos.html")

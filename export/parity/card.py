"""Proofs in the model card: what each variant was compared on, and how it answered."""

from __future__ import annotations

from export.parity.record import ParityRecord, present_records
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.card import CARD, model_card
from models.bundle.errors import BundleError
from models.catalog import architecture


def write_card(bundle: Bundle) -> None:
    """Write the model card with a line for each variant's present record, if it has not these lines already.

    Raises:
        HalftoneError: the architecture is unknown.
        BundleError: the card is a link.
    """
    manifest = bundle.manifest
    proofs = [_line(record) for record in present_records(bundle)]
    card = model_card(manifest, architecture(manifest.architecture), proofs=proofs)
    if not _has(bundle, card):
        bundle.write(CARD, card, made_by=f"`python -m export --model {bundle.name}`", made_from=[WEIGHTS])


def _has(bundle: Bundle, card: bytes) -> bool:
    try:
        return bundle.has(CARD) and bundle.read(CARD) == card
    except BundleError:
        return False


def _line(record: ParityRecord) -> str:
    figures, runtime = record.figures, record.runtime
    decided = figures["decided_images"]
    answers = (
        f"the FP32 reference's answer on {figures['decided_agreement']['value']:.2%} of {decided:,} clear images"
        if decided
        else "no answer was compared, only the logits"
    )
    labelled = ""
    if accuracy := figures.get("accuracy"):
        before, after = (accuracy[name]["value"] for name in ("reference", "variant"))
        labelled = f", accuracy {before:.2%} → {after:.2%} of {accuracy['images']:,}"
    what = "" if record.verified_on == "runtime" else " (its graph)"
    return (
        f"`{record.variant}`{what} **{record.verdict}**: {answers}{labelled}; {figures['images']:,} images of "
        f"{figures['pictures']:,} pictures ({record.data['description']}), {runtime['name']} {runtime['version']}, "
        f"{record.date[:10]}."
    )

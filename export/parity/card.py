"""Proofs in the model card: what each variant was compared on, and how it answered."""

from __future__ import annotations

import json

from export.parity.record import ParityRecord, present_records
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.card import CARD, model_card
from models.bundle.errors import BundleError
from models.catalog import network_of

JOINING = "members.json"
"""File of an ensemble: its comparison with the answers of its members, as `export.ensemble` writes it."""


def write_card(bundle: Bundle) -> None:
    """Write the model card with a line for each variant's present record, if it has not these lines already.

    Raises:
        HalftoneError: the architecture is unknown.
        BundleError: the card is a link.
    """
    manifest = bundle.manifest
    proofs = [*_joining(bundle), *(_line(record) for record in present_records(bundle))]
    card = model_card(manifest, network_of(manifest), proofs=proofs)
    if not _has(bundle, card):
        bundle.write(CARD, card, made_by=f"`python -m export --model {bundle.name}`", made_from=[WEIGHTS])


def _joining(bundle: Bundle) -> list[str]:
    """Return the line about an ensemble's comparison with its members; empty for a single network."""
    if not bundle.has(JOINING):
        return []
    record = json.loads(bundle.read(JOINING))
    figures = record["figures"]
    how = "each with its own preprocessing" if record["resampled"] else "which all have this input"
    return [
        f"the FP32 network gives its members' mean answer, {how}, on {figures['decided_agreement']['value']:.2%} of "
        f"{figures['decided_images']:,} clear images, mean KL {figures['mean_kl']:.1e} ({record['data']}, "
        f"{record['date'][:10]})."
    ]


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

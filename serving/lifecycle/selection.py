"""Selection of the variant to serve: only variants with a valid parity record, fastest first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath

from export.benchmark import speed
from export.benchmark.choice import best_first
from export.cuda.device import GpuError, GpuLostError
from export.parity.record import DamagedRecordError, ParityRecord, UnprovenError, current, proof
from export.runtime import Runtime
from export.variants import REFERENCE, load, runtime_of
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from serving.lifecycle import measurements
from serving.lifecycle.shadow import check_reference
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")


def check_bundle(
    name: str, bundle: Bundle, settings: Settings, *, report: Callable[[str], object] = lambda line: None
) -> list[str]:
    """Return the variants with a valid proof among those that the settings allow; deserialise nothing.

    Args:
        name: name under which the model is served.
        bundle: the opened bundle.
        settings: the service's settings; they may select the variant.
        report: called with a line about the variants that are left out because their records are damaged.

    Raises:
        HalftoneError: the bundle is untrained, or has no such variant; the message says why and the fix.
    """
    check_trained(name, bundle, settings)
    if settings.shadow:
        check_reference(bundle, settings.variant)
    if settings.variant:
        kind, precision = runtime_of(settings.variant)
        if kind.source(precision) not in bundle.manifest.files:
            # Raises: a proof can't be made without the file, so the message names the command that makes that.
            bundle.locate(kind.source(precision))
        _check_proof(bundle, settings.variant)
        return [settings.variant]
    reasons: list[str] = []
    damaged, proven = [], []
    for variant in _recorded(bundle):
        try:
            _check_proof(bundle, variant)
        except UnprovenError as error:
            reasons.append(str(error))
            if isinstance(error, DamagedRecordError):
                damaged.append(variant)
        else:
            proven.append(variant)
    if not proven:
        why = "; ".join(reasons) or "it has no parity record"
        raise UnprovenError(
            f"{bundle.name} has no proven variant ({why}): run `python -m export --model {bundle.name}`"
        )
    if damaged:
        report(
            f"{name} is served without {', '.join(damaged)}, whose parity records are damaged: repair them with "
            f"`python -m export --model {bundle.name}`"
        )
    return proven


def check_trained(name: str, bundle: Bundle, settings: Settings) -> None:
    """Refuse random weights, unless the settings allow them.

    Raises:
        HalftoneError: the bundle is untrained.
    """
    if not bundle.manifest.trained and not settings.allow_untrained:
        raise HalftoneError(
            f"{name} has random weights and its predictions would mean nothing: train it, or set "
            "HALFTONE_ALLOW_UNTRAINED=1 for a latency study"
        )


def _check_proof(bundle: Bundle, variant: str) -> None:
    """Refuse a variant without a valid proof, unless it is a plan that can be verified here when it is loaded."""
    record = current(bundle, variant)
    check_source(bundle, variant, record)
    if record.verified_on == "runtime" or record.verdict != "PASSED" or not _runs_here(variant):
        proof(bundle, variant)


def check_source(bundle: Bundle, variant: str, record: ParityRecord) -> None:
    """Refuse a parity record of another file than the one that the runtime would load.

    Raises:
        UnprovenError: the record names another file.
    """
    try:
        kind, precision = runtime_of(variant)
    except HalftoneError:
        # Its runtime is not installed here: the variant can't be loaded anyway.
        return
    if record.source != kind.source(precision):
        raise UnprovenError(
            f"the proof of {variant} is for {record.source}, and it would run {kind.source(precision)}: "
            f"run `python -m export.parity --model {bundle.name} --variant {variant}`"
        )


def _runs_here(variant: str) -> bool:
    try:
        runtime, precision = runtime_of(variant)
    except HalftoneError:
        return False
    return runtime.supported(precision)


def _recorded(bundle: Bundle) -> Iterator[str]:
    """Yield the variants with a parity record, except the torch reference, which is never served."""
    for file in bundle.manifest.files:
        path = PurePosixPath(file)
        if path.parent == PurePosixPath("parity") and path.suffix == ".json" and path.stem != REFERENCE:
            yield path.stem


def fastest_first(
    name: str, bundle: Bundle, variants: list[str], settings: Settings, *, may_measure: bool = True
) -> list[str]:
    """Return the variants in the order to serve them, by speeds that are known for this machine, else measured now.

    The fastest one comes first, unless its proof shows a loss (`export.benchmark.choice`).

    Args:
        name: name under which the model is served.
        bundle: the opened bundle.
        variants: proven ones.
        settings: the service's settings.
        may_measure: measure variants whose speed is not known; if not, order them by their speed on another machine.
    """
    if len(variants) == 1:
        return variants
    rates = measurements.rates(bundle, variants, settings)
    if rates is None:
        logger.info(
            "measuring %d variants%s, because %s holds no speeds of all of them for this machine: "
            "`python -m export --model %s` records them",
            len(variants),
            "" if may_measure else " once one of them serves",
            name,
            bundle.name,
        )
        rates = measured_rates(bundle, variants, settings) if may_measure else speed.elsewhere(bundle)
    return best_first(rates, {variant: current(bundle, variant) for variant in variants})


def load_variant(bundle: Bundle, variant: str, settings: Settings) -> Runtime:
    """Load a variant with the threads of this worker.

    Raises:
        HalftoneError: the variant can't be loaded.
    """
    threads = settings.worker_threads
    return load(bundle, variant, threads=threads, streams=threads)


def measured_rates(bundle: Bundle, variants: list[str], settings: Settings) -> dict[str, float]:
    """Load and measure the variants; return the images/s of those that can be loaded and verified without running.

    Raises:
        GpuLostError: the GPU failed so that this process can't use it any more.
    """
    rates = {}
    for variant in variants:
        if current(bundle, variant).verified_on != "runtime":
            # It is verified when it is loaded, and must not run before.
            continue
        try:
            table = speed.measure(bundle, {variant: partial(load_variant, bundle, variant, settings)})
        except GpuLostError:
            raise
        except (HalftoneError, GpuError):
            # Without a rate it is loaded last, and the log then shows the reason.
            continue
        rates[variant] = table.variants[variant].images_per_second
    return rates

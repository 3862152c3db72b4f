"""From a bundle to a warmed model: the proofs are checked, then the fastest proven variant is opened and measured."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from export import speed
from export.cuda.device import GpuError, GpuLostError
from export.record import ParityRecord, UnprovenError, check_runtime, current, proof
from export.runtimes.base import Runtime
from export.runtimes.registry import REFERENCE, load, runtime_of
from export.tensorrt.first_load import verify_on_first_load
from models.bundle import Bundle
from models.errors import HalftoneError
from models.manifest import Manifest
from models.store import open_bundle
from serving.costs import Costs
from serving.decoding.choice import decoding
from serving.decoding.pool import Decoders
from serving.pace import batch_sizes, rate
from serving.served import Served
from serving.settings import Settings
from serving.shadow import check_reference, open_reference
from serving.telemetry.recorder import Recorder
from serving.trial import answer_a_picture

logger = logging.getLogger("bentoml.halftone")

WARM_UP = 3


@dataclass(frozen=True)
class Opened:
    """A variant that is proven, loaded and warmed."""

    bundle: Bundle
    record: ParityRecord
    runtime: Runtime


def load_model(
    name: str,
    settings: Settings,
    recorder: Recorder,
    decoders: Decoders,
    *,
    bundle: str | None = None,
    replaces: Served | None = None,
) -> Served:
    """Open, choose, warm and measure.

    Args:
        name: under which it is served.
        settings: of the service.
        recorder: is told what the model does.
        decoders: decode its pictures where that pays.
        bundle: to load; the one of that name where none is given.
        replaces: the model that serves meanwhile. Then every file of the bundle is checked, also those that this
            variant does not need, and what is known of the costs of batches is taken over where it holds.

    Raises:
        HalftoneError: the bundle can't be used, is untrained, or has no proven variant that runs here.
        GpuError: the GPU failed while the model was measured; GpuLostError where it will go on to.
    """
    opened = open_fastest(name, settings, bundle=bundle, whole=replaces is not None)
    return _served(name, opened, settings, recorder, decoders, replaces)


def open_fastest(name: str, settings: Settings, *, bundle: str | None = None, whole: bool = False) -> Opened:
    """The fastest variant that is proven and runs here, warmed.

    Args:
        name: under which it is served.
        settings: of the service; they may name the variant.
        bundle: to load; the one of that name where none is given.
        whole: check every file of the bundle, also those that this variant does not need.

    Raises:
        HalftoneError: the bundle can't be used, is untrained, or has no proven variant that runs here.
        GpuLostError: the GPU failed so that this process can't use it any more.
    """
    opened = open_bundle(bundle or name)
    if whole:
        opened.verify()
    reasons: list[str] = []
    for variant in _fastest_first(name, opened, check_bundle(name, opened, settings), settings):
        try:
            record, runtime = _open(name, opened, variant, settings)
        except GpuLostError:
            raise
        except (HalftoneError, GpuError) as error:
            reasons.append(f"{variant}: {error}")
            continue
        for reason in reasons:
            logger.warning("not served: %s", reason)
        return Opened(opened, record, runtime)
    raise UnprovenError(f"no variant of {name} can serve on this machine: {'; '.join(reasons)}")


def _served(
    name: str, opened: Opened, settings: Settings, recorder: Recorder, decoders: Decoders, replaces: Served | None
) -> Served:
    bundle, manifest, variant = opened.bundle, opened.bundle.manifest, opened.record.variant
    known = _known_costs(manifest, variant, replaces)
    streams, sizes = batch_sizes(name, opened.runtime, settings, known)
    return Served(
        name,
        manifest,
        opened.runtime,
        opened.record,
        sizes=sizes,
        # Where the library runs the model in threads of its own, one more decodes a picture while all others wait for
        # those (a tenth more throughput); else it would only take the cores from them (a tenth less).
        threads=settings.worker_threads + (not opened.runtime.inline),
        parallel=settings.worker_threads,
        streams=streams,
        capacity=settings.queue,
        max_pixels=settings.max_pixels,
        load=decoding(name, decoders, settings, manifest.input, rate(opened.runtime, streams, sizes, settings)),
        recorder=recorder,
        bundle=bundle.folder.name,
        reference=open_reference(bundle, variant) if settings.shadow else None,
        shadow=settings.shadow,
    )


def _known_costs(manifest: Manifest, variant: str, other: Served | None) -> tuple[int, Costs] | None:
    """Batches at once and the costs that another model has learnt, where this one is the same network.

    A measurement beside the load of the other one would say more about that load.
    """
    if other is None or not isinstance(other.sizes, Costs) or variant != other.variant:
        return None
    same = manifest.architecture == other.manifest.architecture and manifest.input.size == other.manifest.input.size
    return (other.streams, Costs(other.sizes.seconds)) if same else None


def check_bundle(name: str, bundle: Bundle, settings: Settings) -> list[str]:
    """The variants with a valid proof among those that may be served; nothing is deserialised.

    Raises:
        HalftoneError: the bundle is untrained, or has no such variant; the message says why and the fix.
    """
    _check_trained(name, bundle, settings)
    if settings.shadow:
        check_reference(bundle, settings.variant)
    if settings.variant:
        runtime_of(settings.variant)
        _check_proof(bundle, settings.variant)
        return [settings.variant]
    reasons: list[str] = []
    proven = []
    for variant in _recorded(bundle):
        try:
            _check_proof(bundle, variant)
        except UnprovenError as error:
            reasons.append(str(error))
        else:
            proven.append(variant)
    if not proven:
        why = "; ".join(reasons) or "it has no parity record"
        raise UnprovenError(f"{name} has no proven variant ({why}): run `python -m export --model {name}`")
    return proven


def _check_trained(name: str, bundle: Bundle, settings: Settings) -> None:
    if not bundle.manifest.trained and not settings.allow_untrained:
        raise HalftoneError(
            f"{name} has random weights and its answers would mean nothing: train it, or set "
            "HALFTONE_ALLOW_UNTRAINED=1 for a latency study"
        )


def _check_proof(bundle: Bundle, variant: str) -> None:
    """Refuse a variant without a valid proof, but for a plan that can be verified here when it is loaded."""
    record = current(bundle, variant)
    _check_source(bundle, variant, record)
    if record.verified_on == "runtime" or record.verdict != "PASSED" or not _runs_here(variant):
        proof(bundle, variant)


def _check_source(bundle: Bundle, variant: str, record: ParityRecord) -> None:
    """Refuse a proof for another file than the one that would run."""
    try:
        kind, precision = runtime_of(variant)
    except HalftoneError:
        # Of a runtime that is not here; it is not opened either.
        return
    if record.source != kind.source(precision):
        raise UnprovenError(
            f"the proof of {variant} is for {record.source}, and it would run {kind.source(precision)}: "
            f"run `python -m export.parity --model {bundle.manifest.name} --variant {variant}`"
        )


def _runs_here(variant: str) -> bool:
    try:
        runtime, precision = runtime_of(variant)
    except HalftoneError:
        return False
    return runtime.supported(precision)


def _recorded(bundle: Bundle) -> Iterator[str]:
    """The variants with a parity record; the torch reference is never served."""
    for file in bundle.manifest.files:
        path = PurePosixPath(file)
        if path.parent == PurePosixPath("parity") and path.suffix == ".json" and path.stem != REFERENCE:
            yield path.stem


def _fastest_first(name: str, bundle: Bundle, variants: list[str], settings: Settings) -> list[str]:
    """In the order of the speeds that the bundle holds for this machine, else of a measurement made now."""
    if len(variants) == 1:
        return variants
    rates = speed.recorded(bundle, variants)
    if rates is None:
        logger.info(
            "measuring %d variants, as %s holds no speeds of all of them for this machine: "
            "`python -m export --model %s` keeps them",
            len(variants),
            name,
            name,
        )
        rates = _measure(bundle, variants, settings)
    return sorted(variants, key=lambda variant: -rates.get(variant, 0.0))


def _measure(bundle: Bundle, variants: list[str], settings: Settings) -> dict[str, float]:
    rates = {}
    for variant in variants:
        if current(bundle, variant).verified_on != "runtime":
            # It is verified when it is opened, and not run before.
            continue
        try:
            table = speed.measure(bundle, {variant: partial(_load, bundle, variant, settings)})
        except GpuLostError:
            raise
        except (HalftoneError, GpuError):
            # Opening it again as the last choice gives the reason to the log.
            continue
        rates[variant] = table.variants[variant].images_per_second
    return rates


def _load(bundle: Bundle, variant: str, settings: Settings) -> Runtime:
    threads = settings.worker_threads
    return load(bundle, variant, threads=threads, streams=threads)


def _open(name: str, bundle: Bundle, variant: str, settings: Settings) -> tuple[ParityRecord, Runtime]:
    record = verify_on_first_load(bundle, variant)
    # The verification may have read the manifest again, and another bundle may be there by now.
    _check_trained(name, bundle, settings)
    _check_source(bundle, variant, record)
    runtime = _load(bundle, variant, settings)
    check_runtime(record, runtime.version(), runtime.executed_as, name)
    picture = np.zeros((1, *runtime.shape), np.uint8)
    for _ in range(WARM_UP):
        runtime.run(picture)
    answer_a_picture(runtime, bundle.manifest)
    return record, runtime

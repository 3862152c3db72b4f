"""Load a model to serve: check the proofs of its bundle, then load, warm up and measure the fastest proven variant.

Before a variant is used it classifies a sample photo, so that a model that cannot respond is rejected at load time.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from export.cuda.device import GpuError, GpuLostError
from export.parity.record import ParityRecord, UnprovenError, check_runtime
from export.runtime import Runtime
from export.trt.first_load import verify_on_first_load
from models.bundle.bundle import Bundle
from models.bundle.drift import Profile, read_profile
from models.bundle.manifest import Manifest
from models.bundle.promises import Promises, read_promises
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from models.preprocess import transform
from models.preprocess.decode import MAX_PIXELS
from serving.batching.autotune import batch_sizes, guess, throughput
from serving.batching.cost_model import Costs
from serving.collect.collector import Collector
from serving.decoding.placement import place_decoding
from serving.decoding.pool import Decoders
from serving.lifecycle import measurements
from serving.lifecycle.predictions import answers
from serving.lifecycle.selection import check_bundle, check_source, check_trained, fastest_first, load_variant
from serving.lifecycle.served_model import ServedModel
from serving.lifecycle.shadow import load_reference
from serving.settings import Settings
from serving.telemetry.recorder import Recorder

logger = logging.getLogger("bentoml.halftone")

WARM_UP = 3
"""Runs of a single image before the first response."""


@dataclass(frozen=True)
class LoadedVariant:
    """A proven variant in memory, warmed up."""

    bundle: Bundle
    record: ParityRecord
    runtime: Runtime
    promises: Promises | None
    profile: Profile | None


def load_model(
    name: str,
    settings: Settings,
    recorder: Recorder,
    decoders: Decoders,
    *,
    bundle: str | None = None,
    replaces: ServedModel | None = None,
    collector: Collector | None = None,
) -> ServedModel:
    """Choose the fastest proven variant of a bundle, load it, warm it up and measure its batches.

    Args:
        name: name under which the model is served.
        settings: the service's settings.
        recorder: receives the model's metrics and traces.
        decoders: processes that decode its images if that pays.
        bundle: name of the bundle; default: `name`.
        replaces: the active model. With one, every file of the bundle is checked, also those that the variant does not
            need, and the measured costs of the active model's batches are reused if they apply. Without one, clients
            wait: nothing is measured, and what is not known (`unmeasured`) is guessed.
        collector: receives the images with their answers; None: nothing is collected.

    Raises:
        HalftoneError: the bundle can't be used, is untrained, or has no proven variant that runs here.
        GpuError: the GPU failed during the measurement; GpuLostError if this process can't use it any more.
    """
    loaded = load_fastest(
        name, settings, bundle=bundle, check_all_files=replaces is not None, may_measure=replaces is not None
    )
    return _served_model(name, loaded, settings, recorder, decoders, replaces, collector)


def load_fastest(
    name: str,
    settings: Settings,
    *,
    bundle: str | None = None,
    check_all_files: bool = False,
    may_measure: bool = True,
) -> LoadedVariant:
    """Load the fastest variant that is proven and runs here, and warm it up.

    Args:
        name: name under which the model is served.
        settings: the service's settings; they may select the variant.
        bundle: name of the bundle; default: `name`.
        check_all_files: also check the files of the bundle that this variant does not need.
        may_measure: measure the variants whose speed is not known.

    Raises:
        HalftoneError: the bundle can't be used, is untrained, or has no proven variant that runs here.
        GpuLostError: the GPU failed so that this process can't use it any more.
    """
    opened = open_bundle(bundle or name)
    if check_all_files:
        opened.verify()
    reasons: list[str] = []
    proven = check_bundle(name, opened, settings, report=logger.warning)
    promises, profile = read_promises(opened), read_profile(opened)
    for variant in fastest_first(name, opened, proven, settings, may_measure=may_measure):
        try:
            record, runtime = _load_and_warm_up(name, opened, variant, settings, promises)
        except GpuLostError:
            raise
        except (HalftoneError, GpuError) as error:
            reasons.append(f"{variant}: {error}")
            continue
        for reason in reasons:
            logger.warning("not served: %s", reason)
        return LoadedVariant(opened, record, runtime, promises, profile)
    raise UnprovenError(f"no variant of {name} can serve on this machine: {'; '.join(reasons)}")


def _served_model(
    name: str,
    loaded: LoadedVariant,
    settings: Settings,
    recorder: Recorder,
    decoders: Decoders,
    replaces: ServedModel | None,
    collector: Collector | None,
) -> ServedModel:
    bundle, runtime, manifest, variant = loaded.bundle, loaded.runtime, loaded.bundle.manifest, loaded.record.variant
    known = measurements.batches(bundle, variant, settings) or _known_costs(manifest, variant, replaces)
    # Without a model to replace, clients wait: what larger batches need is made once single images are served.
    complete = replaces is not None or settings.batch > 0
    if complete:
        streams, sizes = batch_sizes(name, runtime, settings, known)
    else:
        streams, sizes = known or guess(runtime, settings)
    rate = throughput(runtime, streams, sizes, settings)
    model = ServedModel(
        name,
        manifest,
        runtime,
        loaded.record,
        sizes=sizes,
        complete=complete,
        # If the library runs the model in its own threads, one more thread decodes an image while all others wait
        # for the library (a tenth more throughput). Else it would only take the cores from them (a tenth less).
        threads=settings.worker_threads + (not runtime.inline),
        parallel=settings.worker_threads,
        streams=streams,
        capacity=settings.queue,
        max_pixels=settings.max_pixels,
        load_pixels=place_decoding(name, decoders, settings, manifest.input, rate),
        recorder=recorder,
        bundle=bundle.folder.name,
        reference=load_reference(bundle, variant) if settings.shadow else None,
        shadow=settings.shadow,
        promises=loaded.promises,
        profile=loaded.profile,
        files=bundle,
        collector=collector,
    )
    if replaces is not None:
        model.complete()
    return model


def unmeasured(model: ServedModel, settings: Settings) -> bool:
    """Return True if the variant or the batches of a model loaded from its own bundle are a guess.

    Raises:
        HalftoneError: the bundle can't be used any more.
    """
    bundle = open_bundle(model.bundle)
    proven = check_bundle(model.name, bundle, settings)
    if len(proven) > 1 and measurements.rates(bundle, proven, settings) is None:
        return True
    return not settings.batch and measurements.batches(bundle, model.variant, settings) is None


def _known_costs(manifest: Manifest, variant: str, other: ServedModel | None) -> tuple[int, Costs] | None:
    """Return the number of batches in flight and the costs of another model if it is the same network.

    A measurement during the load of the other model would rather measure that load.
    """
    if other is None or not isinstance(other.sizes, Costs) or variant != other.variant:
        return None
    same = manifest.architectures == other.manifest.architectures and manifest.input.size == other.manifest.input.size
    return (other.streams, Costs(other.sizes.seconds)) if same else None


def _load_and_warm_up(
    name: str, bundle: Bundle, variant: str, settings: Settings, promises: Promises | None
) -> tuple[ParityRecord, Runtime]:
    record = verify_on_first_load(bundle, variant)
    # Checked again: the verification may have read the manifest again, and the folder may hold another bundle by now.
    check_trained(name, bundle, settings)
    check_source(bundle, variant, record)
    runtime = load_variant(bundle, variant, settings)
    check_runtime(record, runtime.version(), runtime.executed_as, bundle.name)
    image = np.zeros((1, *runtime.shape), np.uint8)
    for _ in range(WARM_UP):
        runtime.run(image)
    check_first_answer(runtime, bundle.manifest, promises)
    return record, runtime


def check_first_answer(runtime: Runtime, manifest: Manifest, promises: Promises | None = None) -> None:
    """Classify a sample photo: decode, run, name every class, and encode the response.

    Args:
        runtime: the loaded variant.
        manifest: manifest of its bundle.
        promises: of its bundle.

    Raises:
        HalftoneError: one of these steps fails, or a probability is not a finite number.
        GpuError: the GPU failed.
    """
    photo = (files("export") / "photos" / "cat.jpg").read_bytes()
    try:
        (logits,) = runtime.run(transform.load(photo, manifest.input, max_pixels=MAX_PIXELS)[np.newaxis])
        with np.errstate(all="ignore"):
            members = answers(manifest, len(manifest.labels), promises)(logits)
        answer = [members, manifest.name, manifest.architecture, manifest.source, manifest.license]
        json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
    except (MemoryError, GpuError):
        raise
    # Whatever it is, it would be raised on the image of a client, too.
    except Exception as error:
        raise HalftoneError(
            f"{manifest.name} can't classify a picture ({type(error).__name__}: {error}): export it again"
        ) from error

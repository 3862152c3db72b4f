"""From a bundle to a warmed model: the proofs are checked, then the fastest proven variant is opened and measured."""

# MERGED-DOC """A first answer, made before anybody is given one: what a client would only find out is found out while loading."""

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
from models.bundle.manifest import Manifest
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from models.preprocess import transform
from models.preprocess.decode import MAX_PIXELS
from serving.batching.autotune import batch_sizes, rate
from serving.batching.cost_model import Costs
from serving.decoding.placement import decoding
from serving.decoding.pool import Decoders
from serving.lifecycle.predictions import best
from serving.lifecycle.selection import check_bundle, check_source, check_trained, fastest_first, load_variant
from serving.lifecycle.served_model import ServedModel
from serving.lifecycle.shadow import open_reference
from serving.settings import Settings
from serving.telemetry.recorder import Recorder

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
    replaces: ServedModel | None = None,
) -> ServedModel:
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
    for variant in fastest_first(name, opened, check_bundle(name, opened, settings), settings):
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
    name: str, opened: Opened, settings: Settings, recorder: Recorder, decoders: Decoders, replaces: ServedModel | None
) -> ServedModel:
    bundle, manifest, variant = opened.bundle, opened.bundle.manifest, opened.record.variant
    known = _known_costs(manifest, variant, replaces)
    streams, sizes = batch_sizes(name, opened.runtime, settings, known)
    return ServedModel(
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


def _known_costs(manifest: Manifest, variant: str, other: ServedModel | None) -> tuple[int, Costs] | None:
    """Batches at once and the costs that another model has learnt, where this one is the same network.

    A measurement beside the load of the other one would say more about that load.
    """
    if other is None or not isinstance(other.sizes, Costs) or variant != other.variant:
        return None
    same = manifest.architecture == other.manifest.architecture and manifest.input.size == other.manifest.input.size
    return (other.streams, Costs(other.sizes.seconds)) if same else None


def _open(name: str, bundle: Bundle, variant: str, settings: Settings) -> tuple[ParityRecord, Runtime]:
    record = verify_on_first_load(bundle, variant)
    # The verification may have read the manifest again, and another bundle may be there by now.
    check_trained(name, bundle, settings)
    check_source(bundle, variant, record)
    runtime = load_variant(bundle, variant, settings)
    check_runtime(record, runtime.version(), runtime.executed_as, name)
    picture = np.zeros((1, *runtime.shape), np.uint8)
    for _ in range(WARM_UP):
        runtime.run(picture)
    check_first_answer(runtime, bundle.manifest)
    return record, runtime


def check_first_answer(runtime: Runtime, manifest: Manifest) -> None:
    """Decode, run, name every class, and write it down as an answer would.

    Args:
        runtime: the loaded variant.
        manifest: of its bundle.

    Raises:
        HalftoneError: one of these steps fails, or a probability is not a number.
        GpuError: the GPU failed.
    """
    photo = (files("export") / "photos" / "cat.jpg").read_bytes()
    try:
        (logits,) = runtime.run(transform.load(photo, manifest.input, max_pixels=MAX_PIXELS)[np.newaxis])
        with np.errstate(all="ignore"):
            predictions = best(manifest, len(manifest.labels))(logits)
        told = [predictions, manifest.name, manifest.architecture, manifest.source, manifest.license]
        json.dumps(told, ensure_ascii=False, allow_nan=False).encode()
    except (MemoryError, GpuError):
        raise
    # Whatever it raises, it would raise on a client's picture.
    except Exception as error:
        raise HalftoneError(
            f"{manifest.name} can't answer a picture ({type(error).__name__}: {error}): export it again"
        ) from error

"""Measure a bundle's variants in a process of its own: `python -m serving.lifecycle.measuring NAME`.

The service starts it once it is ready, as its memory, and the libraries that only the slower variants need, are gone
when it ends. It has the service's settings from the environment, and writes `measurements.to_json` to stdout.
"""

from __future__ import annotations

import os
import sys
import threading

from models.bundle.bundle import Bundle
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from serving.batching.autotune import batch_sizes
from serving.batching.cost_model import Costs
from serving.lifecycle import measurements
from serving.lifecycle.loading import load_fastest
from serving.lifecycle.measurements import Conditions, Measurement
from serving.lifecycle.selection import check_bundle, measured_rates
from serving.settings import Settings

_ENDED = 1


def measure(name: str, settings: Settings) -> list[Measurement]:
    """Measure what is not known yet: the rates of all variants, and the batches of the fastest one.

    Raises:
        HalftoneError: the bundle can't serve here.
        GpuLostError: the GPU failed.
    """
    bundle = open_bundle(name)
    proven = check_bundle(name, bundle, settings)
    if len(proven) > 1 and measurements.rates(bundle, proven, settings) is None:
        rates = measured_rates(bundle, proven, settings)
        measurements.remember(bundle, [_rate(bundle, each, rates.get(each, 0.0), settings) for each in proven])
    if not settings.batch:
        _measure_batches(name, settings)
    return measurements.remembered(bundle)


def _rate(bundle: Bundle, variant: str, rate: float, settings: Settings) -> Measurement:
    return Measurement(conditions=Conditions.now(bundle, variant, settings), images_per_second=rate)


def _measure_batches(name: str, settings: Settings) -> None:
    loaded = load_fastest(name, settings)
    bundle, variant = loaded.bundle, loaded.record.variant
    if measurements.batches(bundle, variant, settings) is None:
        streams, costs = batch_sizes(name, loaded.runtime, settings)
        assert isinstance(costs, Costs)
        measurements.remember_batches(bundle, variant, settings, streams, costs)


def _end_with_parent() -> None:
    """End this process when the service's end of stdin is closed, however that happened."""
    sys.stdin.buffer.read()
    os._exit(_ENDED)


def main(name: str) -> None:
    """Measure and print."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = measure(name, Settings.from_environment())
    except HalftoneError as error:
        print(error, file=sys.stderr)
        sys.exit(_ENDED)
    sys.stdout.buffer.write(measurements.to_json(found))
    sys.stdout.flush()
    # The thread that reads stdin would keep the interpreter from ending.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])

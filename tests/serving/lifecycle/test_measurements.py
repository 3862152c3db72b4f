"""Measurements are kept in the bundle, for the machine, threads, file and library that they were made with."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export.benchmark import speed
from models.bundle.bundle import Bundle
from models.bundle.store import DEFAULT_MODEL
from models.common.errors import HalftoneError
from serving.batching.cost_model import Costs
from serving.lifecycle import measurements
from serving.lifecycle.measurements import FILE_NAME, Conditions, Measurement
from serving.lifecycle.selection import fastest_first
from serving.settings import Settings

VARIANTS = ["onnxruntime-fp32", "openvino-fp32"]
SETTINGS = Settings(model=DEFAULT_MODEL, threads=2)


@pytest.fixture
def bundle(artifacts: Path, tmp_path: Path) -> Bundle:
    """The manifest and the proofs of the default bundle in a folder of their own, without speeds."""
    shutil.copytree(artifacts / DEFAULT_MODEL / "parity", tmp_path / "parity")
    manifest = Bundle.open(artifacts / DEFAULT_MODEL).manifest
    files = {name: record for name, record in manifest.files.items() if name != speed.FILE_NAME}
    return Bundle(tmp_path, replace(manifest, files=files))


def measured(bundle: Bundle, variant: str, rate: float, **changes: Any) -> Measurement:
    conditions = replace(Conditions.now(bundle, variant, SETTINGS), **changes)
    return Measurement(conditions=conditions, images_per_second=rate, streams=2, seconds=((1, 0.005), (2, 0.009)))


def test_the_next_start_knows_what_was_measured(bundle: Bundle) -> None:
    assert measurements.batches(bundle, VARIANTS[0], SETTINGS) is None

    measurements.keep(bundle, [measured(bundle, VARIANTS[0], 100.0)])
    measurements.keep(bundle, [measured(bundle, VARIANTS[1], 200.0)])

    assert measurements.rates(bundle, VARIANTS, SETTINGS) == {VARIANTS[0]: 100.0, VARIANTS[1]: 200.0}
    assert fastest_first("a model", bundle, VARIANTS, SETTINGS, may_measure=False) == VARIANTS[::-1]
    known = measurements.batches(bundle, VARIANTS[0], SETTINGS)
    assert known is not None
    assert (known[0], known[1].seconds) == (2, {1: 0.005, 2: 0.009})


@pytest.mark.parametrize(
    "change",
    [{"host": {"cpu": "another"}}, {"library": "0"}, {"source_sha256": "0"}, {"threads": 3}, {"largest": 8}],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_what_it_depends_on_makes_it_unknown(bundle: Bundle, change: dict[str, Any]) -> None:
    measurements.keep(bundle, [measured(bundle, VARIANTS[0], 100.0, **change)])

    assert measurements.batches(bundle, VARIANTS[0], SETTINGS) is None
    assert measurements.rates(bundle, VARIANTS[:1], SETTINGS) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"schema": 2, "measurements": []}', b'{"schema": 1, "measurements": [{}]}', b'{"schema": 1}'],
)
def test_a_damaged_file_counts_as_none(bundle: Bundle, content: bytes) -> None:
    (bundle.folder / FILE_NAME).write_bytes(content)
    with pytest.raises(HalftoneError, match="not"):
        measurements.from_json(content)
    assert measurements.rates(bundle, VARIANTS[:1], SETTINGS) is None

    measurements.keep(bundle, [measured(bundle, VARIANTS[0], 100.0)])

    assert measurements.rates(bundle, VARIANTS[:1], SETTINGS) == {VARIANTS[0]: 100.0}


@pytest.mark.parametrize("change", [{"streams": 0}, {"streams": 9}, {"seconds": [[2, 0.1]]}, {"seconds": [[1, -1.0]]}])
def test_impossible_values_are_refused(bundle: Bundle, change: dict[str, Any]) -> None:
    values = json.loads(measurements.to_json([measured(bundle, VARIANTS[0], 1.0)]))
    values["measurements"][0] |= change

    with pytest.raises(HalftoneError, match="not a file of measurements"):
        measurements.from_json(json.dumps(values).encode())


def test_a_folder_that_can_not_be_written_keeps_them_in_memory(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    # As root, a test can write to every folder; it can't replace a folder by a file.
    (bundle.folder / FILE_NAME / "full").mkdir(parents=True)
    new = [measured(bundle, VARIANTS[0], 100.0)]

    with caplog.at_level(logging.INFO, "bentoml.halftone"):
        measurements.remember(bundle, new)
        measurements.keep(bundle, new)

    assert "every start measures again" in caplog.text
    assert measurements.rates(bundle, VARIANTS[:1], SETTINGS) == {VARIANTS[0]: 100.0}


def test_batches_are_added_to_the_rate(bundle: Bundle) -> None:
    rate = replace(measured(bundle, VARIANTS[0], 100.0), streams=0, seconds=())
    measurements.remember(bundle, [rate])

    measurements.remember_batches(bundle, VARIANTS[0], SETTINGS, 1, Costs({1: 0.005}))

    assert measurements.remembered(bundle) == [replace(rate, streams=1, seconds=((1, 0.005),))]

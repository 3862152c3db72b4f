"""`promises.json`: read as it was written, and nothing else is read."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.bundle.bundle import PROMISES, WEIGHTS, Bundle
from models.bundle.errors import FileMissingError
from models.bundle.promises import Promises, fit_promises, read_promises, write_promises
from models.common.errors import HalftoneError
from tests.samples import small_bundle


@pytest.fixture(scope="module")
def promises() -> Promises:
    logits = np.random.default_rng(0).normal(0, 4, (500, 3)).astype(np.float32)
    return fit_promises(logits, logits.argmax(axis=1), 1.0)


def test_they_are_read_as_they_were_written(promises: Promises, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    assert read_promises(bundle) is None

    write_promises(bundle, promises, made_by="`make promises`")

    assert read_promises(Bundle.open(bundle.folder)) == promises
    assert promises.threshold is not None
    assert promises.description() == {
        "images": 500,
        "error": 0.01,
        "error_interval": promises.error_interval,
        "answered": promises.answered,
        "threshold": promises.threshold,
        "coverage": 0.95,
        "set_size": 1.0,
        "note": None,
        "from": "held-out pictures",
    }


def test_those_of_other_weights_are_ignored(promises: Promises, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    write_promises(bundle, promises, made_by="`make promises`")

    bundle.write(WEIGHTS, b"other weights", made_by="`make weights`")

    assert read_promises(bundle) is None


def test_a_bundle_that_has_lost_them_says_so(promises: Promises, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    write_promises(bundle, promises, made_by="`make promises`")
    (bundle.folder / PROMISES).unlink()

    with pytest.raises(FileMissingError, match=r"promises\.json is missing: repair it with .* --model tiny`"):
        read_promises(Bundle.open(bundle.folder))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"images": 0},
        {"images": True},
        {"origin": "dreams"},
        {"threshold": "high"},
        {"error": 2},
        {"error_interval": 3},
        {"coverage": None},
        {"quantiles": [0.5, 0.4]},
        {"quantiles": [0.1] * 501},
        {"quantiles": ["a"]},
        {"note": 5},
        {"more": 1},
    ],
)
def test_damage_is_named_with_the_repair(promises: Promises, tmp_path: Path, change: dict[str, object]) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    values = json.loads(promises.to_json()) | change
    bundle.write(PROMISES, json.dumps(values).encode(), made_by="`make it`", made_from=[WEIGHTS])

    with pytest.raises(HalftoneError, match=r"promises.json can't be used: not a file of promises .* --model tiny`"):
        read_promises(bundle)

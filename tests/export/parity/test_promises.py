"""Promises and profile from a proof's images: more pictures win; without labels, only ImageNet's models get any."""

from pathlib import Path

import numpy as np
import pytest

from export.parity.metrics import UNLABELLED
from export.parity.promises import keep_profile, keep_promises, lacks_promises
from models.bundle.bundle import PROMISES, WEIGHTS, Bundle
from models.bundle.drift import DRIFT, cells, read_profile
from models.bundle.promises import Promises, read_promises
from tests.samples import small_bundle

DATA = Path("photos")


def proof_of(bundle: Bundle, pictures: int, data: Path | None = DATA) -> Promises | None:
    """Fit on this many labelled pictures, each with a crop, or on crops alone."""
    logits = np.random.default_rng(0).normal(0, 4, (2 * pictures, len(bundle.manifest.labels))).astype(np.float32)
    labels = np.where(np.arange(2 * pictures) < pictures, logits.argmax(axis=1), UNLABELLED)
    keep_promises(bundle, logits, labels, pictures, data)
    places = cells(np.zeros((2 * pictures, 8, 8, 3), np.uint8), logits, 1.0)
    keep_profile(bundle, places, labels, data)
    return read_promises(bundle)


def test_labelled_pictures_fit_them_and_more_pictures_replace_them(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    assert lacks_promises(bundle, DATA)
    assert not lacks_promises(bundle, None)

    for pictures, kept in ((50, 50), (40, 50), (400, 400)):
        promises = proof_of(bundle, pictures)
        assert promises is not None
        assert (promises.images, promises.origin) == (kept, "held-out pictures")
        profile = read_profile(bundle)
        assert profile is not None
        assert profile.pictures == kept
    record = bundle.manifest.files[PROMISES]
    assert (record.made_by, set(record.made_from)) == (
        "`python -m export.parity --model tiny --data photos`",
        {WEIGHTS},
    )
    assert not lacks_promises(bundle, DATA)


def test_damaged_ones_are_made_again(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    proof_of(bundle, 50)
    for name in (PROMISES, DRIFT):
        (bundle.folder / name).write_text("{}")

    promises, profile = proof_of(bundle, 20), read_profile(bundle)

    assert promises is not None
    assert profile is not None
    assert promises.images == profile.pictures == 20


@pytest.mark.parametrize(("ids", "expected"), [((), None), (("n01440764", "n01443537"), "sample photographs")])
def test_sample_photographs_are_familiar_to_imagenets_models(
    tmp_path: Path, ids: tuple[str, ...], expected: str | None
) -> None:
    bundle = small_bundle(tmp_path / "tiny", label_ids=ids)

    assert lacks_promises(bundle, None) == (expected is not None)
    unlabelled = proof_of(bundle, 30, None)
    assert read_profile(bundle) is None
    assert (unlabelled and unlabelled.origin) == expected
    if unlabelled is not None:
        labelled = proof_of(bundle, 25)
        assert labelled is not None
        assert labelled.origin == "held-out pictures"
        assert proof_of(bundle, 30, None) == labelled


def test_random_weights_promise_nothing(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny", trained=False)
    assert proof_of(bundle, 50) is None
    assert read_profile(bundle) is None

"""Comparison of the maps of an exported graph with the library's."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.explain import heat
from export.explain.explainer import Explainer
from export.explain.graph import export_explanation
from export.explain.heat import HeatMaps, enlarged
from models.bundle.bundle import Bundle
from tests.samples import noise


def check_maps(original: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Extend the FP32 graph of a bundle that need not be proven, in a copy, and compare its maps."""
    copy = folder / "explained"
    shutil.copytree(original.folder, copy)
    bundle = Bundle.open(copy)
    for name in ("proof", "check_runtime"):
        monkeypatch.setattr(heat, name, lambda *arguments: None)
    size = bundle.manifest.input.size
    pixels = np.stack([noise(size, size), noise(size, size)[::-1]])

    assert export_explanation(bundle) == method

    maps = HeatMaps(bundle)
    assert maps.method == method
    explainer = Explainer(bundle)
    for index in (None, 1):
        expected = explainer.explain(pixels, index)
        for number, each in enumerate(pixels):
            found = maps.explain(each, index)
            np.testing.assert_allclose(enlarged(found.map, size), expected.maps[number], atol=1e-3)

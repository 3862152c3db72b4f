"""BentoML as its documentation introduces it: a typed API that takes a PIL image, in PEER_THREADS threads."""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
from PIL import Image

from loadtest.peers.shared import Model, threads
from models.preprocess.transform import fit


@bentoml.service(threads=threads(), traffic={"timeout": 60})
class Typed:
    """Takes one picture a request."""

    def __init__(self) -> None:
        self.model = Model(threads())

    @bentoml.api  # type: ignore[untyped-decorator]
    def classify(self, image: Image.Image) -> dict[str, Any]:
        """Classify one picture."""
        pixels = fit(np.asarray(image.convert("RGB")), self.model.bundle.manifest.input)
        return self.model.answer(self.model.run(pixels[np.newaxis])[0])

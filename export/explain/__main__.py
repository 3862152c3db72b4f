"""`python -m export.explain --model NAME --image X [--class LABEL] [--output X.png]`: heat map of a classification.

Writes a PNG with the image as the network sees it, the heat map over it and the best classes: Grad-CAM for
convolutional networks, Swin and PVT, attention rollout for ViT and DeiT. About 8 s, mostly for loading torch. As a
library: `export.explain.explainer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from export.explain.classes import class_index
from models.bundle.bundle import Bundle
from models.bundle.manifest import Manifest
from models.bundle.store import open_bundle
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.files import check_writable, write_atomic
from models.common.statistics import softmax
from models.common.text import printable
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import load


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Show where in a picture a model sees a class."""

    model: str
    """Bundle under artifacts/."""

    image: Path
    """A JPEG, PNG or WebP file."""

    class_: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Label, label id or index of the class to explain; default: the most probable class."""

    output: Path | None = None
    """PNG file to write; default: the image's name with `.explained.png`, in the current folder."""

    top_k: int = 5
    """Number of best classes to list, in addition to the class of --class."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise HalftoneError(f"--top-k must be at least 1, not {self.top_k}")
        if self.target.suffix.lower() != ".png":
            raise HalftoneError(f"--output {self.target} must be named .png, the format that is written")
        if self.target.resolve() == self.image.resolve():
            raise HalftoneError(f"--output {self.target} is the picture itself: choose another name")

    @property
    def target(self) -> Path:
        """Path of the PNG."""
        return self.output or Path(f"{self.image.stem}.explained.png")


def _main(config: ExplainConfig) -> int:
    bundle = open_bundle(config.model)
    index = None if config.class_ is None else class_index(bundle.manifest, config.class_)
    picture = _picture(config.image, bundle.manifest)
    check_writable(config.target, "--output")
    data, summary = _explained(bundle, picture, index, config.top_k)
    write_atomic(config.target, data)
    print(f"{summary}\nwrote {printable(config.target)}")
    return DONE


def _picture(path: Path, manifest: Manifest) -> Pixels:
    if not path.is_file():
        raise HalftoneError(f"--image {path}: no such file")
    try:
        return load(path.read_bytes(), manifest.input)
    except ImageError as error:
        raise HalftoneError(f"--image {path}: {error}") from None


def _explained(bundle: Bundle, picture: Pixels, index: int | None, top_k: int) -> tuple[bytes, str]:
    """Return the PNG and its content in words."""
    # Imported here, as it loads torch: a wrong label or image is reported at once.
    from export.explain.explainer import Explainer
    from export.explain.overlay import render

    manifest = bundle.manifest
    explanation = Explainer(bundle).explain(picture[None], index)
    probabilities = softmax(explanation.logits, manifest.temperature)[0]
    best = [int(each) for each in np.argsort(-probabilities)[:top_k]]
    if index is not None and index not in best:
        best.append(index)
    predictions = [(manifest.labels[each], float(probabilities[each])) for each in best]
    shown = manifest.labels[best[0] if index is None else index]
    scope = "all classes alike" if explanation.method == "attention rollout" else shown
    title = f"{manifest.name}: {explanation.method} for {scope}"
    lines = [title, *(f"  {label} {probability:.1%}" for label, probability in predictions)]
    return render(picture, explanation.maps[0], predictions, title), "\n".join(lines)


if __name__ == "__main__":
    run(
        _main,
        ExplainConfig,
        prog="python -m export.explain",
        example="--model efficientnet_lite0 --image export/photos/cat.jpg --output cat.png",
    )

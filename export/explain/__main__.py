"""`python -m export.explain --model NAME --image X [--class LABEL] [--output X.png]`: heat map of a classification.

    python -m export.explain --model photos --image picture.jpg
    python -m export.explain --model photos_vit --image picture.jpg --layer 12            all heads of a layer
    python -m export.explain --model photos_vit --image picture.jpg --layer 12 --head 3

Writes a PNG with the image as the network sees it, the heat map over it and the best classes: Grad-CAM for
convolutional networks, Swin and PVT, attention rollout for ViT and DeiT. About 8 s, mostly for loading torch. As a
library: `export.explain.explainer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
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

    layer: int | None = None
    """ViT and DeiT: show the attention of one layer, from 1 at the input, in a sheet of its heads."""

    head: int | None = None
    """With --layer: show one head alone, from 1."""

    def __post_init__(self) -> None:
        for name, value in (("layer", self.layer), ("head", self.head)):
            if value is not None and value < 1:
                raise HalftoneError(f"--{name} must be at least 1, not {value}")
        if self.head is not None and self.layer is None:
            raise HalftoneError(f"--head {self.head} needs a layer: add --layer N")
        if self.layer is not None and self.class_ is not None:
            raise HalftoneError("attention is the same for every class: omit --class or --layer")
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
    if config.layer is None:
        data, summary = _explained(bundle, picture, index, config.top_k)
    else:
        data, summary = _attention(bundle, picture, config.layer, config.head, config.top_k)
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
    predictions = _predictions(manifest, explanation.logits, index, top_k)
    shown = predictions[0][0] if index is None else manifest.labels[index]
    scope = "all classes alike" if explanation.method == "attention rollout" else shown
    title = f"{manifest.name}: {explanation.method} for {scope}"
    return render(picture, explanation.maps[0], predictions, title), _summary(title, predictions)


def _attention(bundle: Bundle, picture: Pixels, layer: int, head: int | None, top_k: int) -> tuple[bytes, str]:
    """Return the PNG of one head or of all heads of a layer, and its content in words."""
    from export.explain.explainer import Explainer
    from export.explain.overlay import render, render_heads

    explanation = Explainer(bundle).attention(picture[None], layer)
    heads = len(explanation.maps)
    if head is not None and head > heads:
        raise HalftoneError(f"--head must lie between 1 and {heads} for this network, not {head}")
    predictions = _predictions(bundle.manifest, explanation.logits, None, top_k)
    which = f"{heads} heads" if head is None else f"head {head}"
    title = f"{bundle.manifest.name}: attention of layer {layer}, {which}"
    if head is None:
        return render_heads(picture, explanation.maps, title), _summary(title, predictions)
    return render(picture, explanation.maps[head - 1], predictions, title), _summary(title, predictions)


def _predictions(
    manifest: Manifest, logits: npt.NDArray[np.float32], index: int | None, top_k: int
) -> list[tuple[str, float]]:
    """Return label and probability of the best classes, and of class `index` if it is not among them."""
    probabilities = softmax(logits, manifest.temperature)[0]
    best = [int(each) for each in np.argsort(-probabilities)[:top_k]]
    if index is not None and index not in best:
        best.append(index)
    return [(manifest.labels[each], float(probabilities[each])) for each in best]


def _summary(title: str, predictions: list[tuple[str, float]]) -> str:
    return "\n".join([title, *(f"  {label} {probability:.1%}" for label, probability in predictions)])


if __name__ == "__main__":
    run(
        _main,
        ExplainConfig,
        prog="python -m export.explain",
        example="--model efficientnet_lite0 --image export/photos/cat.jpg --output cat.png",
    )

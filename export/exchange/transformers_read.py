"""`config.json` and `preprocessor_config.json` of Hugging Face transformers: network, input and labels.

The image processors of transformers resize in three ways: the whole image to a square, of which perhaps the centre is
cut out (ViT, Swin, DeiT); or the short side, of which the centre square is cut out (ConvNeXt and ResNet below 384 px).
Halftone always keeps the shape of what it shows the network. It therefore cuts the centre square out of images that
transformers would squash; for square images both do the same.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.common.errors import HalftoneError
from models.common.text import printable
from models.foreign.transformers_names import KINDS, timm_model
from models.spec import InputSpec, Interpolation

PROCESSOR = "preprocessor_config.json"

SQUASHED = "; its processor squashes images to squares, Halftone cuts the centre square out"

_FILTERS: Mapping[Any, Interpolation] = {2: "bilinear", 3: "bicubic"}
"""PIL's numbers of the filters."""

_CROP = 224 / 256
"""Share that ConvNeXt's processor keeps if it names none."""

_SHORT_BELOW = 384
"""ConvNeXt's processor crops smaller inputs and squashes others."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Checked description of a model of transformers."""

    kind: str
    """Its class."""

    timm_model: str
    """Model of timm that computes the same."""

    input: InputSpec
    labels: tuple[str, ...]

    remark: str
    """What its processor does otherwise than Halftone, for the source of the weights; may be empty."""


def of_transformers(config: dict[str, Any]) -> bool:
    """Return True if `config.json` is one of transformers."""
    return "model_type" in config and "pretrained_cfg" not in config


def read_model(folder: Path, config: dict[str, Any]) -> Model:
    """Read what transformers wrote.

    Args:
        folder: holds `preprocessor_config.json`.
        config: content of `config.json`.

    Raises:
        HalftoneError: the class is none of `KINDS`, timm has no such network, or its preprocessing has no equal.
    """
    names = config.get("architectures") or []
    kind = next((each for each in names if each in KINDS), None)
    if kind is None:
        what = printable(" or ".join(map(str, names)) or config["model_type"])
        raise HalftoneError(
            f"{folder} holds a {what} of transformers, and these are read: {', '.join(KINDS)}. For another, train "
            "`timm:NAME` or an architecture of the catalogue (`python -m models`)"
        )
    try:
        model = timm_model(kind, config)
        spec, squashed = _input(_processor(folder))
        if KINDS[kind].positions and (size := config.get("image_size", spec.size)) != spec.size:
            raise HalftoneError(
                f"its weights are for {printable(size)} pixels, and {PROCESSOR} makes {spec.size}: save the processor "
                "with the size of the model"
            )
    except HalftoneError as error:
        raise HalftoneError(f"--from {folder}: {error}") from None
    return Model(kind=kind, timm_model=model, input=spec, labels=_labels(config), remark=SQUASHED if squashed else "")


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the class names by output index; equal ones, as ImageNet's two cranes, get their index."""
    names = config.get("id2label")
    if not isinstance(names, dict):
        # transformers leaves its default out.
        names = {"0": "LABEL_0", "1": "LABEL_1"}
    if sorted(names) != sorted(map(str, range(len(names)))):
        raise HalftoneError(f"id2label of the configuration has gaps: name every output from 0 to {len(names) - 1}")
    listed = [str(names[str(index)]) for index in range(len(names))]
    count = Counter(listed)
    return tuple(f"{name} ({index})" if count[name] > 1 else name for index, name in enumerate(listed))


def _processor(folder: Path) -> dict[str, Any]:
    path = folder / PROCESSOR
    if not path.is_file():
        raise HalftoneError(
            f"no {PROCESSOR} in it, which says what the network sees: save it there with "
            "`AutoImageProcessor.from_pretrained(…).save_pretrained(…)`"
        )
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise HalftoneError(f"{PROCESSOR} is not JSON ({error}): save the processor again") from None
    if not isinstance(values, dict):
        raise HalftoneError(f"{PROCESSOR} is not an object: save the processor again")
    return values


def _input(values: dict[str, Any]) -> tuple[InputSpec, bool]:
    """Return the input, and True if the processor squashes images to squares."""
    if not (values.get("do_resize", True) and values.get("do_rescale", True)):
        raise HalftoneError(f"{PROCESSOR} neither resizes nor rescales: Halftone's networks see pixels from 0 to 1")
    if not math.isclose(values.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-3):
        raise HalftoneError(f"{PROCESSOR} has rescale_factor={values['rescale_factor']!r}: only 1/255 is read")
    interpolation = _FILTERS.get(values.get("resample", 2))
    if interpolation is None:
        raise HalftoneError(f"{PROCESSOR} has resample={values['resample']!r}: bilinear (2) and bicubic (3) are read")
    resized, size, squashed = _sizes(values)
    if size > resized:
        raise HalftoneError(f"{PROCESSOR} cuts {size} pixels out of {resized}: correct its size")
    normalised = values.get("do_normalize", True)
    spec = InputSpec.from_dict(
        {
            "size": size,
            "interpolation": interpolation,
            "crop_fraction": _fraction(size, resized),
            "mean": values.get("image_mean") if normalised else (0.0, 0.0, 0.0),
            "std": values.get("image_std") if normalised else (1.0, 1.0, 1.0),
        }
    )
    return spec, squashed


def _sizes(values: dict[str, Any]) -> tuple[int, int, bool]:
    """Return the side to which images are resized, the side that the network sees, and whether they are squashed."""
    size, crop_pct = values.get("size"), values.get("crop_pct")
    if "ConvNext" in str(values.get("image_processor_type") or values.get("feature_extractor_type")):
        crop_pct = crop_pct or _CROP
    if crop_pct is not None:
        side = _side(size.get("shortest_edge") if isinstance(size, dict) else size)
        return (int(side / crop_pct), side, False) if side < _SHORT_BELOW else (side, side, True)
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    short = edge is not None
    resized = _side(edge if short else size)
    if not values.get("do_center_crop"):
        if short:
            raise HalftoneError(f"{PROCESSOR} resizes the short side and cuts nothing out: the network sees no square")
        return resized, resized, True
    return resized, _side(values.get("crop_size")), not short


def _side(size: Any) -> int:
    """Return the side of a square, given once or as height and width."""
    sides = {size.get("height"), size.get("width")} if isinstance(size, dict) else {size}
    side = sides.pop()
    if sides or not isinstance(side, int) or side < 1:
        raise HalftoneError(f"{PROCESSOR} has the size {printable(size)}, and Halftone's networks see squares")
    return side


def _fraction(size: int, resized: int) -> float:
    """Return the crop fraction for which the short side becomes `resized`."""
    fraction = size / resized
    return fraction if math.floor(size / fraction) == resized else math.nextafter(fraction, 0)

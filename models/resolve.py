"""Resolve `--model NAME` for commands that may create a bundle: the bundle NAME, or a catalogue architecture."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.store import bundle_folder, bundle_name, check_name, has_bundle, open_bundle, suggestion
from models.catalog import architecture
from models.common.errors import HalftoneError
from models.common.files import check_writable, sha256_file
from models.common.text import printable
from models.dataset import check_folder, unseen_images
from models.spec import NAMED_WEIGHTS, NORMALISATIONS, TIMM, Architecture


@dataclass(frozen=True, kw_only=True)
class FileWeights:
    """What a checkpoint of `--weights FILE` doesn't say about itself."""

    name: str | None = None
    """Checkpoint: name of its bundle; default: that of the architecture, with timm-NAME for timm:NAME."""

    labels: Path | None = None
    """Checkpoint: file with one class name per line, in the order of the outputs; default for 1,000 outputs:
    ImageNet's."""

    size: int | None = None
    """Checkpoint: side of its input in pixels; default: the architecture's, or that of its position embeddings."""

    normalisation: Literal["auto", "imagenet", "half", "none"] = "auto"
    """Checkpoint: mean and standard deviation that it was trained with: ImageNet's, 0.5 of everything, or none.
    `auto`: the architecture's, or ImageNet's if the weights have torchvision's names."""

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        if self.size is not None and not 16 <= self.size <= 4096:
            raise HalftoneError(f"--size must be from 16 to 4096 pixels, not {self.size}")


def open_or_create(
    model: str, *, weights: str | None, data: Path | None = None, file: FileWeights = FileWeights()
) -> Bundle:
    """Open the bundle `artifacts/MODEL`, or create it from the catalogue architecture of that name.

    Args:
        model: name of a bundle, or of an architecture of the catalogue, or `timm:NAME`.
        weights: for a new bundle only: `pretrained` (also for None), `random`, or a file of `read_weights`.
        data: folder of labelled images that the caller will use: refused before minutes of work.
        file: about the weights of a file; its name replaces that of the bundle.

    Raises:
        HalftoneError: `model` is neither a bundle nor an architecture, the weights are not available, weights are
            given for a bundle that has others, or `data` can't be used for it.
    """
    if data is not None:
        check_folder(data)
    bundle = _open_or_create(model, weights, file)
    if data is not None:
        unseen_images(data, bundle)
    return bundle


def architecture_of(model: str) -> Architecture:
    """Return the architecture of a model that has no bundle.

    Raises:
        HalftoneError: there is no such architecture; the message names the bundle that may be meant.
    """
    try:
        return architecture(model)
    except HalftoneError:
        hint = "" if model.startswith(TIMM) else suggestion(model)
        if not hint:
            raise
    raise HalftoneError(f"there is no architecture {model!r}, and no bundle of that name: {hint}")


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names of a file with one per line; empty lines are skipped.

    Raises:
        HalftoneError: there is no such file, or it is not text.
    """
    if not path.is_file():
        raise HalftoneError(f"--labels {path}: no such file; it must have one class name per line, by output index")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise HalftoneError(f"--labels {path} is not text in UTF-8: write one class name per line") from None
    return tuple(line.strip() for line in lines if line.strip())


def _open_or_create(model: str, weights: str | None, file: FileWeights) -> Bundle:
    name = file.name or bundle_name(model)
    if file != FileWeights() and weights in (None, *NAMED_WEIGHTS):
        raise HalftoneError(
            "--name, --labels, --size and --normalisation describe a checkpoint: name it with --weights FILE"
        )
    if not has_bundle(name):
        return _create(model, name, weights or "pretrained", file)
    bundle = open_bundle(name)
    # The same command again, after a kill for example, continues.
    if weights is not None and not _made_with(bundle, weights, file):
        raise HalftoneError(
            f"{bundle.folder} already has weights ({bundle.manifest.source}): omit --weights, or remove the folder to "
            "create the bundle again"
        )
    return bundle


def _create(model: str, name: str, weights: str, file: FileWeights) -> Bundle:
    network, labels = architecture_of(model), read_labels(file.labels) if file.labels else ()
    check_writable(bundle_folder(name), "the bundle")
    # Imported here, as PyTorch takes seconds: neither an existing bundle nor an unknown name needs it.
    from models.weights import create, create_from_file

    if weights in NAMED_WEIGHTS:
        return create(network, weights, name=name)
    return create_from_file(
        network,
        Path(weights),
        name=name,
        labels=labels,
        size=file.size,
        normalisation=NORMALISATIONS.get(file.normalisation),
        command=f"`{_command(network.name, weights, file)}`",
    )


def _command(model: str, weights: str, file: FileWeights) -> str:
    given = {"--labels": file.labels, "--name": file.name, "--size": file.size}
    if file.normalisation != "auto":
        given["--normalisation"] = file.normalisation
    flags = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    return printable(shlex.join(["python", "-m", "export", "--model", model, "--weights", weights, *flags]))


def _made_with(bundle: Bundle, weights: str, file: FileWeights) -> bool:
    """Return True if the bundle is what these settings make."""
    record = bundle.manifest.files.get(WEIGHTS)
    if record is None:
        return False
    if weights in NAMED_WEIGHTS:
        return record.made_by.endswith(f" --weights {weights}`")
    architecture_, path = bundle.manifest.architecture, Path(weights)
    same = record.made_by == f"`{_command(architecture_, weights, file)}`" and path.is_file()
    return same and bundle.manifest.source.endswith(sha256_file(path)[:12])

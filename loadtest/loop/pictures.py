"""Pictures of the run: a data set without the dark pictures of one class, what clients send, and what is held out.

Every picture of the source is in one of these three, so that no answer is asked about a picture that was trained on.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from loadtest.reporting.cli import CompareError

DARKEST, LIGHTEST = 0.15, 0.35
"""Range of the factor on the pixels of a dark picture."""

KIND_SHARE, DARK_SHARE = 0.2, 0.4
"""Share of the requests with a dark picture of the class, and share of dark pictures among the others."""

TRAINED, CHOSEN_BY = 0.5, 0.4
"""Share of the source's training part that is trained on, and of its validation part that training validates with."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Picture(NamedTuple):
    """A file to send, with the truth about it."""

    data: bytes
    label: str
    dark: bool


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a run has beside the data set."""

    sent: list[Picture]
    """In the order of the requests."""

    kind: list[Picture]
    """Held-out dark pictures of the class."""

    others: list[Picture]
    """Held-out pictures of all other kinds."""


def prepare(source: Path, target: Path, name: str, *, requests: int, seed: int) -> Pictures:
    """Write the data set into `target`, and return the other pictures.

    Args:
        source: folder with `train/CLASS` and `val/CLASS`.
        target: receives the same parts, without dark pictures of the class.
        name: the class.
        requests: number of pictures to send.
        seed: of the choice and the darkness.

    Raises:
        CompareError: the source has no such parts or class, or too few pictures.
    """
    generator = random.Random(seed)
    train, val = (_by_class(source, part, generator) for part in ("train", "val"))
    if name not in train or set(train) != set(val):
        raise CompareError(
            f"--data {source} must hold train/CLASS and val/CLASS with the same classes, {name!r} among them"
        )
    for part, files, share in (("train", train, TRAINED), ("val", val, CHOSEN_BY)):
        for label, paths in files.items():
            _write(target / part / label, paths[: _cut(paths, share)], generator, dark=label != name)
    stream = {label: paths[_cut(paths, TRAINED) :] for label, paths in train.items()}
    held_out = {label: paths[_cut(paths, CHOSEN_BY) :] for label, paths in val.items()}
    both = [
        _picture(path, label, generator, dark=dark)
        for label, paths in held_out.items()
        for path in paths
        for dark in (False, True)
    ]
    return Pictures(
        sent=[_drawn(stream, name, generator) for _ in range(requests)],
        kind=[each for each in both if each.dark and each.label == name],
        others=[each for each in both if not (each.dark and each.label == name)],
    )


def thumbnail(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Return a picture as int16 (32 * 32 * 3,), to compare it with others."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((32, 32))).astype(np.int16).ravel()


def _by_class(source: Path, part: str, generator: random.Random) -> dict[str, list[Path]]:
    folders = sorted(path for path in (source / part).glob("*") if path.is_dir())
    found = {folder.name: sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES) for folder in folders}
    for label, paths in found.items():
        if len(paths) < 4:
            raise CompareError(f"--data {source}: {part}/{label} has {len(paths)} pictures, and it takes 4 or more")
        generator.shuffle(paths)
    return found


def _cut(paths: Sequence[Path], share: float) -> int:
    return max(1, round(share * len(paths)))


def _write(folder: Path, paths: Sequence[Path], generator: random.Random, *, dark: bool) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        for each in (False, True) if dark else (False,):
            picture = _picture(path, folder.name, generator, dark=each)
            (folder / f"{path.stem}{'-dark' if each else ''}.png").write_bytes(picture.data)


def _drawn(stream: dict[str, list[Path]], name: str, generator: random.Random) -> Picture:
    if generator.random() < KIND_SHARE:
        return _picture(generator.choice(stream[name]), name, generator, dark=True)
    label = generator.choice(sorted(stream))
    dark = label != name and generator.random() < DARK_SHARE
    return _picture(generator.choice(stream[label]), label, generator, dark=dark)


def _picture(path: Path, label: str, generator: random.Random, *, dark: bool) -> Picture:
    factor = generator.uniform(DARKEST, LIGHTEST) if dark else 1.0
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    file = io.BytesIO()
    Image.fromarray(np.rint(pixels * factor).astype(np.uint8)).save(file, "PNG")
    return Picture(file.getvalue(), label, dark)

"""`python -m export.preprocess_benchmark`: CPU time from bytes to pixels on one core, step by step.

Every step runs on the same images, one after the other, round after round, so that other load on the machine affects
all steps. The figure is the smallest CPU time of each image, averaged over the images. Default: the sample photographs
as 500 x 375 JPEGs of quality 90, for 10 s. `load` and `load, Pillow alone` are the whole, the other steps are parts;
`ratio` is to Pillow alone in the same run.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin, features

from export.parity.images import PHOTOS
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.host import host
from models.preprocess.decode import decode
from models.preprocess.formats import image_format
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit, load
from models.spec import InputSpec

PLAIN = "load, Pillow alone"
PACKAGES = ("pillow", "simplejpeg", "cykooz-resizer", "numpy")

Step = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class PreprocessBenchmark:
    """Measure decoding and fitting on one core."""

    data: Path | None = None
    """Folder of JPEG files to measure as they are; default: the sample photographs, made 500 x 375."""

    size: int = 224
    """Side of the model's input in pixels."""

    seconds: float = 10.0
    """Duration of the measurement."""

    output: Path | None = None
    """JSON file for the figures, in addition to the table that is printed."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise HalftoneError(f"--size must be from 1 to 4096 pixels, not {self.size}")
        if self.seconds <= 0:
            raise HalftoneError(f"--seconds must be positive, not {self.seconds}")


def main(config: PreprocessBenchmark) -> int:
    """Measure and print the figures; return the exit code."""
    pictures = samples() if config.data is None else [path.read_bytes() for path in sorted(config.data.glob("*.jp*g"))]
    if not pictures:
        raise HalftoneError(f"--data {config.data} must hold .jpg files")
    report = measure(pictures, InputSpec(size=config.size), config.seconds)
    for name, value in report.items():
        if name != "steps":
            print(f"{name:<12}{value}")
    print(f"\n{'step':<24}{'ms':>8}{'ratio':>8}")
    for name, figures in dict(report["steps"]).items():  # type: ignore[call-overload]
        print(f"{name:<24}{figures['ms']:>8.3f}{figures['ratio']:>8.2f}")
    if config.output is not None:
        config.output.write_text(json.dumps(report, indent=1) + "\n")
    return DONE


def measure(pictures: Sequence[bytes], spec: InputSpec, seconds: float) -> dict[str, object]:
    """Return host, versions, and for each step the milliseconds of CPU time and the ratio to Pillow alone.

    Args:
        pictures: JPEG files.
        spec: the model's input.
        seconds: duration; every step runs at least once on every image.
    """
    best = _fastest(_steps(pictures, spec), len(pictures), seconds)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "versions": versions(),
        "pictures": f"{len(pictures)}, {sum(map(len, pictures)) / len(pictures) / 1000:.0f} kB on average",
        "steps": {name: {"ms": best[name] * 1e3, "ratio": best[name] / best[PLAIN]} for name in best},
    }


def _steps(pictures: Sequence[bytes], spec: InputSpec) -> dict[str, Step]:
    decoded: list[Pixels] = [decode(data) for data in pictures]
    images = [Image.fromarray(pixels) for pixels in decoded]
    return {
        "load": lambda i: load(pictures[i], spec),
        PLAIN: lambda i: load(pictures[i], spec, plain=True),
        "sniff": lambda i: image_format(pictures[i]),
        "open (header)": lambda i: JpegImagePlugin.JpegImageFile(io.BytesIO(pictures[i])),
        "decode": lambda i: decode(pictures[i]),
        "decode, Pillow alone": lambda i: decode(pictures[i], plain=True),
        "convert (Pillow, a copy)": lambda i: images[i].convert("RGB"),
        "EXIF": lambda i: images[i].getexif().get(0x0112, 1),
        "fit": lambda i: fit(decoded[i], spec),
        "fit, Pillow alone": lambda i: fit(decoded[i], spec, plain=True),
    }


def _fastest(steps: Mapping[str, Step], pictures: int, seconds: float) -> dict[str, float]:
    """Return for each step the smallest CPU time of this thread for each image, averaged, in seconds."""
    best = {name: np.full(pictures, np.inf) for name in steps}
    end = time.monotonic() + seconds
    while True:
        for name, step in steps.items():
            for index in range(pictures):
                start = time.thread_time()
                step(index)
                best[name][index] = min(best[name][index], time.thread_time() - start)
        if time.monotonic() >= end:
            return {name: float(times.mean()) for name, times in best.items()}


def samples() -> list[bytes]:
    """Return the sample photographs as JPEG files of 500 x 375 pixels, quality 90."""
    pictures = []
    for photo in sorted(PHOTOS.glob("*.jpg")):
        file = io.BytesIO()
        Image.open(photo).convert("RGB").resize((500, 375), Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
    return pictures


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decode and resize; some are optional."""
    found = {"libjpeg-turbo of Pillow": str(features.version("libjpeg_turbo"))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


if __name__ == "__main__":
    run(
        main,
        PreprocessBenchmark,
        prog="python -m export.preprocess_benchmark",
        example="--seconds 10 --output preprocess.json",
    )

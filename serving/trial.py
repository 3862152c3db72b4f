"""A first answer, made before anybody is given one: what a client would only find out is found out while loading."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np

from export.cuda.device import GpuError
from export.runtimes.base import Runtime
from models.errors import HalftoneError
from models.manifest import Manifest
from models.preprocess import MAX_PIXELS, load
from serving.predictions import best


def answer_a_picture(runtime: Runtime, manifest: Manifest) -> None:
    """Decode, run, name every class, and write it down as an answer would.

    Args:
        runtime: the loaded variant.
        manifest: of its bundle.

    Raises:
        HalftoneError: one of these steps fails, or a probability is not a number.
        GpuError: the GPU failed.
    """
    photo = (files("export") / "photos" / "cat.jpg").read_bytes()
    try:
        (logits,) = runtime.run(load(photo, manifest.input, max_pixels=MAX_PIXELS)[np.newaxis])
        with np.errstate(all="ignore"):
            predictions = best(manifest, len(manifest.labels))(logits)
        told = [predictions, manifest.name, manifest.architecture, manifest.source, manifest.license]
        json.dumps(told, ensure_ascii=False, allow_nan=False).encode()
    except (MemoryError, GpuError):
        raise
    # Whatever it raises, it would raise on a client's picture.
    except Exception as error:
        raise HalftoneError(
            f"{manifest.name} can't answer a picture ({type(error).__name__}: {error}): export it again"
        ) from error

"""Preprocessing, model and response that all peers share, so that only the servers differ.

The preprocessing is the repository's; the model is the FP32 graph in ONNX Runtime, or an engine of `export.runtimes`.
Environment variables: HALFTONE_ARTIFACTS and HALFTONE_MODEL name the bundle, PEER_VARIANT an engine of the bundle
instead of plain ONNX Runtime, PEER_THREADS the number of pictures processed at once, PEER_DECODER the library that
decodes the whole picture (opencv, pillow) instead of the repository's decoder, which decodes large ones smaller.
"""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle.bundle import Bundle
from models.bundle.store import DEFAULT_MODEL, open_bundle
from models.preprocess.transform import fit, load

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

TOP_K = 5


def threads() -> int:
    """Return the number of pictures processed at once: threads, worker processes or replicas."""
    return int(os.environ.get("PEER_THREADS", "1"))


def free_port() -> int:
    """Return a port of 127.0.0.1 that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Model:
    """The bundle's classifier; several threads may call it at once.

    Args:
        streams: expected number of calls at once.
        cores: number of cores for one call of ONNX Runtime.
    """

    def __init__(self, streams: int = 1, cores: int = 1) -> None:
        self.bundle = open_bundle(os.environ.get("HALFTONE_MODEL") or DEFAULT_MODEL)
        self._labels = self.bundle.manifest.labels
        variant = os.environ.get("PEER_VARIANT")
        self._decode = _DECODERS.get(os.environ.get("PEER_DECODER", ""))
        #: uint8 pixels (N, S, S, 3) to float32 logits (N, classes)
        self.run: Callable[[Pixels], Logits] = (
            _engine(self.bundle, variant, streams) if variant else _onnxruntime(self.bundle, cores)
        )

    def pixels(self, picture: bytes) -> Pixels:
        """Return a JPEG, PNG or WebP file as uint8 (S, S, 3)."""
        spec = self.bundle.manifest.input
        return fit(self._decode(picture), spec) if self._decode else load(picture, spec)

    def classify(self, picture: bytes) -> dict[str, Any]:
        """Return the response to one picture."""
        return self.answer(self.run(self.pixels(picture)[np.newaxis])[0])

    def classify_batch(self, pictures: list[bytes]) -> list[dict[str, Any]]:
        """Return the responses to several pictures, which run as one batch."""
        return [self.answer(row) for row in self.run(np.stack([self.pixels(picture) for picture in pictures]))]

    def answer(self, logits: Logits) -> dict[str, Any]:
        """Return the most probable classes, best first, from one row of logits."""
        exponents = np.exp(logits - logits.max())
        probabilities = exponents / exponents.sum()
        best = np.argsort(-probabilities, kind="stable")[:TOP_K]
        return {
            "predictions": [
                {"label": self._labels[i], "index": int(i), "probability": float(probabilities[i])} for i in best
            ]
        }


def _opencv(picture: bytes) -> Pixels:
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def _pillow(picture: bytes) -> Pixels:
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(picture))).convert("RGB"))


_DECODERS: dict[str, Callable[[bytes], Pixels]] = {"opencv": _opencv, "pillow": _pillow}


def _onnxruntime(bundle: Bundle, cores: int) -> Callable[[Pixels], Logits]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = cores, 1
    session = onnxruntime.InferenceSession(bundle.read("model.fp32.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(["logits"], {"pixels": pixels})[0])


def _engine(bundle: Bundle, variant: str, streams: int) -> Callable[[Pixels], Logits]:
    from export.variants import load as load_engine

    return load_engine(bundle, variant, threads=streams, streams=streams).run

"""TensorRT for RTX on an NVIDIA RTX GPU: plans that were built ahead of time on any machine."""

from __future__ import annotations

from typing import ClassVar

from export.tensorrt.engine import TensorRt


class TensorRtRtx(TensorRt):
    """The edition `tensorrt_rtx`; a plan's kernels are compiled for the GPU when it is loaded."""

    name: ClassVar[str] = "tensorrt_rtx"


RUNTIME = TensorRtRtx

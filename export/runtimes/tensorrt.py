"""TensorRT on an NVIDIA data-centre GPU; it runs plans that were built on the same kind of GPU."""

from __future__ import annotations

from typing import ClassVar

from export.trt.engine import TensorRt


class TensorRtDataCentre(TensorRt):
    """Plans of the edition `tensorrt`, version 11 or newer."""

    name: ClassVar[str] = "tensorrt"


RUNTIME = TensorRtDataCentre

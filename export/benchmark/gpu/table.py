"""Lines of the table of engines on a GPU; needs no PyTorch."""

from __future__ import annotations

from typing import Any

from export.benchmark.tables import Cells

CUDA_HEADINGS: Cells = (
    "model", "engine", "batch", "images/s", "ms p50", "ms p99", "MB on GPU", "TFLOP/s", "of product", "GB/s up",
    "of upload", "same top-1", "verdict",
)  # fmt: skip


def cuda_cells(row: dict[str, Any]) -> list[Cells]:
    """Return an engine's lines under `CUDA_HEADINGS`, one per batch size."""
    name = row["model"] if row["trained"] else f"{row['model']} (random weights)"
    if "reason" in row:
        return [(name, row["engine"], *[""] * (len(CUDA_HEADINGS) - 3), row["reason"])]
    return [_line(name, row, each) for each in row["batches"]]


def _line(name: str, row: dict[str, Any], each: dict[str, Any]) -> Cells:
    """Return the line of one batch size."""
    if "reason" in each:
        return (name, row["engine"], str(each["batch"]), *[""] * (len(CUDA_HEADINGS) - 4), each["reason"])
    return (
        name,
        row["engine"],
        str(each["batch"]),
        f"{each['images_per_second']:.0f}",
        f"{each['p50_ms']:.2f}",
        f"{each['p99_ms']:.2f}",
        f"{row['megabytes']:.0f}",
        f"{each['tflops']:.1f}",
        f"{each['share_of_product']:.1%}",
        f"{each['upload']:.2f}",
        f"{each['share_of_upload']:.1%}",
        f"{row['agreement']:.2%}",
        row["verdict"],
    )


def ceilings_line(about: dict[str, Any]) -> str:
    """Return the description of the GPU and its limits, for below the table."""
    ceilings = about["ceilings"]
    on_gpu = ceilings["decoded_on_gpu"]
    nvjpeg = f", {on_gpu:.0f} by nvJPEG" if on_gpu else ""
    return (
        f"{about['gpu']}, PyTorch {about['torch']}: matrix product {ceilings['tflops']:.1f} TFLOP/s, copy on the GPU "
        f"{ceilings['copy']:.0f} GB/s, upload {ceilings['upload']:.1f} GB/s, photographs decoded and resized a second: "
        f"{ceilings['decoded_on_cpu']:.0f} on all cores{nvjpeg}"
    )

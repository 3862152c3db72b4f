"""Model repository of OpenVINO Model Server: the graph that OpenVINO was proven with, and its arithmetic.

config.json  labels.txt  NAME/1/model.onnx
README.md  classify.py  client.json
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from export.exchange.guide import LABELS, write_guide
from export.exchange.proven import fastest_proven
from export.exchange.staging import new_folder
from models.bundle.bundle import Bundle
from models.common.files import write_atomic

RUNTIME = "openvino"

_START = """```sh
docker run --rm -p 8000:8000 --volume "$PWD":/models:ro openvino/model_server:latest \\
  --config_path /models/config.json --rest_port 8000
```

`base_path` in `config.json` is relative to that file, which needs version 2025 or newer. `INFERENCE_PRECISION_HINT`
fixes the arithmetic that was proven: without it a processor with AMX or AVX-512 BF16 computes an FP32 graph in
bfloat16. The server joins no requests to batches, but one request may hold several pictures.
"""


def push_ovms(bundle: Bundle, folder: Path) -> list[str]:
    """Write a model repository of the fastest proven variant of OpenVINO into a new folder, or nothing.

    Args:
        bundle: the opened bundle.
        folder: must be missing or empty.

    Returns:
        The variant.

    Raises:
        UnprovenError: no variant of OpenVINO is proven.
        HalftoneError: the folder is not empty, or as `fastest_proven`.
    """
    manifest, graph = replace(bundle.manifest, name=bundle.name), fastest_proven(bundle, RUNTIME)
    with new_folder(folder) as stage:
        write_atomic(stage / manifest.name / "1" / "model.onnx", graph.data)
        write_atomic(stage / "config.json", _config(manifest.name, graph.precision))
        write_guide(
            stage, manifest, server="OpenVINO Model Server", labels=LABELS, proofs=[graph.summary], start=_START
        )
    return [graph.record.variant]


def _config(name: str, precision: str) -> bytes:
    plugin = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    model = {"name": name, "base_path": name, "target_device": "CPU", "plugin_config": plugin}
    return (json.dumps({"model_config_list": [{"config": model}]}, indent=1) + "\n").encode()

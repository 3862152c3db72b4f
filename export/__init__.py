"""Export of checkpoints, and the runtimes that serving runs them with."""

import os
import sys

# Before any of them is imported: ONNX Runtime, OpenVINO and NNCF report their use over the network, and write to HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

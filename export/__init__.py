"""Export of checkpoints, and the runtimes that serving runs them with."""

import sys

# Before any import of OpenVINO or NNCF: without this module they neither report their use over the network nor write to
# the user's folder.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

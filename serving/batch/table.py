"""The columns of the output."""

from __future__ import annotations

import pyarrow as pa

KEY = b"halftone"
"""Key of the file's metadata whose value is the job, as JSON."""

SCHEMA = pa.schema(
    [
        # Relative to the input, with "/" between.
        pa.field("path", pa.string(), nullable=False),
        # The most probable classes, best first; null where there is an error.
        pa.field("labels", pa.list_(pa.string())),
        pa.field("indices", pa.list_(pa.int32())),
        pa.field("probabilities", pa.list_(pa.float32())),
        # A code as the service answers it, and what happened; null where all is well.
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
    ]
)

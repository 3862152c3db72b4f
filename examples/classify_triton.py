"""Classify a picture by the Open Inference Protocol: `python classify_triton.py PICTURE [HOST:PORT]`.

Needs NVIDIA's client, which works with Triton and KServe as well: `pip install 'tritonclient[http]'`.
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

picture, server = sys.argv[1], (sys.argv[2:] or ["127.0.0.1:3000"])[0]
client = triton.InferenceServerClient(server)
model = client.get_model_repository_index()[0]["name"]
image = triton.InferInput("image", [1], "BYTES")
image.set_data_from_numpy(np.array([Path(picture).read_bytes()], dtype=np.object_))
best = triton.InferRequestedOutput("probabilities", class_count=3)
for each in client.infer(model, [image], outputs=[best]).as_numpy("probabilities")[0]:
    probability, _, label = each.decode().split(":", 2)
    print(f"{float(probability):.3f} {label}")

"""Classify a picture by a server that runs the graph alone: `python classify.py PICTURE [HOST:PORT]`.

Decodes, turns, resizes and crops as the service does, and asks by the Open Inference Protocol over HTTP.
Needs Halftone (`pip install .` in its checkout) and `pip install 'tritonclient[http]'`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

from models.common.statistics import softmax
from models.preprocess.transform import load
from models.spec import InputSpec

TOP = 3


def main(picture: Path, server: str) -> None:
    """Print the three most probable classes."""
    folder = Path(__file__).parent
    model = json.loads((folder / "client.json").read_text())
    labels = (folder / model["labels"]).read_text(encoding="utf-8").splitlines()
    pixels = load(picture.read_bytes(), InputSpec.from_dict(model["input"]))[np.newaxis]
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8").set_data_from_numpy(pixels)
    with triton.InferenceServerClient(server) as client:
        answer = client.infer(model["model"], [tensor], outputs=[triton.InferRequestedOutput("logits")])
    probabilities = softmax(answer.as_numpy("logits"), model["temperature"])[0]
    for index in np.argsort(-probabilities)[:TOP]:
        print(f"{probabilities[index]:.3f} {labels[index]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), (sys.argv[2:] or ["127.0.0.1:8000"])[0])

"""`python -m loadtest.ask --image X`: start the service, classify one image, print the predictions, stop the service.

Checks without a second terminal that a bundle serves: `HALFTONE_MODEL=photos python -m loadtest.ask --image a.jpg`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from loadtest.servers.halftone import RefusedError, started


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Start `bentoml serve` on a free port, classify one picture, and stop the server."""

    image: Path
    """Picture to classify."""


def main(config: Ask) -> None:
    """Classify the image and print the predictions."""
    if not config.image.is_file():
        print(f"error: --image {config.image}: no such file", file=sys.stderr)
        sys.exit(2)
    with started() as server:
        try:
            answer = server.first_answer(config.image.read_bytes())
        except RefusedError as error:
            print(f"error: --image {config.image}: {error}", file=sys.stderr)
            sys.exit(2)
    print(f"{config.image}: {answer['model']} {answer['version']} ({answer['variant']})")
    for prediction in answer["predictions"]:
        print(f"  {prediction['probability']:6.1%}  {prediction['label']}")


if __name__ == "__main__":
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    main(tyro.cli(Ask, prog="python -m loadtest.ask"))

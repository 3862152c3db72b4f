"""`python -m loadtest.ask --image X`: start the service, classify one image, print the predictions, stop the service.

Checks without a second terminal that a bundle serves: `HALFTONE_MODEL=photos python -m loadtest.ask --image a.jpg`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from loadtest.reporting.cli import CompareError, JsonOutput, check_picture, line, publish, run
from loadtest.servers.halftone import RefusedError, started


@dataclass(frozen=True, kw_only=True)
class Ask(JsonOutput):
    """Start `bentoml serve` on a free port, classify one picture, and stop the server."""

    image: Path
    """Picture to classify."""

    def __post_init__(self) -> None:
        check_picture(self.image, "--image")


def main(config: Ask) -> int:
    """Classify the image, print the predictions, and return the exit code."""
    # This service is for this one request, and a key would have to be sent.
    with started(HALFTONE_API_KEYS="") as server:
        try:
            answer = server.first_answer(config.image.read_bytes())
        except RefusedError as error:
            raise CompareError(f"--image {config.image}: {error}") from None
    publish(answer)
    print(f"{line(config.image)}: {answer['model']} {answer['version']} ({answer['variant']})")
    for prediction in answer["predictions"]:
        print(f"  {prediction['probability']:6.1%}  {line(prediction['label'])}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    run(main, Ask, prog="python -m loadtest.ask", example="--image export/photos/cat.jpg")

"""`python -m serving.profile --model NAME`: latency profile of a request, stage by stage.

Loads the model as the service does, sends one image repeatedly through the real ASGI application (in this process, then
over a socket), and prints the median of every stage. Takes some seconds. The instruments are in `serving.profile` only:
the service itself has none of them.

    HTTP: socket, client   the client's time less everything below: kernel, event loop, the client itself
    HTTP: parse            httptools on the whole request, timed alone
    body                   until the application has all of the body
    queue                  waiting for a thread
    decode, fit            file to RGB pixels, resize and crop; timed together, split by the ratio of their times alone
    infer                  the model
    hand-over              the rest: between event loop and threads, checks, routing
    encode                 predictions to JSON, timed alone
    send                   the response to the server
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from models.bundle.store import DEFAULT_MODEL
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.common.host import host
from serving.api.app import Api
from serving.api.gateway import Gateway
from serving.lifecycle.loading import load_model
from serving.profile.driver import in_process, over_socket
from serving.profile.isolated import time_stages
from serving.profile.report import show, split, summary
from serving.profile.stages import Clock, Probe, Stages, TimedRecorder
from serving.settings import Settings

WARM_UP = 10


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Time the stages of a request on this machine; the other HALFTONE_* variables apply as for the service."""

    model: str = DEFAULT_MODEL
    """Name of the bundle to serve."""

    image: Path | None = None
    """Picture to send; default: the sample photograph of a cat."""

    requests: int = 200
    """Requests to time in process, and as many over the socket."""

    output: Path | None = None
    """JSON file to write the figures to."""

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise HalftoneError(f"--requests must be at least 1, not {self.requests}")
        if self.image is not None and not self.image.is_file():
            raise HalftoneError(f"--image {self.image}: no such file")


def profile(config: ProfileConfig) -> int:
    """Measure, print and write the results; return the exit code."""
    name, image = _read_image(config.image)
    settings = replace(Settings.from_environment(), model=config.model)
    clock = Clock()
    api = Api(settings)
    model = load_model(config.model, settings, TimedRecorder(clock), api.decoders)
    api.models.publish(model)
    app = Probe(Gateway(api, api), clock)
    count = WARM_UP + config.requests
    try:
        answer = in_process(app, image, count)
        inside = _take(clock, config.requests)
        client = over_socket(app, image, count)[WARM_UP:]
        outside = _take(clock, config.requests)
    finally:
        api.close()
    isolated = time_stages(image, model.manifest.input, answer, config.requests)
    report = {
        "model": model.name,
        "version": model.version,
        "variant": model.variant,
        "picture": {"name": name, "bytes": len(image)},
        "requests": config.requests,
        "in_process": summary([split(sample, isolated, None) for sample in inside]),
        "over_socket": summary([split(sample, isolated, each) for sample, each in zip(outside, client, strict=True)]),
        **_conditions(),
    }
    show(report)
    if config.output is not None:
        write_atomic(config.output, (json.dumps(report, indent=1) + "\n").encode())
    return DONE


def _read_image(image: Path | None) -> tuple[str, bytes]:
    if image is not None:
        return image.name, image.read_bytes()
    return "cat.jpg", (files("export") / "photos" / "cat.jpg").read_bytes()


def _take(clock: Clock, requests: int) -> list[Stages]:
    """Return the stages of the requests since the last call, without those of the warm-up."""
    stages, clock.finished = clock.finished[-requests:], []
    return stages


def _conditions() -> dict[str, Any]:
    libraries = ("bentoml", "httptools", "numpy", "openvino", "pillow", "uvicorn", "uvloop")
    return {
        "host": host(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in libraries},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    run(profile, ProfileConfig, prog="python -m serving.profile", example="--model photos --requests 500")

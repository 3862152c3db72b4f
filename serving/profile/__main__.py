"""`python -m serving.profile --model NAME`: where the time of a request goes, stage by stage.

Loads the model as the service does, sends one picture again and again through the real ASGI application (in this
process, then over a socket), and prints the median of every stage. Takes some seconds. What it adds to measure is in
`serving.profile` alone: the service itself carries none of it.

    HTTP: socket, client   the client's time less everything below: kernel, event loop, the client itself
    HTTP: parse            httptools on the whole request, timed alone
    body                   until the application has all of the body
    queue                  waiting for a thread
    decode, fit            file to RGB pixels, resize and crop; timed together, split as they share their time alone
    infer                  the model
    hand-over              between event loop and threads, checks, routing: what no other stage explains
    encode                 predictions to JSON, timed alone
    send                   the answer to the server
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
from serving.profile.isolated import times
from serving.profile.report import show, split, summary
from serving.profile.stages import Clock, Probe, Stages, TimedRecorder
from serving.settings import Settings

WARM_UP = 10


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Time the stages of a request on this machine; the other HALFTONE_* variables count as for the service."""

    model: str = DEFAULT_MODEL
    """Bundle to serve."""

    image: Path | None = None
    """Picture to send; default: the sample photograph of a cat."""

    requests: int = 200
    """Requests to time, in process and over the socket each."""

    output: Path | None = None
    """JSON file to write the figures to."""

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise HalftoneError(f"--requests must be at least 1, not {self.requests}")
        if self.image is not None and not self.image.is_file():
            raise HalftoneError(f"--image {self.image}: no such file")


def profile(config: ProfileConfig) -> int:
    """Measure, print and write; returns the exit code."""
    name, picture = _picture(config.image)
    settings = replace(Settings.from_environment(), model=config.model)
    clock = Clock()
    api = Api(settings)
    served = load_model(config.model, settings, TimedRecorder(clock), api.decoders)
    api.models.publish(served)
    app = Probe(Gateway(api, api), clock)
    count = WARM_UP + config.requests
    try:
        answer = in_process(app, picture, count)
        inside = _taken(clock, config.requests)
        client = over_socket(app, picture, count)[WARM_UP:]
        outside = _taken(clock, config.requests)
    finally:
        api.close()
    alone = times(picture, served.manifest.input, answer, config.requests)
    report = {
        "model": served.name,
        "version": served.version,
        "variant": served.variant,
        "picture": {"name": name, "bytes": len(picture)},
        "requests": config.requests,
        "in_process": summary([split(sample, alone, None) for sample in inside]),
        "over_socket": summary([split(sample, alone, each) for sample, each in zip(outside, client, strict=True)]),
        **_conditions(),
    }
    show(report)
    if config.output is not None:
        write_atomic(config.output, (json.dumps(report, indent=1) + "\n").encode())
    return DONE


def _picture(image: Path | None) -> tuple[str, bytes]:
    if image is not None:
        return image.name, image.read_bytes()
    return "cat.jpg", (files("export") / "photos" / "cat.jpg").read_bytes()


def _taken(clock: Clock, requests: int) -> list[Stages]:
    """The stages of the requests since the last call, without those of the warm-up."""
    taken, clock.finished = clock.finished[-requests:], []
    return taken


def _conditions() -> dict[str, Any]:
    libraries = ("bentoml", "httptools", "numpy", "openvino", "pillow", "uvicorn", "uvloop")
    return {
        "host": host(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in libraries},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    run(profile, ProfileConfig, prog="python -m serving.profile")

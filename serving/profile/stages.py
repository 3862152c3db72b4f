"""Instruments of the profile: a recorder that times the model's threads, and a middleware that times a request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serving.telemetry.recorder import ModelRecorder, Recorder

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

Stages = dict[str, float]


@dataclass
class Clock:
    """Timings of the current request and of the earlier ones; one request at a time."""

    now: Stages = field(default_factory=dict)
    """Stage to seconds of the current request."""

    finished: list[Stages] = field(default_factory=list)
    """Stage to seconds of every earlier request, oldest first."""


class TimedRecorder(Recorder):
    """Recorder that also times the model's threads.

    Args:
        clock: receives the stages `queue`, `pixels` (decode and fit together) and `infer`.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def model(self, name: str, version: str, variant: str) -> ModelRecorder:
        """Return the recorder of a model, with timings."""
        super().model(name, version, variant)
        return _TimedModel(self, name, variant, self._clock)


class _TimedModel(ModelRecorder):
    def __init__(self, recorder: Recorder, model: str, variant: str, clock: Clock) -> None:
        super().__init__(recorder, model, variant)
        self._clock = clock

    def waited(self, seconds: float, trace: Any, total: float | None) -> None:
        super().waited(seconds, trace, total)
        if total is not None:
            self._clock.now["queue"] = total

    def prepared(self, seconds: float, trace: Any) -> None:
        super().prepared(seconds, trace)
        self._clock.now["pixels"] = seconds

    def ran(self, seconds: float, traces: Sequence[Any]) -> None:
        super().ran(seconds, traces)
        self._clock.now["infer"] = seconds


class Probe:
    """ASGI middleware that times one request after the other.

    Args:
        app: the application to time.
        clock: receives the stages `body` (until the application has its last part), `send` and `application` (all).
    """

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and time it."""
        stages = self._clock.now = {"send": 0.0}
        start = time.perf_counter()

        async def timed_receive() -> Any:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                stages["body"] = time.perf_counter() - start
            return message

        async def timed_send(message: Any) -> None:
            before = time.perf_counter()
            await send(message)
            stages["send"] += time.perf_counter() - before

        await self._app(scope, timed_receive, timed_send)
        stages["application"] = time.perf_counter() - start
        self._clock.finished.append(stages)

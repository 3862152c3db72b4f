"""Where the time of one request goes: an observer of the model and one of the ASGI channel, for a profile only."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.http.body import Receive
from serving.http.response import Scope, Send
from serving.telemetry.recorder import ModelRecorder, Recorder

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Stages = dict[str, float]


@dataclass
class Clock:
    """The seconds of the request that is being worked on, and of those before it; one request at a time."""

    now: Stages = field(default_factory=dict)
    """Stage to seconds of the current request."""

    finished: list[Stages] = field(default_factory=list)
    """Of every earlier request, oldest first."""


class TimedRecorder(Recorder):
    """A recorder that also notes what the model's threads do.

    Args:
        clock: gets the stages `queue`, `pixels` (decode and fit together) and `infer`.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def model(self, name: str, version: str, variant: str) -> ModelRecorder:
        """As the base class's, timed."""
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
        app: what it times.
        clock: gets the stages `body` (until the last of it was handed over), `send` and `application` (all of it).
    """

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
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

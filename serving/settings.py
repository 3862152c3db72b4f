"""What the service can be told: environment variables, read once at start and checked."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from models.errors import HalftoneError
from models.host import cores
from models.preprocess import MAX_PIXELS
from models.store import DEFAULT_MODEL

PREFIX = "HALFTONE_"
_ELSEWHERE = {"HALFTONE_ARTIFACTS"}
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The service's settings; the field `max_pixels` is the variable HALFTONE_MAX_PIXELS, and so on.

    Raises:
        HalftoneError: a value is outside its range.
    """

    model: str = DEFAULT_MODEL
    """Names of the bundles to serve, with commas between; the first answers where a request names none."""

    variant: str = ""
    """Variant to serve of every model, such as `onnxruntime-fp32`; empty: the fastest proven one on this machine."""

    allow_untrained: bool = False
    """Serve a bundle with random weights; its answers mean nothing."""

    threads: int = 0
    """Threads that run each model, with one more to decode; 0: as many as there are cores."""

    batch: int = 0
    """Most pictures that a model runs at once; 0: found by measuring; 1: no batches; more: always as many as wait."""

    queue: int = 256
    """Pictures that may wait or be worked on at once, for each model; one more is answered 429."""

    deadline: float = 10.0
    """Seconds that a request may take once its body has arrived; later it is answered 504."""

    body_timeout: float = 30.0
    """Seconds that a body may take to arrive; later it is answered 408."""

    max_body_mb: float = 32.0
    """Largest request body in MiB; a larger one is answered 413."""

    max_pixels: int = MAX_PIXELS
    """Most pixels (width x height) of a picture; one with more is answered 413 before it is decoded."""

    metrics: bool = True
    """Keep Prometheus metrics and show them at /metrics."""

    log_requests: bool = True
    """Write one line to the log for each request."""

    log_format: str = "text"
    """Form of the log's lines: `text` or `json`."""

    trace_endpoint: str = ""
    """Where traces go with OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; empty: no tracing."""

    trace_sample: float = 1.0
    """Share of the requests to trace, 0 to 1, of those whose `traceparent` header doesn't decide it."""

    max_images: int = 64
    """Most pictures in one /classify_batch."""

    def __post_init__(self) -> None:
        for name in ("queue", "max_pixels", "max_images"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("deadline", "body_timeout", "max_body_mb"):
            self._check(name, 0 < getattr(self, name) < math.inf, "a positive number")
        for name in ("threads", "batch"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        names = self.models
        self._check("model", all(names) and len(set(names)) == len(names), "different names with commas between")
        self._check("log_format", self.log_format in ("text", "json"), "text or json")
        self._check("trace_sample", 0 <= self.trace_sample <= 1, "from 0 to 1")
        endpoint = self.trace_endpoint
        self._check("trace_endpoint", not endpoint or endpoint.startswith(("http://", "https://")), "an http(s) URL")
        self._check("max_images", self.max_images <= self.queue, f"at most the queue of {self.queue}")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise HalftoneError(f"{PREFIX}{name.upper()} must be {rule}, not {getattr(self, name)!r}")

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the bundles to serve, at least one."""
        return tuple(name.strip() for name in self.model.split(","))

    @property
    def max_body(self) -> int:
        """Largest request body in bytes."""
        return round(self.max_body_mb * 2**20)

    @property
    def worker_threads(self) -> int:
        """Threads that run each model, at least 1."""
        return self.threads or cores()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the HALFTONE_* variables; an empty one counts as not set.

        Raises:
            HalftoneError: an unknown variable of that prefix, or a value that can't be read or is out of range.
        """
        known = {PREFIX + field.name.upper(): field for field in fields(cls)}
        values: dict[str, Any] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX) or variable in _ELSEWHERE or not text:
                continue
            if variable not in known:
                near = difflib.get_close_matches(variable, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise HalftoneError(f"{variable} is not a setting of the service: {hint}")
            field = known[variable]
            values[field.name] = _parse(variable, text, type(field.default))
        return cls(**values)


def _parse(variable: str, text: str, kind: type[Any]) -> Any:
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise HalftoneError(f"{variable} must be 1 or 0, not {text!r}")
    try:
        return kind(text)
    except ValueError:
        rule = "a whole number" if kind is int else "a number"
        raise HalftoneError(f"{variable} must be {rule}, not {text!r}") from None

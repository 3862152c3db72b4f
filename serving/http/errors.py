"""Errors of a request: HTTP status, stable code for programs, and a message that names the fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.preprocess.errors import (
    BrokenImageError,
    ImageError,
    NotAnImageError,
    TooComplexError,
    TooManyPixelsError,
    UnsupportedFormatError,
)


@dataclass
class RequestError(Exception):
    """Ends a request with an error response."""

    status: int
    """HTTP status."""

    code: str
    """Stable name in snake_case for programs."""

    message: str
    """What happened and what to do; never a path of the server or a traceback."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Additional response headers, such as Retry-After in seconds."""

    def body(self) -> dict[str, Any]:
        """Return the `error` object of the response."""
        return {"code": self.code, "message": self.message}


_IMAGE_ERRORS: tuple[tuple[type[ImageError], int, str], ...] = (
    (NotAnImageError, 400, "not_an_image"),
    (BrokenImageError, 400, "broken_image"),
    (UnsupportedFormatError, 415, "unsupported_media_type"),
    (TooManyPixelsError, 413, "too_many_pixels"),
    (TooComplexError, 413, "too_complex"),
)


def from_image_error(error: ImageError) -> RequestError:
    """Return the error for an image that can't be decoded."""
    for kind, status, code in _IMAGE_ERRORS:
        if isinstance(error, kind):
            return RequestError(status, code, str(error))
    return RequestError(400, "bad_image", str(error))


def bad_parameter(message: str) -> RequestError:
    """Return the error for a missing, unknown or out-of-range parameter."""
    return RequestError(422, "bad_parameter", message)


def internal() -> RequestError:
    """Return the error for a failure of the service itself; only the log has the details."""
    return RequestError(500, "internal_error", "the server failed on this request: see its log, then try again")


def unavailable(code: str, message: str, *, retry_after: int) -> RequestError:
    """Return the error while the service can't accept requests; `retry_after` is in seconds."""
    return RequestError(503, code, message, {"Retry-After": str(retry_after)})


def out_of_resources(error: Exception) -> RequestError:
    """Return the error for a request for which the process has no memory, or no file or thread, left now."""
    if isinstance(error, MemoryError):
        message = "the server has no memory left for this request now: try again"
        return unavailable("out_of_memory", message, retry_after=1)
    message = "the server has no files or threads left for this request now: try again"
    return unavailable("out_of_files", message, retry_after=1)


def unauthorized() -> RequestError:
    """Return the error for a request without a valid API key."""
    return RequestError(
        401,
        "unauthorized",
        "this needs an API key: send `Authorization: Bearer KEY` or `X-API-Key: KEY` with one that is valid",
        {"WWW-Authenticate": 'Bearer realm="halftone"'},
    )

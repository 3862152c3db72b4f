"""Cross-origin requests (https://fetch.spec.whatwg.org/#http-cors-protocol) of pages that the settings name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_REQUEST_HEADERS = (
    *("Content-Type", "Content-Encoding", "Authorization", "X-API-Key", "X-Request-Id", "X-Request-Timeout"),
    "Inference-Header-Content-Length",
)
_RESPONSE_HEADERS = ("Retry-After", "Server-Timing", "X-Request-Id", "Inference-Header-Content-Length")


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return the application that also answers browsers' questions, and marks responses to pages of these origins.

    Args:
        app: the service's application.
        origins: such as `https://example.org`, or `*`; none: return `app` itself.
    """
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_RESPONSE_HEADERS,
    )

"""Finished HTTP responses, sent as ASGI messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serving.http.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import Send

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished HTTP response."""

    content: bytes
    status: int = 200
    media_type: bytes = b"application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    """Error code in the content, for metrics and logs; empty for a success."""

    async def send(self, send: Send, *, head: bool) -> None:
        """Send the response, without its content if the request's method is HEAD."""
        headers = [(b"content-type", self.media_type), (b"content-length", b"%d" % len(self.content))]
        headers += [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else self.content})


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, error: str = "") -> Answer:
    """Return a JSON response."""
    return Answer(_encode(value).encode(), status, headers=headers or {}, error=error)


def failure(error: RequestError) -> Answer:
    """Return the JSON response for an error."""
    return as_json({"error": error.body()}, error.status, error.headers, error=error.code)

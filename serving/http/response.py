"""What goes back to a client, as ASGI messages."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.http.errors import RequestError

Scope = Mapping[str, Any]
Send = Callable[[Any], Awaitable[None]]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished HTTP response."""

    content: bytes
    status: int = 200
    media_type: bytes = b"application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    """Code of the error that it tells, for metrics and logs; empty for a success."""

    async def send(self, send: Send, *, head: bool) -> None:
        """Write it; without its content for a HEAD request."""
        headers = [(b"content-type", self.media_type), (b"content-length", b"%d" % len(self.content))]
        headers += [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else self.content})


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, error: str = "") -> Answer:
    """A JSON answer."""
    return Answer(_encode(value).encode(), status, headers=headers or {}, error=error)


def failure(error: RequestError) -> Answer:
    """The answer to a request that can't be served."""
    return as_json({"error": error.body()}, error.status, error.headers, error=error.code)

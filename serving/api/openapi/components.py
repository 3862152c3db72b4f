"""Building blocks of the OpenAPI description: operations, error responses, and schemas of bodies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
BINARY: Json = {"type": "string", "format": "binary"}

EVERYWHERE = ("400", "408", "431", "500")
"""Statuses that any request may get; 400, 408 and 431 also if it is not a complete HTTP request."""

ERRORS = {
    "400": "not HTTP, not an image, a damaged image or a damaged form",
    "401": "no valid API key",
    "404": "no model of that name or version",
    "405": "another method: see Allow",
    "408": "the request took too long to arrive",
    "413": "too many bytes or pixels",
    "415": "not JPEG, PNG or WebP, or a compressed body",
    "422": "a parameter is missing, unknown or out of range",
    "429": "too many requests: see Retry-After",
    "431": "the request's head is too large",
    "500": "the server failed",
    "503": "not ready, or too many connections: see Retry-After",
    "504": "not done before the deadline",
}

_REQUEST_ID: Json = {
    "X-Request-Id": {
        "description": "The request's X-Request-Id if it is well formed, else a new one; in the log too.",
        "schema": TEXT,
    }
}
_RETRY_AFTER: Json = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS: dict[str, Json] = {
    "401": {"WWW-Authenticate": {"description": "Scheme in which to send a key.", "schema": TEXT}},
    "429": _RETRY_AFTER,
    "503": _RETRY_AFTER,
}


def response(description: str, content: Json) -> Json:
    """Return a response; `content` is a schema by media type."""
    return {"description": description, "headers": _REQUEST_ID, "content": content}


def json_response(description: str, schema: str) -> Json:
    """Return a JSON response of a named schema."""
    return response(description, {"application/json": {"schema": reference(schema)}})


def reference(schema: str) -> Json:
    """Return a reference to a named schema."""
    return {"$ref": f"#/components/schemas/{schema}"}


def errors(statuses: Iterable[str], schema: str = "Error") -> Json:
    """Return the responses of these statuses, in ascending order."""
    return {
        status: json_response(ERRORS[status], schema) | {"headers": _REQUEST_ID | _HEADERS.get(status, {})}
        for status in sorted({*statuses})
    }


def operation(
    name: str,
    summary: str,
    responses: Json,
    *,
    parameters: Sequence[Json] = (),
    body: Json | None = None,
    open_to_all: bool = False,
) -> Json:
    """Return an operation.

    Args:
        name: id of the operation.
        summary: one or two sentences.
        responses: responses by status.
        parameters: parameters in addition to X-Request-Id.
        body: schema of the body by media type; None: the operation has no body.
        open_to_all: True if the operation needs no API key even if the service has keys.
    """
    request_id = {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Name of the request in logs and responses: at most 128 visible ASCII characters.",
        "schema": TEXT,
    }
    described: Json = {"operationId": name, "summary": summary, "parameters": [*parameters, request_id]}
    if body is not None:
        described["requestBody"] = {"required": True, "content": body}
    if open_to_all:
        described["security"] = []
    return described | {"responses": responses}


def object_of(**properties: Json) -> Json:
    """Return the schema of an object that has all these members."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def list_of(items: Json, **limits: int) -> Json:
    """Return the schema of an array."""
    return {"type": "array", "items": items, **limits}

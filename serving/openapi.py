"""The OpenAPI 3.1 description of the API, served at /docs.json and shown by the page at /."""

from __future__ import annotations

from typing import Any

from serving.settings import Settings
from serving.version import version

_ERRORS = {
    "400": "not an image, a damaged image or a damaged form",
    "404": "no model of that name",
    "408": "the body took too long to arrive",
    "413": "too many bytes or pixels",
    "415": "not JPEG, PNG or WebP",
    "422": "a parameter is missing, unknown or out of range",
    "429": "too many requests: see Retry-After",
    "500": "the server failed",
    "503": "not ready: see Retry-After",
    "504": "not done before the deadline",
}
_BINARY = {"type": "string", "format": "binary"}
_TOP_K = {"type": "integer", "minimum": 1, "description": "How many classes to answer; default 5 (or all, if fewer)."}
_MODEL = {"type": "string", "description": "Name of the model, one of GET /models; default: the first."}


def document(settings: Settings) -> dict[str, Any]:
    """The whole description; the limits in it are those of the running service."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Halftone",
            "version": version(),
            "description": "Image classification. Every answer names the model, its version and the variant that ran; "
            "every error is `{error: {code, message}}`. KServe's and Triton's clients find the Open Inference Protocol "
            "under /v2.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(settings),
        "components": {"schemas": _schemas()},
    }


def _paths(settings: Settings) -> dict[str, Any]:
    one = {"multipart/form-data": {"schema": _form("image", _BINARY)}} | {
        f"image/{kind}": {"schema": _BINARY} for kind in ("jpeg", "png", "webp")
    }
    several = {"type": "array", "items": _BINARY, "minItems": 1, "maxItems": settings.max_images}
    limits = f"Up to {settings.max_body_mb:g} MiB a request and {settings.max_pixels:,} pixels a picture."
    return {
        "/classify": {"post": _upload("classify", f"Classify one picture. {limits}", one, "Answer")},
        "/classify_batch": {
            "post": _upload(
                "classify_batch",
                f"Classify up to {settings.max_images} pictures; a bad one is an error in its own slot. {limits}",
                {"multipart/form-data": {"schema": _form("images", several)}},
                "BatchAnswer",
            )
        },
        "/models": {"get": _get("models", "What is loaded, with its proof of parity.", "Models")},
        "/livez": {"get": _get("livez", "The process is alive.", "Status", errors=())},
        "/readyz": {"get": _get("readyz", "All models are loaded and warmed.", "Status")},
    }


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field: schema, "top_k": _TOP_K, "model": _MODEL},
        "required": [field],
        "additionalProperties": False,
    }


def _upload(name: str, summary: str, content: dict[str, Any], answer: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [
            {"name": "top_k", "in": "query", "schema": _TOP_K},
            {"name": "model", "in": "query", "schema": _MODEL},
        ],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _response("the answer", answer)}
        | {status: _response(text, "Error") for status, text in _ERRORS.items()},
    }


def _get(name: str, summary: str, answer: str, errors: tuple[str, ...] = ("503",)) -> dict[str, Any]:
    responses = {"200": _response("the answer", answer)} | {each: _response(_ERRORS[each], "Error") for each in errors}
    return {"operationId": name, "summary": summary, "responses": responses}


def _response(description: str, schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _schemas() -> dict[str, Any]:
    text = {"type": "string"}
    head = {"model": text, "version": text, "variant": text}
    prediction = _object(
        label=text, index={"type": "integer", "minimum": 0}, probability={"type": "number", "minimum": 0, "maximum": 1}
    )
    predictions = {"type": "array", "items": prediction}
    problem = _object(code=text, message=text)
    slot = {"oneOf": [_object(predictions=predictions), _object(error=problem)]}
    return {
        "Answer": _object(**head, predictions=predictions),
        "BatchAnswer": _object(**head, results={"type": "array", "items": slot}),
        "Error": _object(error=problem),
        "Status": _object(status=text),
        "Models": _object(models={"type": "array", "items": {"type": "object"}}),
    }

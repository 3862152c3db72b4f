"""The OpenAPI 3.1 description of the API, served at /docs.json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from export.explain.heat import Method
from serving.api.openapi import v2
from serving.api.openapi.components import (
    BINARY,
    EVERYWHERE,
    TEXT,
    Json,
    errors,
    json_response,
    list_of,
    object_of,
    operation,
    response,
)
from serving.api.upload import FORMATS
from serving.bento import version
from serving.settings import Settings

_POST = (*EVERYWHERE, "404", "413", "415", "422", "429", "503", "504")
_KINDS = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")


def document(settings: Settings) -> Json:
    """Return the whole description, with the limits of the running service."""
    described: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Halftone",
            "version": version(),
            "description": "Image classification. Every response names the model, its version and the variant that "
            "ran; every error is `{error: {code, message}}`. KServe's and Triton's clients find the Open Inference "
            "Protocol under /v2.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(settings) | v2.paths(settings),
        "components": {"schemas": _schemas() | v2.schemas()},
    }
    return _with_keys(described, settings) if settings.api_keys else described


def _with_keys(described: Json, settings: Settings) -> Json:
    """Add the API keys to a description and the status 401 to its operations."""
    for path, item in described["paths"].items():
        for each in item.values():
            if "security" not in each and not (path == "/metrics" and settings.metrics_open):
                schema = "ProtocolError" if path.startswith("/v2/") else "Error"
                each["responses"] |= errors(["401"], schema)
    described["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    return described | {"security": [{"bearer": []}, {"key": []}]}


def _paths(settings: Settings) -> Json:
    paths = {
        "/classify": {"post": _classify(settings)},
        "/classify_batch": {"post": _classify_batch(settings)},
        **({"/explain": {"post": _explain(settings)}} if settings.explain else {}),
        "/models": {"get": _get("models", "What is loaded, with its proof of parity.", "Models", ["503"])},
        "/livez": {"get": _get("livez", "The process is alive.", "Status", [], open_to_all=True)},
        "/healthz": {"get": _get("healthz", "The same as /livez.", "Status", [], open_to_all=True)},
        "/readyz": {"get": _get("readyz", "All models are loaded and warmed up.", "Ready", ["503"], open_to_all=True)},
        "/docs.json": {"get": _get("docs", "This description.", "Document", ["503"])},
        "/ui": {"get": _text("ui", "A page that classifies a picture.", "text/html", open_to_all=True)},
    }
    if settings.metrics:
        paths["/metrics"] = {"get": _text("metrics", "Metrics in Prometheus' text format.", "text/plain")}
    return paths


def _classify(settings: Settings) -> Json:
    summary = f"Classify one picture. {_limits(settings)}"
    return _upload("classify", summary, "image", BINARY, "Answer", _parameters(settings))


def _classify_batch(settings: Settings) -> Json:
    several = list_of(BINARY, minItems=1, maxItems=settings.max_images)
    summary = f"Classify up to {settings.max_images} pictures; a bad one is an error in its own slot."
    summary = f"{summary} {_limits(settings)}"
    return _upload("classify_batch", summary, "images", several, "BatchAnswer", _parameters(settings))


def _explain(settings: Settings) -> Json:
    summary = f"Show where in a picture the model sees a class, as numbers or as a picture. {_limits(settings)}"
    text = {"type": "string", "minLength": 1}
    own = [
        ("class", "Label, label id or index of the class; by default the most probable one.", text),
        ("format", "By default as the Accept header wants it.", {"type": "string", "enum": list(FORMATS)}),
    ]
    parameters = [{"name": name, "in": "query", "description": words, "schema": schema} for name, words, schema in own]
    described = _upload("explain", summary, "image", BINARY, "Explanation", [*parameters, _model(settings), v2.TIMEOUT])
    described["responses"]["200"]["content"]["image/png"] = {"schema": BINARY}
    return described


def _limits(settings: Settings) -> str:
    return (
        f"Up to {settings.max_body_mb:g} MiB a request and {settings.max_pixels:,} pixels a picture. "
        "The parameters may be fields of the form as well."
    )


def _parameters(settings: Settings) -> list[Json]:
    return [
        {
            "name": "top_k",
            "in": "query",
            "description": "Number of classes to return, by default 5; all if the model has fewer.",
            "schema": {"type": "integer", "minimum": 1},
        },
        _model(settings),
        {
            "name": "coverage",
            "in": "query",
            "description": "Share of the pictures whose prediction set must hold the true class; by default that of "
            "`promises` in /models. 422 if the model can't promise it.",
            "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        },
        v2.TIMEOUT,
    ]


def _model(settings: Settings) -> Json:
    return {
        "name": "model",
        "in": "query",
        "description": "Name of the model to use; by default the first one.",
        "schema": {"type": "string", "enum": list(settings.models)},
    }


def _upload(name: str, summary: str, field: str, schema: Json, answer: str, parameters: list[Json]) -> Json:
    text: Json = {"type": "string", "format": "byte", "contentEncoding": "base64"}
    form = {"type": "object", "properties": {field: schema}, "required": [field], "additionalProperties": False}
    body: Json = {"multipart/form-data": {"schema": form}} | {kind: {"schema": BINARY} for kind in _KINDS}
    in_json = form | {"properties": {field: text if field == "image" else list_of(text, minItems=1)}}
    body["application/json"] = {"schema": in_json}
    responses = {"200": json_response("the answer", answer)} | errors(_POST)
    return operation(name, summary, responses, parameters=parameters, body=body)


def _get(name: str, summary: str, answer: str, further: Iterable[str], *, open_to_all: bool = False) -> Json:
    responses = {"200": json_response("the answer", answer)} | errors([*EVERYWHERE, *further])
    return operation(name, summary, responses, open_to_all=open_to_all)


def _text(name: str, summary: str, media_type: str, *, open_to_all: bool = False) -> Json:
    responses = {"200": response("the text", {media_type: {"schema": TEXT}})} | errors([*EVERYWHERE, "503"])
    return operation(name, summary, responses, open_to_all=open_to_all)


def _schemas() -> Json:
    head = {"model": TEXT, "version": TEXT, "variant": TEXT}
    prediction = object_of(
        label=TEXT, index={"type": "integer", "minimum": 0}, probability={"type": "number", "minimum": 0, "maximum": 1}
    )
    predictions = list_of(prediction, minItems=1)
    problem = object_of(code=TEXT, message=TEXT)
    promised = _promised()
    slot = {"oneOf": [_with(object_of(predictions=predictions), promised), object_of(error=problem)]}
    model = object_of(
        name=TEXT,
        version=TEXT,
        variant=TEXT,
        architecture=TEXT,
        trained={"type": "boolean"},
        source=TEXT,
        license=TEXT,
        parity={"type": "object"},
        promises={"type": ["object", "null"]},
        input={"type": "object"},
        labels=list_of(TEXT, minItems=1),
    )
    return {
        "Answer": _with(object_of(**head, predictions=predictions), promised),
        "BatchAnswer": object_of(**head, results=list_of(slot, minItems=1)),
        "Explanation": _explanation(head),
        "Error": object_of(error=problem),
        "Status": object_of(status=TEXT),
        "Ready": object_of(status=TEXT, **head, models=list_of(TEXT, minItems=1)),
        "Models": object_of(models=list_of(model, minItems=1)),
        "Document": object_of(openapi=TEXT, info={"type": "object"}, paths={"type": "object"}),
    }


def _explanation(head: Json) -> Json:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    return object_of(
        **head,
        method={"type": "string", "enum": list(get_args(Method))},
        label=TEXT,
        index={"type": "integer", "minimum": 0},
        probability=share,
        box=list_of(share, minItems=4, maxItems=4),
        map=list_of(list_of(share, minItems=1), minItems=1),
    )


def _promised() -> Json:
    """Return the members that an answer has if the model has promises for them."""
    share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    return {
        "confident": {"type": "boolean", "description": "The error of such answers is at most `error` in /models."},
        "unfamiliar": {"type": "boolean", "description": "The picture is unlike those that the model was trained on."},
        "prediction_set": object_of(coverage=share, labels=list_of(TEXT, minItems=1)),
    }


def _with(schema: Json, optional: Json) -> Json:
    return schema | {"properties": schema["properties"] | optional}

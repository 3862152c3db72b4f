"""The part of the OpenAPI description for the Open Inference Protocol (docs/open-inference.md)."""

from __future__ import annotations

from collections.abc import Iterable

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
    reference,
)
from serving.api.v2.metadata import IMAGE, LOGITS, PIXELS, PROBABILITIES
from serving.api.v2.response import HEADER_LENGTH
from serving.http.deadline import SHORTEST
from serving.settings import Settings

TIMEOUT: Json = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "Seconds allowed for the response once the body has arrived; only shortens the service's own limit.",
    "schema": {"type": "number", "minimum": SHORTEST},
}

_INFER = (*EVERYWHERE, "404", "413", "415", "422", "429", "503", "504")
_BOOLEAN: Json = {"type": "boolean"}
_INTEGER: Json = {"type": "integer"}


def paths(settings: Settings) -> Json:
    """Return all paths under /v2."""
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": list(settings.models)}}
    version = {"name": "version", "in": "path", "required": True, "schema": TEXT}
    live, ready = "The process is alive.", "All models are loaded and warmed up."
    return {
        # The only path whose errors are in the format of the rest of the API, not in the protocol's.
        "/v2": {"get": _get("v2", "The server and its extensions.", "Server", ["503"])},
        "/v2/health/live": {"get": _get("v2_live", live, "Live", [], open_to_all=True)},
        "/v2/health/ready": {"get": _get("v2_ready", ready, "ReadyState", ["503"], open_to_all=True)},
        "/v2/repository/index": {"post": _index()},
        "/v2/models/stats": {"get": _get("v2_stats", "What the models have done.", "Statistics", [])},
        **_model("/v2/models/{name}", "v2_model", [name]),
        **_model("/v2/models/{name}/versions/{version}", "v2_version", [name, version]),
    }


def _model(path: str, prefix: str, parameters: list[Json]) -> Json:
    further = ["404", "503"]
    return {
        path: {"get": _get(prefix, "The model's tensors.", "ModelMetadata", further, parameters)},
        f"{path}/ready": {"get": _get(f"{prefix}_ready", "The model is ready.", "ModelReady", further, parameters)},
        f"{path}/config": {
            "get": _get(f"{prefix}_config", "Triton's model configuration.", "ModelConfig", further, parameters)
        },
        f"{path}/stats": {
            "get": _get(f"{prefix}_stats", "What the model has done.", "Statistics", further, parameters)
        },
        f"{path}/infer": {"post": _infer(f"{prefix}_infer", parameters)},
    }


def _get(
    name: str,
    summary: str,
    answer: str,
    further: Iterable[str],
    parameters: Iterable[Json] = (),
    *,
    open_to_all: bool = False,
) -> Json:
    responses = {"200": json_response("the answer", answer)} | errors([*EVERYWHERE, *further], "ProtocolError")
    return operation(name, summary, responses, parameters=[*parameters], open_to_all=open_to_all)


def _index() -> Json:
    statuses = [*EVERYWHERE, "413", "415", "429", "503"]
    responses = {"200": json_response("the models", "Index")} | errors(statuses, "ProtocolError")
    body = {"application/json": {"schema": {"type": "object", "properties": {"ready": _BOOLEAN}}}}
    described = operation("v2_index", "The models and their state.", responses, body=body)
    described["requestBody"]["required"] = False
    return described


def _infer(name: str, parameters: list[Json]) -> Json:
    length = {
        "name": HEADER_LENGTH,
        "in": "header",
        "description": "Length of the JSON if the data of binary inputs follows it; without the header, all is JSON.",
        "schema": {"type": "integer", "minimum": 0},
    }
    answer = json_response("the outputs", "InferenceResponse")
    answer["content"]["application/octet-stream"] = {"schema": BINARY}
    return operation(
        name,
        "Logits, probabilities or the best classes of pictures or of pixels; JSON, or JSON and then binary data.",
        {"200": answer} | errors(_INFER, "ProtocolError"),
        parameters=[*parameters, length, TIMEOUT],
        body={
            "application/json": {"schema": reference("InferenceRequest")},
            "application/octet-stream": {"schema": BINARY},
        },
    )


def schemas() -> Json:
    """Return the schemas of the bodies under /v2."""
    shape = list_of({"type": "integer", "minimum": -1})
    tensor = object_of(name=TEXT, datatype=TEXT, shape=shape)
    named = object_of(name=TEXT, version=TEXT, state=TEXT, reason=TEXT)
    index = named | {"required": ["name", "state", "reason"]}
    output = tensor | {
        "properties": tensor["properties"] | {"data": {"type": "array"}, "parameters": {"type": "object"}}
    }
    response = object_of(model_name=TEXT, model_version=TEXT, outputs=list_of(output, minItems=1))
    return {
        # Text from the protocol's own handler; the object of the rest of the API if the request fails earlier.
        "ProtocolError": object_of(error={"oneOf": [TEXT, object_of(code=TEXT, message=TEXT)]}),
        "Server": object_of(name=TEXT, version=TEXT, extensions=list_of(TEXT)),
        "Live": object_of(live=_BOOLEAN),
        "ReadyState": object_of(ready=_BOOLEAN),
        "ModelReady": object_of(name=TEXT, ready=_BOOLEAN),
        "ModelMetadata": object_of(
            name=TEXT, versions=list_of(TEXT), platform=TEXT, inputs=list_of(tensor), outputs=list_of(tensor)
        ),
        "ModelConfig": _config(),
        "Statistics": object_of(model_stats=list_of(_statistics())),
        "Index": list_of(index),
        "InferenceRequest": _request(),
        "InferenceResponse": response | {"properties": response["properties"] | {"id": TEXT}},
    }


def _config() -> Json:
    tensor = object_of(name=TEXT, data_type=TEXT, dims=list_of(_INTEGER))
    config = object_of(
        name=TEXT, platform=TEXT, backend=TEXT, max_batch_size=_INTEGER, input=list_of(tensor), output=list_of(tensor)
    )
    settings = ("version_policy", "dynamic_batching", "model_transaction_policy")
    config["properties"] |= {name: {"type": "object"} for name in settings}
    return config


def _statistics() -> Json:
    duration = object_of(count=_INTEGER, ns=_INTEGER)
    steps = {f"compute_{step}": duration for step in ("input", "infer", "output")}
    others = {name: duration for name in ("success", "fail", "queue", "cache_hit", "cache_miss")}
    return object_of(
        name=TEXT,
        version=TEXT,
        last_inference=_INTEGER,
        inference_count=_INTEGER,
        execution_count=_INTEGER,
        inference_stats=object_of(**others, **steps),
        batch_stats=list_of(object_of(batch_size=_INTEGER, **steps)),
        memory_usage={"type": "array"},
    )


def _request() -> Json:
    given = object_of(
        name={"type": "string", "enum": [PIXELS, IMAGE]},
        datatype={"type": "string", "enum": ["UINT8", "BYTES"]},
        shape=list_of({"type": "integer", "minimum": 0}, maxItems=4),
    )
    given["properties"] |= {
        "parameters": {"type": "object", "properties": {"binary_data_size": _INTEGER}},
        "data": {
            "type": "array",
            # Deeper nesting is allowed too; the shape says how deep.
            "items": {"type": ["integer", "string", "array"]},
            "description": "Numbers 0 to 255 for pixels, flat or nested, or files as base64 text for images.",
        },
    }
    requested = object_of(name={"type": "string", "enum": [LOGITS, PROBABILITIES]})
    requested["properties"]["parameters"] = {
        "type": "object",
        "properties": {"classification": {"type": "integer", "minimum": 1}, "binary_data": _BOOLEAN},
    }
    request = object_of(inputs=list_of(given, minItems=1, maxItems=1))
    request["properties"] |= {
        "id": TEXT,
        "outputs": list_of(requested, maxItems=2),
        "parameters": {
            "type": "object",
            "properties": {"timeout": _INTEGER, "binary_data_output": _BOOLEAN},
            "description": "`timeout`: microseconds allowed for the response.",
        },
    }
    return request

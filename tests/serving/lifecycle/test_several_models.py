"""Several models in one service: each is selected by its name, and none delays another."""

import asyncio
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.api.app import Api
from serving.settings import Settings
from tests.servers import PHOTOS, Server, bentoml_client
from tests.serving.stand_in import StandIn, stand_in_model

CAT = (PHOTOS / "cat.jpg").read_bytes()
NAMES = ["efficientnet_lite0", "second"]


def test_the_first_model_is_the_default(two_models: Server) -> None:
    assert two_models.post("/classify", content=CAT).json()["model"] == NAMES[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_named_in_the_query_or_the_form(two_models: Server, name: str) -> None:
    in_query = two_models.post("/classify", params={"model": name}, content=CAT).json()
    in_form = two_models.post("/classify", data={"model": name}, files={"image": CAT}).json()
    in_batch = two_models.post("/classify_batch", params={"model": name}, files=[("images", CAT)]).json()

    assert in_query["model"] == in_batch["model"] == name
    assert in_form == in_query
    assert in_batch["results"][0]["predictions"] == in_query["predictions"]


def test_answers_say_what_their_model_promises(two_models: Server) -> None:
    def ask(**params: object) -> httpx.Response:
        return two_models.post("/classify", params={"model": "second", **params}, content=CAT)  # type: ignore[arg-type]

    answer, wide = ask().json(), ask(coverage=0.99).json()
    best = [each["label"] for each in ask(top_k=9).json()["predictions"]]
    (slot,) = two_models.post(
        "/classify_batch", data={"model": "second", "coverage": "0.99"}, files=[("images", CAT)]
    ).json()["results"]

    assert (answer["confident"], answer["unfamiliar"]) == (True, True)
    assert answer["prediction_set"]["coverage"] == 0.95
    for each, least in ((answer, 1), (wide, 3)):
        labels = each["prediction_set"]["labels"]
        assert labels == best[: len(labels)]
        assert len(labels) >= least
    assert slot == {name: wide[name] for name in slot}
    refused = ask(coverage=0.995)
    assert (refused.status_code, "at most 0.990" in refused.json()["error"]["message"]) == (422, True)
    first, second = (model["promises"] for model in two_models.get("/models").json()["models"])
    assert (first["from"], first["threshold"], second["threshold"]) == ("sample photographs", None, 0.3)


@pytest.mark.parametrize("path", ["/classify", "/classify_batch"])
def test_the_error_for_an_unknown_model_names_the_known_ones(two_models: Server, path: str) -> None:
    response = two_models.post(path, params={"model": "third"}, content=CAT)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert all(word in error["message"] for word in ("'third'", *NAMES))


def test_all_are_listed_and_ready(two_models: Server) -> None:
    assert [model["name"] for model in two_models.get("/models").json()["models"]] == NAMES
    assert two_models.get("/readyz").json()["models"] == NAMES


def test_bentomls_client_names_a_model(two_models: Server) -> None:
    result = bentoml_client(two_models, "client.classify(image=photos / 'cat.jpg', model='second')")

    assert '"model": "second"' in result.stdout, result.stderr


def test_a_flooded_model_does_not_delay_another(two_models: Server) -> None:
    # All five finish long before the flood: if they had queued behind it, they would be last every time. On a busy
    # machine the client itself may be late.
    assert any(last_of_five_during_a_flood(two_models) <= 35 for _ in range(4))


def last_of_five_during_a_flood(two_models: Server) -> int:
    """Send 40 slow requests to one model, then five to the other; return the place of the last of these among all."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)).save(file, "PNG")
    finished: list[str] = []

    async def send(client: httpx.AsyncClient, name: str, picture: bytes) -> None:
        response = await client.post("/classify", params={"model": name}, content=picture)
        assert (response.status_code, response.json()["model"]) == (200, name)
        finished.append(name)

    async def flood() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=two_models.url, timeout=60, limits=limits) as client:
            many = [asyncio.create_task(send(client, NAMES[0], file.getvalue())) for _ in range(40)]
            while not finished:
                await asyncio.sleep(0.001)
            for _ in range(5):
                await send(client, NAMES[1], CAT)
            await asyncio.gather(*many)

    asyncio.run(flood())

    return len(finished) - finished[::-1].index(NAMES[1])


def post(api: Api, path: str, **kwargs: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=api)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post(path, **kwargs)

    return asyncio.run(send())


def test_the_service_is_ready_once_all_models_are(artifacts: Path) -> None:
    api = Api(Settings(model="first,second"))
    api.models.publish(stand_in_model(artifacts, "first", StandIn()))

    try:
        assert not api.models.ready
        assert post(api, "/classify", content=CAT).json()["model"] == "first"
        missing = post(api, "/classify?model=second", content=CAT)
        assert (missing.status_code, missing.json()["error"]["code"]) == (503, "not_ready")
        assert "second" in missing.json()["error"]["message"]
        api.models.publish(stand_in_model(artifacts, "second", StandIn()))
        assert api.models.ready
        assert post(api, "/classify?model=second", content=CAT).json()["model"] == "second"
    finally:
        api.close()
    assert not api.models.ready
    assert post(api, "/classify", content=CAT).status_code == 503


def test_a_picture_on_which_the_model_fails_fails_alone(artifacts: Path) -> None:
    api = Api(Settings(model="first", batch=8))
    model = StandIn(fails_on_dark=True)
    api.models.publish(stand_in_model(artifacts, "first", model, batch=8, threads=1))
    dark = io.BytesIO()
    Image.new("RGB", (64, 64)).save(dark, "PNG")

    try:
        answer = post(api, "/classify_batch", files=[("images", data) for data in (CAT, dark.getvalue(), CAT)]).json()
    finally:
        api.close()

    assert ["predictions" in result for result in answer["results"]] == [True, False, True]
    assert answer["results"][1]["error"]["code"] == "internal_error"


def test_the_picture_of_a_client_that_left_is_not_run(artifacts: Path) -> None:
    api = Api(Settings(model="first"))
    model = StandIn(held=True)
    api.models.publish(stand_in_model(artifacts, "first", model, threads=1))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "query_string": b"",
        "headers": [(b"content-type", b"image/jpeg")],
    }

    async def call(leaves: asyncio.Event) -> list[Any]:
        messages, sent = [{"type": "http.request", "body": CAT, "more_body": False}], []

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await api(scope, receive, send)
        return sent

    async def both() -> None:
        stays, leaves = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(call(stays))
        await asyncio.to_thread(model.entered.acquire)
        second = asyncio.create_task(call(leaves))
        leaves.set()
        assert await second == []
        model.held.set()
        assert (await first)[0]["status"] == 200

    try:
        asyncio.run(both())
    finally:
        model.held.set()
        api.close()
    assert model.pictures == 1

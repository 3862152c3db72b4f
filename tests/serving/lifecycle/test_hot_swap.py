"""Hot swaps: the active and the previous model, requests during a swap, freed memory, and refusals."""

import asyncio
import threading
from typing import Any

import pytest

from models.common.errors import HalftoneError
from serving.api.app import Api
from serving.http.errors import RequestError
from serving.lifecycle.hot_swap import HotSwap
from tests.servers import wait_until
from tests.serving.lifecycle.stand_in_service import CAT, Factory, is_free, post, refused, service, version
from tests.serving.stand_in import StandIn


def test_the_new_model_serves_and_the_old_one_can_be_restored(load: Factory) -> None:
    with service(load) as (api, swaps):
        swap = swaps.load("first")

        assert (swap.model.version, swap.replaced.version, version(api)) == ("v2", "v1", "v2")
        assert (swaps.rollback("first").model.version, version(api)) == ("v1", "v1")
        assert (swaps.rollback("first").model.version, version(api)) == ("v2", "v2")
        assert not any(map(is_free, load.made))


def test_only_the_last_model_is_kept(load: Factory) -> None:
    with service(load) as (_, swaps):
        for _ in range(3):
            swaps.load("first")
        wait_until(
            lambda: not [thread for thread in threading.enumerate() if thread.name == "first-free"], "all was freed"
        )

        assert [is_free(model) for model in load.made] == [True, True, False, False]
        assert swaps.rollback("first").model.version == "v3"


def test_no_model_is_kept_if_the_settings_say_so(load: Factory) -> None:
    with service(load, keep=False) as (api, swaps):
        swaps.load("first")
        wait_until(lambda: is_free(load.made[0]), "the old model was freed")

        assert refused(lambda: swaps.rollback("first")).code == "no_previous"
        assert version(api) == "v2"


def test_a_provisional_model_is_replaced_for_good(load: Factory) -> None:
    with service(load) as (api, swaps):
        swaps.refine("first", load.made[0])
        wait_until(lambda: is_free(load.made[0]), "the provisional model was freed")

        assert refused(lambda: swaps.rollback("first")).code == "no_previous"
        assert version(api) == "v2"
        assert b'result="loaded"' not in api.recorder.exposition()


def test_a_model_that_is_no_longer_active_is_not_refined(load: Factory) -> None:
    with service(load) as (api, swaps):
        swaps.load("first")
        swaps.refine("first", load.made[0])

        assert version(api) == "v2"


@pytest.mark.parametrize("path", ["/classify", "/classify_batch", "/v2/models/first/infer"])
def test_requests_that_started_on_the_old_model_finish_on_it(load: Factory, path: str) -> None:
    held = StandIn(held=True)
    length = (
        b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": %d}}]}'
    )
    head = length % (4 + len(CAT))
    arguments: dict[str, Any] = {
        "/classify": {},
        "/classify_batch": {"content": None, "files": [("images", CAT), ("images", CAT)]},
        "/v2/models/first/infer": {
            "content": head + len(CAT).to_bytes(4, "little") + CAT,
            "headers": {"Inference-Header-Content-Length": str(len(head))},
        },
    }[path]

    async def during(api: Api, swaps: HotSwap) -> None:
        old = asyncio.create_task(post(api, path, **arguments))
        await asyncio.to_thread(held.entered.acquire)
        queued = [asyncio.create_task(post(api, path, **arguments)) for _ in range(5)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(swaps.load, "first")
        await asyncio.to_thread(swaps.load, "first")
        assert (await post(api)).json()["version"] == "v3"
        assert not is_free(load.made[0])
        held.held.set()
        answers = [answer.json() for answer in (await old, *await asyncio.gather(*queued))]
        assert [answer.get("version", answer.get("model_version")) for answer in answers] == ["v1"] * 6
        await asyncio.to_thread(wait_until, lambda: is_free(load.made[0]), "the old model was freed")

    with service(load, first=held) as (api, swaps):
        asyncio.run(during(api, swaps))


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (HalftoneError("model.onnx is damaged"), 422, "model.onnx is damaged"),
        (ValueError("of a library"), 422, "see the server's log"),
        (MemoryError(), 503, "no memory"),
    ],
)
def test_a_model_that_can_not_be_loaded_changes_nothing(
    load: Factory, error: Exception, status: int, words: str
) -> None:
    with service(load) as (api, swaps):
        swaps.load("first")
        load.error = error
        error_of_load = refused(lambda: swaps.load("first"))

        assert (error_of_load.status, words in error_of_load.message) == (status, True)
        assert version(api) == "v2"
        assert swaps.rollback("first").model.version == "v1"
        load.error = None
        assert swaps.load("first").model.version == "v3"


def test_two_swaps_of_one_model_at_a_time(load: Factory) -> None:
    with service(load) as (api, swaps):
        load.entered.clear()
        load.held.clear()
        slow = threading.Thread(target=swaps.load, args=("first",))
        slow.start()
        load.entered.wait()

        assert swaps.is_busy("first")
        assert [refused(lambda: swaps.load("first")).code, refused(lambda: swaps.rollback("first")).code] == [
            "swap_running"
        ] * 2
        assert version(api) == "v1"
        load.held.set()
        slow.join()
        assert version(api) == "v2"


def test_a_swap_that_ends_after_the_service_does_not_serve(load: Factory) -> None:
    with service(load) as (api, swaps):
        load.entered.clear()
        load.held.clear()
        errors: list[RequestError] = []
        slow = threading.Thread(target=lambda: errors.append(refused(lambda: swaps.load("first"))))
        slow.start()
        load.entered.wait()
        api.close()
        load.held.set()
        slow.join()

        assert errors[0].status == 503
        assert all(map(is_free, load.made))


def test_the_metrics_name_the_active_version(load: Factory) -> None:
    with service(load) as (api, swaps):
        swaps.load("first")
        text = api.recorder.exposition().decode()
        assert 'version="v1"' not in text
        assert 'halftone_swaps_total{model="first",result="loaded"} 1.0' in text
        swaps.rollback("first")
        text = api.recorder.exposition().decode()
        assert 'halftone_model_info{name="first",variant="onnxruntime-fp32",version="v1"} 1.0' in text

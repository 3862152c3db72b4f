"""One model in another's place: who answers when, what is kept, what is freed, and what is refused."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bundle.bundle import Bundle
from models.bundle.store import DEFAULT_MODEL
from models.common.errors import HalftoneError
from serving.api.app import Api
from serving.http.errors import RequestError
from serving.lifecycle.hot_swap import HotSwap
from serving.lifecycle.served_model import ServedModel
from serving.lifecycle.watcher import Watcher
from serving.settings import Settings
from serving.telemetry.recorder import Recorder
from tests.samples import edit_manifest
from tests.servers import PHOTOS, wait_until
from tests.serving.stand_in import StandIn, served

CAT = (PHOTOS / "cat.jpg").read_bytes()


class Factory:
    """Loads stand-ins whose versions are v1, v2, …"""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.made: list[ServedModel] = []
        self.held = threading.Event()
        self.held.set()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.recorder: Recorder | None = None
        self.folder: Path | None = None

    def __call__(self, name: str, *, bundle: str | None = None, replaces: ServedModel | None = None) -> ServedModel:
        self.entered.set()
        self.held.wait()
        if self.error is not None:
            raise self.error
        model = served(self.artifacts, name, StandIn(), recorder=self.recorder)
        model.bundle = bundle or name
        if self.folder is not None:
            model.manifest = Bundle.open(self.folder).manifest
        model.version = f"v{len(self.made) + 1}"
        self.made.append(model)
        return model


@pytest.fixture
def load(artifacts: Path) -> Factory:
    return Factory(artifacts)


@contextmanager
def service(load: Factory, *, keep: bool = True, first: StandIn | None = None) -> Iterator[tuple[Api, HotSwap]]:
    """An API with one model, and what replaces it."""
    api = Api(Settings(model="first"))
    load.recorder = api.recorder
    model = load("first")
    if first is not None:
        model.runtime = first
    api.models.publish(model)
    try:
        yield api, HotSwap(api.models, load, api.recorder, keep=keep)
    finally:
        api.close()


def free(model: ServedModel) -> bool:
    return not hasattr(model, "runtime")


async def post(api: Api, path: str = "/classify", **kwargs: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=api)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return await client.post(path, **{"content": CAT, **kwargs})


def version(api: Api) -> str:
    return str(asyncio.run(post(api)).json()["version"])


def refused(work: Callable[[], object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        work()
    return caught.value


def test_the_new_model_answers_and_the_old_one_can_come_back(load: Factory) -> None:
    with service(load) as (api, swaps):
        swap = swaps.load("first")

        assert (swap.model.version, swap.replaced.version, version(api)) == ("v2", "v1", "v2")
        assert (swaps.rollback("first").model.version, version(api)) == ("v1", "v1")
        assert (swaps.rollback("first").model.version, version(api)) == ("v2", "v2")
        assert not any(map(free, load.made))


def test_only_the_last_one_is_kept(load: Factory) -> None:
    with service(load) as (_, swaps):
        for _ in range(3):
            swaps.load("first")
        wait_until(
            lambda: not [thread for thread in threading.enumerate() if thread.name == "first-free"], "all was freed"
        )

        assert [free(model) for model in load.made] == [True, True, False, False]
        assert swaps.rollback("first").model.version == "v3"


def test_nothing_is_kept_where_memory_is_dear(load: Factory) -> None:
    with service(load, keep=False) as (api, swaps):
        swaps.load("first")
        wait_until(lambda: free(load.made[0]), "the old model was freed")

        assert refused(lambda: swaps.rollback("first")).code == "no_previous"
        assert version(api) == "v2"


@pytest.mark.parametrize("path", ["/classify", "/classify_batch", "/v2/models/first/infer"])
def test_who_began_with_the_old_model_ends_with_it(load: Factory, path: str) -> None:
    held = StandIn(held=True)
    length = (
        b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": %d}}]}'
    )
    head = length % (4 + len(CAT))
    asked: dict[str, Any] = {
        "/classify": {},
        "/classify_batch": {"content": None, "files": [("images", CAT), ("images", CAT)]},
        "/v2/models/first/infer": {
            "content": head + len(CAT).to_bytes(4, "little") + CAT,
            "headers": {"Inference-Header-Content-Length": str(len(head))},
        },
    }[path]

    async def during(api: Api, swaps: HotSwap) -> None:
        old = asyncio.create_task(post(api, path, **asked))
        await asyncio.to_thread(held.entered.acquire)
        queued = [asyncio.create_task(post(api, path, **asked)) for _ in range(5)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(swaps.load, "first")
        await asyncio.to_thread(swaps.load, "first")
        assert (await post(api)).json()["version"] == "v3"
        assert not free(load.made[0])
        held.held.set()
        answers = [answer.json() for answer in (await old, *await asyncio.gather(*queued))]
        assert [answer.get("version", answer.get("model_version")) for answer in answers] == ["v1"] * 6
        await asyncio.to_thread(wait_until, lambda: free(load.made[0]), "the old model was freed")

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
        told = refused(lambda: swaps.load("first"))

        assert (told.status, words in told.message) == (status, True)
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
        told: list[RequestError] = []
        slow = threading.Thread(target=lambda: told.append(refused(lambda: swaps.load("first"))))
        slow.start()
        load.entered.wait()
        api.close()
        load.held.set()
        slow.join()

        assert told[0].status == 503
        assert all(map(free, load.made))


def test_the_metrics_name_who_is_in_charge(load: Factory) -> None:
    with service(load) as (api, swaps):
        swaps.load("first")
        text = api.recorder.exposition().decode()
        assert 'version="v1"' not in text
        assert 'halftone_swaps_total{model="first",result="loaded"} 1.0' in text
        swaps.rollback("first")
        text = api.recorder.exposition().decode()
        assert 'halftone_model_info{name="first",variant="onnxruntime-fp32",version="v1"} 1.0' in text


@pytest.fixture
def watched(load: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of which the stand-ins are loaded: its manifest and one file."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((load.artifacts / DEFAULT_MODEL / "manifest.json").read_bytes())
    edit_manifest(folder, lambda manifest: manifest.update(files={"README.md": manifest["files"]["README.md"]}))
    (folder / "README.md").write_text("half of it")
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    return folder


def test_the_watch_does_not_undo_a_rollback_of_what_the_operator_loaded(load: Factory, watched: Path) -> None:
    with service(load) as (api, swaps):
        load.folder = watched
        watch = Watcher(api.models, swaps, seconds=60)
        watch.look("first")
        swaps.load("first")
        swaps.rollback("first")
        for _ in range(3):
            watch.look("first")
        assert version(api) == "v1"


def test_a_copy_that_writes_the_manifest_first_is_loaded_when_it_is_whole(load: Factory, watched: Path) -> None:
    with service(load) as (api, swaps):
        load.folder = watched
        watch = Watcher(api.models, swaps, seconds=60)
        load.error = HalftoneError("a file does not fit its hash")
        for _ in range(3):
            watch.look("first")
        load.error = None
        assert version(api) == "v1"
        (watched / "README.md").write_text("all of it")
        for _ in range(2):
            watch.look("first")
        assert version(api) == "v2"


def test_no_memory_is_no_fault_of_the_bundle(load: Factory, watched: Path) -> None:
    with service(load) as (api, swaps):
        load.folder = watched
        load.error = RuntimeError("std::bad_alloc")
        assert (refused(lambda: swaps.load("first")).status, version(api)) == (503, "v1")
        watch = Watcher(api.models, swaps, seconds=60)
        for _ in range(2):
            watch.look("first")
        load.error = None
        watch.look("first")
        assert version(api) == "v2"


def test_a_watched_bundle_is_loaded_when_it_has_changed_and_is_steady(
    load: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((load.artifacts / DEFAULT_MODEL / "manifest.json").read_bytes())
    edit_manifest(folder, lambda manifest: manifest.update(files={}))
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    with service(load) as (api, swaps):
        watch = Watcher(api.models, swaps, seconds=60)
        load.folder = folder

        def versions(looks: int) -> list[str]:
            seen = []
            for _ in range(looks):
                watch.look("first")
                seen.append(version(api))
            return seen

        assert versions(3) == ["v1", "v2", "v2"]
        edit_manifest(folder, lambda manifest: manifest.update(temperature=2.0))
        load.error = HalftoneError("it is damaged")
        assert versions(3) == ["v2", "v2", "v2"]
        load.error = None
        assert versions(2) == ["v2", "v2"]
        (folder / "manifest.json").write_text("{")
        assert versions(2) == ["v2", "v2"]
        (folder / "manifest.json").write_bytes((load.artifacts / DEFAULT_MODEL / "manifest.json").read_bytes())
        edit_manifest(folder, lambda manifest: manifest.update(files={}, temperature=3.0))
        assert versions(2) == ["v2", "v3"]
        swaps.rollback("first")
        assert versions(3) == ["v2", "v2", "v2"]

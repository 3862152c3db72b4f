"""Explanations in memory: loaded when asked for, freed later, one at a time, and never in the way."""

import asyncio
import shutil
import threading
import weakref
from pathlib import Path

import pytest

from export.explain.heat import HeatMaps
from models.bundle.bundle import EXPLAIN, Bundle
from models.preprocess.decode import MAX_PIXELS
from serving.http.errors import RequestError
from serving.lifecycle import explanations
from serving.lifecycle.explanations import CAPACITY, Explained, Explanations
from serving.lifecycle.served_model import ServedModel
from tests.servers import PHOTOS, wait_until
from tests.serving.stand_in import StandIn, stand_in_model

CAT = (PHOTOS / "cat.jpg").read_bytes()


def model(artifacts: Path, files: Bundle | None, name: str = "first") -> ServedModel:
    served = stand_in_model(artifacts, name, StandIn())
    served.files = files
    return served


def explain(queue: Explanations, served: ServedModel, seconds: float = 60) -> Explained:
    return asyncio.run(queue.explain(served, CAT, None, seconds=seconds))


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lower priority: other tests at the same time would delay these."""
    monkeypatch.setattr(explanations, "lower_priority", lambda: None)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[HeatMaps]]:
    """What was loaded so far."""
    found: list[weakref.ref[HeatMaps]] = []

    def load(bundle: Bundle) -> HeatMaps:
        maps = HeatMaps(bundle)
        found.append(weakref.ref(maps))
        return maps

    monkeypatch.setattr(explanations, "HeatMaps", load)
    return found


def test_loaded_once_and_freed_when_idle_or_for_another_model(
    artifacts: Path, loaded: list[weakref.ref[HeatMaps]]
) -> None:
    bundle = Bundle.open(artifacts / "efficientnet_lite0")
    first, second = model(artifacts, bundle), model(artifacts, bundle, "second")
    queue = Explanations(max_pixels=MAX_PIXELS, idle_seconds=60)

    heat = [explain(queue, first).heat.map.tolist() for _ in range(2)]
    assert (len(loaded), heat[0]) == (1, heat[1])

    explain(queue, second)
    assert [each() is None for each in loaded] == [True, False]

    queue.free()
    # The thread that explained may still be on its way back.
    wait_until(lambda: loaded[1]() is None, "the second one was freed")
    queue.close()
    for each in (first, second):
        each.close()


def test_memory_is_freed_after_a_while(artifacts: Path, loaded: list[weakref.ref[HeatMaps]]) -> None:
    served = model(artifacts, Bundle.open(artifacts / "efficientnet_lite0"))
    queue = Explanations(max_pixels=MAX_PIXELS, idle_seconds=0.01)

    explain(queue, served)

    wait_until(lambda: loaded[0]() is None, "the explanation was freed")
    explain(queue, served)
    assert len(loaded) == 2
    queue.close()
    served.close()


def test_changed_files_and_missing_proofs_are_refused(artifacts: Path, tmp_path: Path) -> None:
    """The files must be those of the manifest that the model was loaded with."""
    shutil.copytree(artifacts / "efficientnet_lite0", tmp_path / "changed")
    bundle = Bundle.open(tmp_path / "changed")
    (tmp_path / "changed" / EXPLAIN).write_bytes(b"another graph")
    queue = Explanations(max_pixels=MAX_PIXELS)

    for files in (bundle, None):
        served = model(artifacts, files)
        with pytest.raises(RequestError) as raised:
            explain(queue, served)
        assert (raised.value.status, raised.value.code) == (404, "no_explanation")
        assert str(tmp_path) not in raised.value.message
        served.close()
    queue.close()


def test_a_full_queue_and_a_deadline(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    monkeypatch.setattr(explanations, "load_with_box", lambda *arguments, **options: held.wait() and None)
    served = model(artifacts, Bundle.open(artifacts / "efficientnet_lite0"))
    queue = Explanations(max_pixels=MAX_PIXELS)

    async def flood() -> list[object]:
        tasks = [queue.explain(served, CAT, None, seconds=0.2) for _ in range(CAPACITY + 2)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(flood())
    held.set()

    assert all(isinstance(error, RequestError) for error in errors)
    assert {error.status for error in errors} == {429, 504}  # type: ignore[attr-defined]
    queue.close()
    served.close()

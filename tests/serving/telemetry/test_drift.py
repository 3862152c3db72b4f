"""Drift in serving: a window of sampled pictures against the profile of the proof, as metrics of the model."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models.bundle.drift import Profile, cells
from serving.lifecycle.served_model import ServedModel
from serving.telemetry import drift
from serving.telemetry.drift import INTERVAL, Drift
from serving.telemetry.recorder import Recorder
from tests.serving.stand_in import StandIn, stand_in_model

WINDOW = 100
MEASURES = {"class", "confidence", "brightness", "contrast"}
LOGITS = np.zeros((1, 1000), np.float32)
LOGITS[:, 0] = 9

Pixels = npt.NDArray[np.uint8]


def pictures(count: int, seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    brightness = rng.integers(40, 200, (count, 1, 1, 1))
    return (brightness + rng.integers(-40, 41, (count, 224, 224, 3), dtype=np.int8)).astype(np.uint8)


@pytest.fixture
def profile() -> Profile:
    """Profile of 60 pictures that the stand-in answers."""
    return Profile.of(cells(pictures(60, 0), LOGITS.repeat(60, axis=0), 1.0), 1000)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "WINDOW", WINDOW)
    monkeypatch.setattr(drift, "INTERVAL", 0.0)


def shown(recorder: Recorder, name: str) -> dict[str, str]:
    text = recorder.exposition().decode()
    return dict(re.findall(rf'^halftone_input_{name}\{{.*measure="(\w+)".*\}} (\S+)$', text, re.MULTILINE))


def send(model: ServedModel, pixels: Pixels) -> None:
    async def one_by_one() -> None:
        for picture in pixels:
            await model.logits_of_pixels(picture[np.newaxis], seconds=30)

    asyncio.run(one_by_one())


@pytest.fixture
def model(artifacts: Path, profile: Profile, short: None) -> ServedModel:
    return stand_in_model(artifacts, "m", StandIn(), recorder=Recorder(), profile=profile)


def test_darkened_pictures_are_found_and_like_ones_are_not(artifacts: Path, profile: Profile, short: None) -> None:
    recorder = Recorder()
    model = stand_in_model(artifacts, "m", StandIn(), recorder=recorder, profile=profile)
    model.announce()
    assert set(shown(recorder, "drift_detected").items()) == {(measure, "NaN") for measure in MEASURES}

    send(model, pictures(WINDOW, 1))
    assert shown(recorder, "drift_detected") == dict.fromkeys(MEASURES, "0.0")

    send(model, pictures(WINDOW, 2) // 4)
    assert shown(recorder, "drift_detected") == {
        "class": "0.0",
        "confidence": "0.0",
        "brightness": "1.0",
        "contrast": "1.0",
    }
    assert float(shown(recorder, "drift")["brightness"]) > 0.5

    model.withdraw()
    assert shown(recorder, "drift") == shown(recorder, "drift_detected") == {}
    model.close()


def test_it_is_not_known_without_a_profile_or_metrics(artifacts: Path, profile: Profile) -> None:
    recorder = Recorder()
    for model in (
        stand_in_model(artifacts, "m", StandIn(), recorder=recorder),
        stand_in_model(artifacts, "m", StandIn(), recorder=Recorder(metrics=False), profile=profile),
    ):
        model.announce()
        send(model, pictures(1, 0))
        model.withdraw()
        model.close()
    assert shown(recorder, "drift") == {}


def test_much_traffic_costs_no_more_than_a_sample_and_broken_answers_are_no_sample(
    profile: Profile, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "INTERVAL", INTERVAL)
    recorder, time = Recorder(), 0.0
    assert recorder.metrics
    clock: Callable[[], float] = lambda: time  # noqa: E731
    window = Drift(recorder.metrics, ("m", "1", "v"), profile, 1.0, clock=clock)
    window.announce()
    batch = pictures(4, 0)

    for number in range(100 * WINDOW):
        time = number * INTERVAL / 200
        window.offer(list(batch), LOGITS.repeat(4, axis=0))
    assert shown(recorder, "drift")["class"] == "NaN"

    for _ in range(WINDOW):
        time += INTERVAL
        window.offer([batch[0]], np.full_like(LOGITS, np.nan))
    assert shown(recorder, "drift")["class"] == "NaN"

    for _ in range(WINDOW):
        time += INTERVAL
        window.offer([batch[0]], LOGITS)
    assert shown(recorder, "drift")["class"] == "0.0"

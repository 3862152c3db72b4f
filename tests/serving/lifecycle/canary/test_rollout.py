"""Candidates beside an active version: what clients get, what is found, and how a trial ends."""

import asyncio
import io
import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from export.runtime import Pixels
from models.bundle.store import DEFAULT_MODEL
from serving.api.app import Api
from serving.lifecycle.canary.rollout import Request, Rollout
from serving.lifecycle.canary.rule import FAILURES_IN_A_ROW, STAGE_ANSWERS
from serving.lifecycle.hot_swap import HotSwap
from serving.lifecycle.watcher import Watcher
from tests.samples import edit_manifest
from tests.servers import wait_until
from tests.serving.lifecycle.stand_in_service import CAT, Factory, is_free, post, refused, service
from tests.serving.lifecycle.test_shadow import Fixed
from tests.serving.stand_in import StandIn

AUTO = Request(auto=True)


def png(shade: int) -> bytes:
    """Return a small picture, which is quick to decode."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (shade % 256, 9, 9)).save(file, "PNG")
    return file.getvalue()


class Odd(StandIn):
    """Runtime of a candidate.

    Args:
        index: class that it names.
        logit: of this class; the others have 0.
        delay: seconds of a run.
        error: raised in a run.
        every: only each run of this number differs from that of a `StandIn`.
    """

    def __init__(
        self, *, index: int = 0, logit: float = 9, delay: float = 0, error: Exception | None = None, every: int = 1
    ) -> None:
        super().__init__()
        self._index, self._logit, self._delay, self._error, self._every = index, logit, delay, error, every
        self._runs = 0

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        logits = super()._infer(pixels)
        self._runs += 1
        if self._runs % self._every:
            return logits
        time.sleep(self._delay)
        if self._error:
            raise self._error
        logits[:] = 0
        logits[:, self._index] = self._logit
        return logits


class Trial:
    """A service with a stand-in and, after `start`, a candidate."""

    def __init__(self, load: Factory, api: Api, swaps: HotSwap) -> None:
        self.load, self.api, self.swaps = load, api, swaps
        self.rollout = Rollout(api.models, swaps, api.recorder)

    def start(self, request: Request = AUTO, runtime: StandIn | None = None) -> None:
        """Load a candidate whose version is v2."""
        self.load.runtime = runtime
        self.rollout.start("first", request)

    def versions(self, number: int, **kwargs: Any) -> Counter[str]:
        """Send pictures one after the other; return the versions that answered."""

        async def send() -> Counter[str]:
            answers = [await post(self.api, **{"content": png(i), **kwargs}) for i in range(number)]
            assert {answer.status_code for answer in answers} == {200}
            return Counter(answer.json()["version"] for answer in answers)

        return asyncio.run(send())

    def decisions(self) -> list[str]:
        return [each.decision for each in self.rollout.decisions("first")]

    def reason(self) -> str:
        return self.rollout.decisions("first")[-1].reason

    def send_until(self, decision: str, most: int = 3000) -> Counter[str]:
        """Send pictures until this decision was made; return the versions that answered."""
        answered: Counter[str] = Counter()
        while decision not in self.decisions() and answered.total() < most:
            answered += self.versions(20)
        wait_until(lambda: decision in self.decisions(), decision)
        return answered

    def over(self) -> None:
        """Check that the trial is over, and the candidate freed."""
        assert self.api.models.candidate("first") is None
        wait_until(lambda: is_free(self.load.made[1]), "the candidate was freed")


@pytest.fixture
def trial(load: Factory) -> Iterator[Trial]:
    with service(load) as (api, swaps):
        yield Trial(load, api, swaps)


BAD = {
    "agreement": Odd(index=1),
    "confidence": Odd(logit=6),
    "latency": Odd(delay=0.01),
    "errors": Odd(error=ValueError("broken"), every=2),
}


@pytest.mark.parametrize("criterion", BAD)
def test_the_rule_rolls_a_bad_candidate_back_before_a_client_sees_it(trial: Trial, criterion: str) -> None:
    trial.start(runtime=BAD[criterion])

    assert set(trial.send_until("rolled_back")) == {"v1"}
    assert f"{criterion} " in trial.reason()
    trial.over()


def test_the_rule_gives_a_good_candidate_more_and_more_requests(trial: Trial) -> None:
    trial.start(Request(share=0.1, auto=True))

    answered = trial.send_until("promoted")

    assert trial.decisions() == ["started", "share", "promoted"]
    assert answered["v1"] > answered["v2"] >= 2 * STAGE_ANSWERS
    assert trial.versions(1) == {"v2": 1}
    assert trial.swaps.rollback("first").model.version == "v1"
    assert not any(map(is_free, trial.load.made))


@pytest.mark.parametrize("runtime", [Odd(error=ValueError("broken")), Odd(logit=np.nan), Odd(logit=np.inf)])
@pytest.mark.parametrize("auto", [False, True])
def test_a_failing_candidate_is_gone_at_once_and_no_request_fails(
    trial: Trial, runtime: Odd, auto: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "bentoml.halftone"):
        trial.start(Request(share=1, auto=auto), runtime)

        assert trial.versions(FAILURES_IN_A_ROW + 1) == {"v1": FAILURES_IN_A_ROW + 1}
        wait_until(lambda: trial.decisions() == ["started", "rolled_back"], "it was rolled back")
    assert re.search(r"broken|NaN", trial.reason())
    assert caplog.text.count("the candidate v2 of first failed") == 1
    assert "canary of first: v2 rolled_back by rule: " in caplog.text
    trial.over()


@pytest.mark.parametrize("path", ["/classify", "/classify_batch", "/v2/models/first/infer"])
def test_the_answer_on_each_route_names_the_version_that_computed_it(trial: Trial, path: str) -> None:
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 0}}]}
    body["inputs"][0]["parameters"] = {"binary_data_size": 4 + len(CAT)}  # type: ignore[index]
    text = json.dumps(body).encode()
    arguments: dict[str, Any] = {
        "/classify": {},
        "/classify_batch": {"content": None, "files": [("images", CAT), ("images", CAT)]},
        "/v2/models/first/infer": {
            "content": text + len(CAT).to_bytes(4, "little") + CAT,
            "headers": {"Inference-Header-Content-Length": str(len(text))},
        },
    }[path]

    def best() -> tuple[str, int]:
        answer = asyncio.run(post(trial.api, path, **arguments)).json()
        if path == "/classify_batch":
            return answer["version"], answer["results"][1]["predictions"][0]["index"]
        if path == "/classify":
            return answer["version"], answer["predictions"][0]["index"]
        return answer["model_version"], int(np.argmax(answer["outputs"][0]["data"]))

    trial.start(Request(share=1), Odd(index=1))
    assert best() == ("v2", 1)
    trial.rollout.start("first", Request(share=0))
    assert best() == ("v1", 0)
    trial.rollout.start("first", Request(share=1))
    trial.rollout.withdraw("first")
    assert best() == ("v1", 0)
    assert trial.decisions() == ["started", "changed", "changed", "withdrawn"]
    trial.over()


def test_a_client_of_the_protocol_that_names_the_active_version_gets_it(trial: Trial) -> None:
    trial.start(Request(share=1))
    shape, data = [1, 224, 224, 3], [0] * (224 * 224 * 3)
    body = {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": shape, "data": data}]}

    def ask(path: str) -> Any:
        return asyncio.run(post(trial.api, path, content=json.dumps(body).encode())).json()

    assert ask("/v2/models/first/versions/v1/infer")["model_version"] == "v1"
    assert "is v1, not 'v2'" in ask("/v2/models/first/versions/v2/infer")["error"]
    assert ask("/v2/models/first/infer")["model_version"] == "v2"


def test_a_client_stays_with_its_version_while_the_share_grows(trial: Trial) -> None:
    users = [f"user-{number}" for number in range(60)]

    def with_candidate(share: float) -> set[str]:
        trial.rollout.start("first", Request(share=share, sticky="x-user"))
        found = {user: trial.versions(2, headers={"X-User": user}) for user in users}
        assert all(len(versions) == 1 for versions in found.values())
        return {user for user, versions in found.items() if "v2" in versions}

    few, more = with_candidate(0.2), with_candidate(0.6)

    assert set() < few < more < set(users)
    assert with_candidate(1) == set(users)
    trial.rollout.start("first", Request(share=0.5))
    assert len(trial.versions(60)) == 2


def test_a_broken_picture_is_no_failure_of_the_candidate(trial: Trial) -> None:
    trial.start(Request(share=1, auto=True))

    for _ in range(3 * FAILURES_IN_A_ROW):
        answer = asyncio.run(post(trial.api, content=CAT[:2000]))
        assert answer.status_code == 400
    batch = asyncio.run(post(trial.api, "/classify_batch", content=None, files=[("images", CAT), ("images", b"no")]))

    assert batch.json()["version"] == "v2"
    assert [next(iter(result)) for result in batch.json()["results"]] == ["predictions", "error"]
    candidate = trial.api.models.candidate("first")
    assert candidate is not None
    assert candidate.description()["criteria"]["errors"]["bad"] == 0


def test_a_batch_with_a_picture_on_which_the_candidate_fails_is_answered_by_the_active_version(trial: Trial) -> None:
    trial.start(Request(share=1), StandIn(fails_on_dark=True))
    dark = io.BytesIO()
    Image.new("RGB", (32, 32)).save(dark, "PNG")

    answer = asyncio.run(
        post(trial.api, "/classify_batch", content=None, files=[("images", CAT), ("images", dark.getvalue())])
    )

    assert answer.json()["version"] == "v1"
    assert all("predictions" in result for result in answer.json()["results"])
    assert trial.versions(1) == {"v2": 1}


def test_a_candidate_that_hangs_leaves_the_active_version_time_to_answer(trial: Trial) -> None:
    hanging = StandIn(held=True)
    trial.start(Request(share=1), hanging)

    assert trial.versions(1, headers={"X-Request-Timeout": "1"}) == {"v1": 1}
    hanging.held.set()


def test_a_request_that_a_withdrawn_candidate_still_has_is_not_lost(trial: Trial) -> None:
    held = StandIn(held=True, fails_on_dark=True)
    trial.start(Request(share=1), held)
    dark = io.BytesIO()
    Image.new("RGB", (32, 32)).save(dark, "PNG")

    async def during() -> str:
        running = asyncio.create_task(post(trial.api, content=dark.getvalue()))
        await asyncio.to_thread(held.entered.acquire)
        await asyncio.to_thread(trial.rollout.withdraw, "first")
        held.held.set()
        return str((await running).json()["version"])

    assert asyncio.run(during()) == "v1"
    trial.over()


def test_a_changed_limit_starts_the_evidence_again(trial: Trial) -> None:
    trial.start(Request(), Odd(index=1))
    candidate = trial.api.models.candidate("first")
    assert candidate is not None
    looked_at: Callable[[], int] = lambda: candidate.description()["criteria"]["confidence"]["events"]  # noqa: E731
    trial.versions(10)
    wait_until(lambda: looked_at() == 10, "ten pictures were compared")

    trial.rollout.start("first", Request(min_agreement=0, auto=True))
    assert looked_at() == 0
    assert "agreement" not in candidate.description()["criteria"]
    trial.versions(20)
    wait_until(lambda: looked_at() == 20, "twenty pictures were compared")
    assert trial.decisions() == ["started", "changed"]


def test_the_operator_promotes(trial: Trial) -> None:
    trial.start(Request(share=0.5))

    swap = trial.rollout.promote("first")

    assert (swap.model.version, swap.replaced.version) == ("v2", "v1")
    assert trial.versions(5) == {"v2": 5}
    text = trial.api.recorder.exposition().decode()
    assert "halftone_canary_share{" not in text
    assert 'version="v2"} 1.0' in "".join(line for line in text.splitlines() if line.startswith("halftone_model_info"))
    assert 'halftone_canary_decisions_total{by="operator",decision="promoted",model="first"} 1.0' in text
    assert trial.swaps.rollback("first").model.version == "v1"
    # Nothing of the trial is left.
    assert trial.swaps.load("first").model.version == "v3"


def test_other_changes_wait_for_the_end_of_the_trial(trial: Trial) -> None:
    assert refused(lambda: trial.rollout.promote("first")).code == "no_canary"
    assert refused(lambda: trial.rollout.withdraw("first")).code == "no_canary"
    trial.start()

    for work in (
        lambda: trial.swaps.load("first"),
        lambda: trial.swaps.rollback("first"),
        lambda: trial.rollout.start("first", Request(bundle="other")),
    ):
        error = refused(work)
        assert (error.status, error.code) == (409, "canary_running")
        assert "DELETE /admin/models/first/canary" in error.message
    assert [is_free(model) for model in trial.load.made] == [False, False]


def test_the_active_version_itself_is_no_candidate(trial: Trial) -> None:
    original = trial.load.made[0]
    made = trial.load

    def same(name: str, **kwargs: Any) -> Any:
        model = made(name, **kwargs)
        model.version = original.version
        return model

    rollout = Rollout(
        trial.api.models, HotSwap(trial.api.models, same, trial.api.recorder, keep=True), trial.api.recorder
    )
    assert refused(lambda: rollout.start("first", Request())).code == "same_version"
    trial.over()


@pytest.mark.parametrize(("pair", "bad"), [((0.12, 0.0), 1), ((0.08, 0.0), 0)])
def test_classes_between_which_the_active_version_can_not_decide_agree(
    trial: Trial, pair: tuple[float, float], bad: int
) -> None:
    # Probabilities of 0.53 and 0.47, then 0.52 and 0.48.
    trial.load.made[0].runtime = Fixed(*pair)
    trial.start(Request(), Fixed(0.0, 0.1))
    candidate = trial.api.models.candidate("first")
    assert candidate is not None
    trial.versions(1)
    wait_until(lambda: candidate.description()["criteria"]["agreement"]["events"] == 1, "it was compared")

    assert candidate.description()["criteria"]["agreement"]["bad"] == bad


def test_labels_are_compared_by_name(trial: Trial) -> None:
    manifest = trial.load.made[0].manifest
    # The same class at another index, as after a training with a class more.
    swapped = (manifest.labels[1], manifest.labels[0], *manifest.labels[2:])

    def relabelled(name: str, **kwargs: Any) -> Any:
        model = trial.load(name, **kwargs)
        model.manifest = replace(model.manifest, labels=swapped)
        return model

    trial.load.runtime = Odd(index=1)
    rollout = Rollout(
        trial.api.models, HotSwap(trial.api.models, relabelled, trial.api.recorder, keep=True), trial.api.recorder
    )
    rollout.start("first", Request())
    candidate = trial.api.models.candidate("first")
    assert candidate is not None
    trial.versions(5)
    wait_until(lambda: candidate.description()["criteria"]["agreement"]["events"] == 5, "five were compared")
    assert candidate.description()["criteria"]["agreement"]["bad"] == 0


@contextmanager
def busy(trial: Trial) -> Iterator[None]:
    """Let another change of the model run meanwhile."""
    ended, entered = threading.Event(), threading.Event()

    def change() -> None:
        with trial.swaps.exclusive("first"):
            entered.set()
            ended.wait()

    thread = threading.Thread(target=change)
    thread.start()
    entered.wait()
    yield
    ended.set()
    thread.join()


def test_a_roll_back_during_another_change_takes_the_requests_away_at_once(trial: Trial) -> None:
    trial.start(Request(share=1), Odd(error=ValueError("broken")))
    with busy(trial):
        trial.versions(FAILURES_IN_A_ROW)
        candidate = trial.api.models.candidate("first")
        assert candidate is not None
        assert candidate.share == 0
        assert trial.decisions() == ["started"]
    wait_until(lambda: trial.decisions() == ["started", "rolled_back"], "it was rolled back")
    trial.over()


def test_the_watcher_does_not_load_what_was_rolled_back(
    load: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((load.artifacts / DEFAULT_MODEL / "manifest.json").read_bytes())
    edit_manifest(folder, lambda manifest: manifest.update(files={"README.md": manifest["files"]["README.md"]}))
    (folder / "README.md").write_text("a file")
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    load.folder = folder
    with service(load) as (api, swaps):
        watcher, trial = Watcher(api.models, swaps, seconds=60), Trial(load, api, swaps)
        edit_manifest(folder, lambda manifest: manifest.update(temperature=1.5))
        trial.start(Request())
        for _ in range(3):
            watcher.poll("first")
        trial.rollout.withdraw("first")
        for _ in range(3):
            watcher.poll("first")
        assert trial.versions(1) == {"v1": 1}
        edit_manifest(folder, lambda manifest: manifest.update(temperature=1.6))
        for _ in range(2):
            watcher.poll("first")
        assert trial.versions(1) == {"v3": 1}


def test_a_service_with_a_candidate_closes(load: Factory) -> None:
    with service(load) as (api, swaps):
        Trial(load, api, swaps).start()

    assert all(map(is_free, load.made))
